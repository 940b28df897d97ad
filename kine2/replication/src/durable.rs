//! What a node keeps in a part's log beside the entries, as bytes (`repl section 3`).
//!
//! The layout is written down in `docs/wal-format.md`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::config::{Config, ShapeError};
use crate::epoch::Epoch;
use crate::forms::Reason;
use crate::hard_state::{DataState, HardState, PendingAdd};
use crate::ids::{ClusterId, Incarnation, NodeRef, PartName, Replica, WitnessId};
use crate::policy::{Arbiter, LonePolicy, Policies};

/// Version of the layout that is written; the only one that is read.
const VERSION: u8 = 2;
/// Longest name and address, in bytes.
const TEXT_BYTES_MAX: usize = 255;

/// The record a node keeps in the log of one part: it is replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// How often the node started.
    pub boot: u64,
    /// Incarnation of the part's storage (`repl K6`).
    pub storage: Incarnation,
    /// Whether the part's data can be used.
    pub data: DataState,
    /// The unit's hard state; in the lead part only.
    pub hard: Option<HardState>,
}

/// Why bytes are not a [`Durable`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DurableError {
    /// Another version.
    #[error("version {0}; {VERSION} is accepted")]
    Version(u8),
    /// The bytes end before the field does.
    #[error("it ends within {0}")]
    Short(&'static str),
    /// The bytes go on after the last field.
    #[error("{0} bytes follow its end")]
    Long(usize),
    /// A field has a value that means nothing.
    #[error("{what} is {value}")]
    Value {
        /// The field.
        what: &'static str,
        /// What it is.
        value: u8,
    },
    /// A name or address is not text.
    #[error("{0} is not UTF-8")]
    Text(&'static str),
    /// A list names one thing twice.
    #[error("{0} has an entry twice")]
    Twice(&'static str),
    /// The configuration contradicts itself.
    #[error("its configuration: {0}")]
    Shape(#[from] ShapeError),
}

impl Durable {
    /// The bytes.
    ///
    /// # Panics
    /// If a name or address is longer than 255 bytes: they are refused where they come in.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        out.put_u8(VERSION);
        out.put_u64_le(self.boot);
        out.put_u128_le(self.storage.0);
        out.put_u8(match self.data {
            DataState::Complete => 0,
            DataState::Inconsistent => 1,
            DataState::Failed => 2,
        });
        put_option(&mut out, self.hard.as_ref(), put_hard);
        out.freeze()
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DurableError> {
        let mut reader = Reader { bytes };
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(DurableError::Version(version));
        }
        let durable = Self {
            boot: reader.u64("boot")?,
            storage: Incarnation(reader.u128("storage")?),
            data: match reader.u8("data")? {
                0 => DataState::Complete,
                1 => DataState::Inconsistent,
                2 => DataState::Failed,
                value => return Err(value_of("data", value)),
            },
            hard: reader.option("hard state", Reader::hard)?,
        };
        match reader.bytes.len() {
            0 => Ok(durable),
            rest => Err(DurableError::Long(rest)),
        }
    }
}

impl Config {
    /// The bytes, as other nodes and the witness get them: the version of the record's layout, and
    /// the configuration as the record has it.
    ///
    /// # Panics
    /// As [`Durable::encode`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_u8(VERSION);
        put_config(&mut out, self);
        out.freeze()
    }

    /// Reads the bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, DurableError> {
        let mut reader = Reader { bytes };
        let version = reader.u8("version")?;
        if version != VERSION {
            return Err(DurableError::Version(version));
        }
        let config = reader.config()?;
        match reader.bytes.len() {
            0 => Ok(config),
            rest => Err(DurableError::Long(rest)),
        }
    }
}

fn value_of(what: &'static str, value: u8) -> DurableError {
    DurableError::Value { what, value }
}

fn put_hard(out: &mut BytesMut, hard: &HardState) {
    put_config(out, &hard.config);
    out.put_u32_le(hard.run);
    put_option(out, hard.pend_add.as_ref(), |out, pending| {
        put_text(out, pending.part.as_str());
        put_replica(out, &pending.replica);
    });
    put_option(out, hard.prop.as_ref(), put_config);
    out.put_u8(u8::from(hard.stopped));
}

