//! Fields of the records that a node keeps on its disks, as bytes: little endian; a text is its
//! length (1) and UTF-8; an address is its version (1; 4 or 6) and its octets; an option is 0, or 1 and the value; a set is its count (1) and its members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use kine2_wal::{LogIndex, Origin, Term};
use thiserror::Error;

use crate::config::ShapeError;
use crate::floors::Mark;
use crate::ids::{Incarnation, NAME_BYTES_MAX, NodeRef, PartName, Replica};

/// Why bytes are not the record that was expected.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// Another version.
    #[error("version {found}; {least} to {most} are accepted")]
    Version {
        /// That of the record.
        found: u32,
        /// The oldest that is read.
        least: u32,
        /// The newest.
        most: u32,
    },
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

pub(crate) fn value_of(what: &'static str, value: u8) -> RecordError {
    RecordError::Value { what, value }
}

pub(crate) fn put_option<T>(
    out: &mut BytesMut,
    value: Option<&T>,
    put: impl FnOnce(&mut BytesMut, &T),
) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

pub(crate) fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u8(u8::try_from(count).expect("configurations are small"));
}

pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    assert!(text.len() <= NAME_BYTES_MAX, "{text:?} is too long");
    put_count(out, text.len());
    out.put_slice(text.as_bytes());
}

pub(crate) fn put_node(out: &mut BytesMut, node: &NodeRef) {
    put_text(out, node.name.as_str());
    out.put_u128_le(node.incarnation.0);
}

pub(crate) fn put_replica(out: &mut BytesMut, replica: &Replica) {
    put_node(out, &replica.node);
    out.put_u128_le(replica.storage.0);
}

pub(crate) fn put_address(out: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.put_u8(6);
            out.put_slice(&address.octets());
        }
    }
}

pub(crate) fn put_mark(out: &mut BytesMut, Mark { index, term }: &Mark) {
    out.put_u64_le(index.0);
    out.put_u64_le(term.epoch);
    out.put_u32_le(term.run);
    out.put_u32_le(term.origin.0);
}

pub(crate) fn put_marks(out: &mut BytesMut, marks: &BTreeMap<PartName, Mark>) {
    put_count(out, marks.len());
    for (part, mark) in marks {
        put_text(out, part.as_str());
        put_mark(out, mark);
    }
}

/// What is left to read.
pub(crate) struct Reader<'b> {
    pub(crate) bytes: &'b [u8],
    /// Of the layout.
    pub(crate) version: u8,
}

impl<'b> Reader<'b> {
    pub(crate) fn take(
        &mut self,
        count: usize,
        what: &'static str,
    ) -> Result<&'b [u8], RecordError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or(RecordError::Short(what))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], RecordError> {
        let taken = self.take(N, what)?;
        taken.try_into().map_err(|_| RecordError::Short(what))
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, RecordError> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, RecordError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, RecordError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self, what: &'static str) -> Result<u128, RecordError> {
        self.array(what).map(u128::from_le_bytes)
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, RecordError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(value_of(what, value)),
        }
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<&'b str, RecordError> {
        let count = self.u8(what)?;
        let bytes = self.take(usize::from(count), what)?;
        std::str::from_utf8(bytes).map_err(|_| RecordError::Text(what))
    }

    pub(crate) fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, RecordError>,
    ) -> Result<Option<T>, RecordError> {
        if self.flag(what)? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn set<T: Ord>(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, RecordError>,
    ) -> Result<BTreeSet<T>, RecordError> {
        let mut set = BTreeSet::new();
        for _ in 0..self.u8(what)? {
            if !set.insert(read(self)?) {
                return Err(RecordError::Twice(what));
            }
        }
        Ok(set)
    }

    pub(crate) fn mark(&mut self) -> Result<Mark, RecordError> {
        Ok(Mark {
            index: LogIndex(self.u64("index")?),
            term: Term {
                epoch: self.u64("epoch")?,
                run: self.u32("run")?,
                origin: Origin(self.u32("origin")?),
            },
        })
    }

    pub(crate) fn marks(
        &mut self,
        what: &'static str,
    ) -> Result<BTreeMap<PartName, Mark>, RecordError> {
        let mut marks = BTreeMap::new();
        for _ in 0..self.u8(what)? {
            let part = self.text("part")?.into();
            if marks.insert(part, self.mark()?).is_some() {
                return Err(RecordError::Twice(what));
            }
        }
        Ok(marks)
    }

    pub(crate) fn node(&mut self) -> Result<NodeRef, RecordError> {
        Ok(NodeRef {
            name: self.text("node")?.into(),
            incarnation: Incarnation(self.u128("incarnation")?),
        })
    }

    pub(crate) fn address(&mut self) -> Result<IpAddr, RecordError> {
        match self.u8("address")? {
            4 => Ok(self.array::<4>("address")?.into()),
            6 => Ok(self.array::<16>("address")?.into()),
            value => Err(value_of("address", value)),
        }
    }

    pub(crate) fn replica(&mut self) -> Result<Replica, RecordError> {
        Ok(Replica {
            node: self.node()?,
            storage: Incarnation(self.u128("storage")?),
        })
    }
}
