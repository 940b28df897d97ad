//! The store's clock: revisions.

use std::fmt;

/// A revision of the whole store: 1 for a fresh one, one higher for each transaction that changed
/// something, never lower (`etcd S1`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of a store that nobody has written to (`etcd S1`).
    pub const FRESH: Self = Self(1);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one change: the transaction's revision and the place of the change within it
/// (`etcd S19`). Ordered as the changes happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId {
    /// Revision of the transaction.
    pub main: Revision,
    /// Position within the transaction, from 0.
    pub sub: u32,
}

impl ChangeId {
    /// Bytes of [`to_bytes`](Self::to_bytes).
    pub const LEN: usize = 12;

    /// The first change a transaction of revision `main` can have.
    #[must_use]
    pub const fn first_of(main: Revision) -> Self {
        Self { main, sub: 0 }
    }

    /// Twelve bytes that sort as the changes do: main, then sub, big endian.
    ///
    /// # Panics
    /// If the revision is negative, which no change has.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let main = u64::try_from(self.main.0).expect("a change has a positive revision");
        let mut out = [0; Self::LEN];
        out[..8].copy_from_slice(&main.to_be_bytes());
        out[8..].copy_from_slice(&self.sub.to_be_bytes());
        out
    }

    /// The inverse of [`to_bytes`](Self::to_bytes); `None` if the length is wrong or the revision
    /// is beyond `i64`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (main, sub) = bytes.split_at_checked(8)?;
        let main = u64::from_be_bytes(main.try_into().ok()?);
        Some(Self {
            main: Revision(i64::try_from(main).ok()?),
            sub: u32::from_be_bytes(sub.try_into().ok()?),
        })
    }
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}