fn put_config(out: &mut BytesMut, config: &Config) {
    out.put_u128_le(config.cluster.0);
    put_text(out, config.unit.as_str());
    out.put_u64_le(config.epoch.0);
    out.put_u64_le(config.uid);
    put_node(out, &config.primary);
    put_text(out, config.lead.as_str());
    put_count(out, config.in_sync.len());
    for (part, replicas) in &config.in_sync {
        put_text(out, part.as_str());
        put_count(out, replicas.len());
        for replica in replicas {
            put_replica(out, replica);
        }
    }
    put_count(out, config.members.len());
    for member in &config.members {
        put_node(out, member);
    }
    match &config.arbiter {
        Arbiter::Witness { id, address } => {
            out.put_u8(0);
            out.put_u128_le(id.0);
            put_text(out, address);
        }
        Arbiter::None(LonePolicy::Stop) => out.put_u8(1),
        Arbiter::None(LonePolicy::PreferPrimary) => out.put_u8(2),
    }
    let Policies {
        swap_back,
        boot_alone,
        preferred,
    } = &config.policies;
    out.put_u8(u8::from(*swap_back) | u8::from(*boot_alone) << 1);
    put_option(out, preferred.as_ref(), |out, name| {
        put_text(out, name.as_str());
    });
    out.put_u8(reason_number(config.reason));
}

const fn reason_number(reason: Reason) -> u8 {
    match reason {
        Reason::Init => 0,
        Reason::Remove => 1,
        Reason::Drop => 2,
        Reason::Takeover => 3,
        Reason::Add => 4,
        Reason::Swap => 5,
        Reason::Abdicate => 6,
        Reason::Parts => 7,
        Reason::Policy => 8,
        Reason::Move => 9,
        Reason::Force => 10,
    }
}

/// In the order of their numbers.
const REASONS: [Reason; 11] = [
    Reason::Init,
    Reason::Remove,
    Reason::Drop,
    Reason::Takeover,
    Reason::Add,
    Reason::Swap,
    Reason::Abdicate,
    Reason::Parts,
    Reason::Policy,
    Reason::Move,
    Reason::Force,
];

