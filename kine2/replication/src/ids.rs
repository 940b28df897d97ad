//! Names and numbers by which clusters, units, parts, nodes and requests are told apart.

use std::fmt;
use std::sync::Arc;

/// Longest name of a unit, part or node, and longest address, in bytes: more is refused where it
/// comes in.
pub const NAME_BYTES_MAX: usize = 255;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

name!(
    /// Name of a unit: what fails over as one.
    UnitName
);
name!(
    /// Name of a part of a unit: `store`, or a set of volumes.
    PartName
);
name!(
    /// Name of a node, free to choose.
    NodeName
);

/// Identity of a cluster, made once by `init`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

/// Made at random for a node by `init` or `join`, and for each part's storage when it is created:
/// a wiped one comes back with another incarnation (`repl K6`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u128);

/// Identity of a witness, made at random with its empty store (`repl W1`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WitnessId(pub u128);

/// One start of a witness, made at random when it starts: its store may be an old copy, so it
/// cannot count them (`repl W7`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WitnessLife(pub u64);

/// A node as configurations name it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    /// Its name.
    pub name: NodeName,
    /// Which life of that name.
    pub incarnation: Incarnation,
}

impl NodeRef {
    /// The node of this name and incarnation.
    #[must_use]
    pub fn new(name: &str, incarnation: u128) -> Self {
        Self {
            name: name.into(),
            incarnation: Incarnation(incarnation),
        }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)
    }
}

impl fmt::Debug for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:x}", self.name, self.incarnation.0)
    }
}

/// A part's data on one node: what an in-sync set holds (`repl K6`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// The node.
    pub node: NodeRef,
    /// Incarnation of the part's storage there.
    pub storage: Incarnation,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:x}", self.node, self.storage.0)
    }
}

/// Key of a register: in every call to a witness and in every frame between nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegisterKey {
    /// The cluster.
    pub cluster: ClusterId,
    /// The unit.
    pub unit: UnitName,
}

/// A waiting client's request, numbered by the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);