fn put_option<T>(out: &mut BytesMut, value: Option<&T>, put: impl FnOnce(&mut BytesMut, &T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u8(u8::try_from(count).expect("configurations are small"));
}

fn put_text(out: &mut BytesMut, text: &str) {
    assert!(text.len() <= TEXT_BYTES_MAX, "{text:?} is too long");
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

fn put_node(out: &mut BytesMut, node: &NodeRef) {
    put_text(out, node.name.as_str());
    out.put_u128_le(node.incarnation.0);
}

fn put_replica(out: &mut BytesMut, replica: &Replica) {
    put_node(out, &replica.node);
    out.put_u128_le(replica.storage.0);
}

/// What is left to read.
struct Reader<'b> {
    bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'b [u8], DurableError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(DurableError::Short(what))?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DurableError> {
        let taken = self.take(N, what)?;
        taken.try_into().map_err(|_| DurableError::Short(what))
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, DurableError> {
        Ok(self.array::<1>(what)?[0])
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, DurableError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, DurableError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn u128(&mut self, what: &'static str) -> Result<u128, DurableError> {
        self.array(what).map(u128::from_le_bytes)
    }

    fn flag(&mut self, what: &'static str) -> Result<bool, DurableError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(value_of(what, value)),
        }
    }

    fn text(&mut self, what: &'static str) -> Result<&'b str, DurableError> {
        let count = self.u8(what)?;
        let bytes = self.take(usize::from(count), what)?;
        std::str::from_utf8(bytes).map_err(|_| DurableError::Text(what))
    }

    fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DurableError>,
    ) -> Result<Option<T>, DurableError> {
        if self.flag(what)? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    fn set<T: Ord>(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, DurableError>,
    ) -> Result<BTreeSet<T>, DurableError> {
        let mut set = BTreeSet::new();
        for _ in 0..self.u8(what)? {
            if !set.insert(read(self)?) {
                return Err(DurableError::Twice(what));
            }
        }
        Ok(set)
    }

    fn node(&mut self) -> Result<NodeRef, DurableError> {
        Ok(NodeRef {
            name: self.text("node")?.into(),
            incarnation: Incarnation(self.u128("incarnation")?),
        })
    }

    fn replica(&mut self) -> Result<Replica, DurableError> {
        Ok(Replica {
            node: self.node()?,
            storage: Incarnation(self.u128("storage")?),
        })
    }

    fn hard(&mut self) -> Result<HardState, DurableError> {
        Ok(HardState {
            config: self.config()?,
            run: self.u32("run")?,
            pend_add: self.option("add in doubt", |reader| {
                Ok(PendingAdd {
                    part: reader.text("part")?.into(),
                    replica: reader.replica()?,
                })
            })?,
            prop: self.option("proposed arbiter", Self::config)?,
            stopped: self.flag("stopped")?,
        })
    }

    fn config(&mut self) -> Result<Config, DurableError> {
        let config = Config {
            cluster: ClusterId(self.u128("cluster")?),
            unit: self.text("unit")?.into(),
            epoch: Epoch(self.u64("epoch")?),
            uid: self.u64("uid")?,
            primary: self.node()?,
            lead: self.text("lead")?.into(),
            in_sync: self.in_sync()?,
            members: self.set("members", Self::node)?,
            arbiter: self.arbiter()?,
            policies: self.policies()?,
            reason: {
                let number = self.u8("reason")?;
                let reason = REASONS.get(usize::from(number)).copied();
                reason.ok_or_else(|| value_of("reason", number))?
            },
        };
        config.check_shape()?;
        Ok(config)
    }

    fn in_sync(&mut self) -> Result<BTreeMap<PartName, BTreeSet<Replica>>, DurableError> {
        let mut parts = BTreeMap::new();
        for _ in 0..self.u8("parts")? {
            let part = self.text("part")?.into();
            let replicas = self.set("replicas", Self::replica)?;
            if parts.insert(part, replicas).is_some() {
                return Err(DurableError::Twice("parts"));
            }
        }
        Ok(parts)
    }

    fn arbiter(&mut self) -> Result<Arbiter, DurableError> {
        Ok(match self.u8("arbiter")? {
            0 => Arbiter::Witness {
                id: WitnessId(self.u128("witness")?),
                address: self.text("address")?.to_owned(),
            },
            1 => Arbiter::None(LonePolicy::Stop),
            2 => Arbiter::None(LonePolicy::PreferPrimary),
            value => return Err(value_of("arbiter", value)),
        })
    }

    fn policies(&mut self) -> Result<Policies, DurableError> {
        let flags = self.u8("policies")?;
        if flags > 3 {
            return Err(value_of("policies", flags));
        }
        Ok(Policies {
            swap_back: flags & 1 != 0,
            boot_alone: flags & 2 != 0,
            preferred: self.option("preferred", |reader| Ok(reader.text("preferred")?.into()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str, incarnation: u128) -> NodeRef {
        NodeRef::new(name, incarnation)
    }

    fn config(mirror: bool, witness: bool, reason: usize) -> Config {
        let replica = |name, incarnation| Replica {
            node: node(name, incarnation),
            storage: Incarnation(incarnation + 1),
        };
        let mut set = BTreeSet::from([replica("a", 1)]);
        if mirror {
            set.insert(replica("b", 10));
        }
        Config {
            cluster: ClusterId(7),
            unit: "main".into(),
            epoch: Epoch::new(2, 9),
            uid: 77,
            primary: node("a", 1),
            lead: "store".into(),
            in_sync: BTreeMap::from([("store".into(), set.clone()), ("till".into(), set)]),
            members: BTreeSet::from([node("a", 1), node("b", 10)]),
            arbiter: if witness {
                Arbiter::Witness {
                    id: WitnessId(5),
                    address: "192.0.2.1:2390".into(),
                }
            } else {
                Arbiter::None(LonePolicy::PreferPrimary)
            },
            policies: Policies {
                preferred: witness.then(|| "b".into()),
                ..Policies::default()
            },
            reason: REASONS[reason],
        }
    }

    fn durable() -> impl Strategy<Value = Durable> {
        let config = (any::<bool>(), any::<bool>(), 0..REASONS.len())
            .prop_map(|(mirror, witness, reason)| config(mirror, witness, reason));
        let prop = prop::option::of(config.clone());
        let hard = (config, any::<u32>(), any::<bool>(), prop, any::<bool>());
        let hard = hard.prop_map(|(config, run, pends, prop, stopped)| HardState {
            pend_add: pends.then(|| PendingAdd {
                part: "till".into(),
                replica: config.replicas(&config.lead).next().unwrap().clone(),
            }),
            config,
            run,
            prop,
            stopped,
        });
        (
            any::<u64>(),
            any::<u128>(),
            0..3usize,
            prop::option::of(hard),
        )
            .prop_map(|(boot, storage, data, hard)| Durable {
                boot,
                storage: Incarnation(storage),
                data: [
                    DataState::Complete,
                    DataState::Inconsistent,
                    DataState::Failed,
                ][data],
                hard,
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(durable in durable(), cut in any::<prop::sample::Index>()) {
            let bytes = durable.encode();
            prop_assert_eq!(Durable::decode(&bytes), Ok(durable));
            let part = &bytes[..cut.index(bytes.len())];
            prop_assert!(Durable::decode(part).is_err(), "a part is not the whole");
            let more = [&bytes[..], &[0]].concat();
            prop_assert_eq!(Durable::decode(&more), Err(DurableError::Long(1)));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Durable::decode(&bytes);
        }

        #[test]
        fn a_flipped_byte_is_another_record_or_none(
            durable in durable(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let mut bytes = durable.encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_ne!(Durable::decode(&bytes), Ok(durable));
        }
    }

    #[test]
    fn reasons_are_numbered_in_order() {
        for (number, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(usize::from(reason_number(reason)), number);
        }
    }
}
