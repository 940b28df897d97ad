//! What the state as a whole knows of itself, and the named cells. The format is in
//! docs/state-format.md.
//!
//! The head is written in every batch. It counts and sums up all directories and all cells, so
//! that one that is missing, or of another time, is noticed when the state is opened.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kine2_mvcc::{BackendError, Held, LogPosition, Revision};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::engine::{Table, View, WriteBatch};

/// The format this program writes and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

const HEAD_KEY: &[u8] = b"h";
const CELL_PREFIX: u8 = b'c';
const HEAD_LEN: usize = 68;

/// The state as of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) applied: LogPosition,
    pub(crate) revision: Revision,
    pub(crate) blocks: Tally,
    pub(crate) cells: Tally,
}

impl Head {
    /// Of a state nobody has written to.
    pub(crate) const FRESH: Self = Self {
        applied: LogPosition {
            epoch: 0,
            run: 0,
            index: 0,
        },
        revision: Revision::FRESH,
        blocks: Tally::EMPTY,
        cells: Tally::EMPTY,
    };

    pub(crate) fn read(view: &impl View) -> Result<Self, BackendError> {
        let head = view.get(Table::Cells, HEAD_KEY, Self::parse)?;
        head.unwrap_or(Ok(Self::FRESH))
    }

    pub(crate) fn store(&self, batch: &mut WriteBatch) {
        let mut out = BytesMut::with_capacity(HEAD_LEN);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(0);
        out.put_u64_le(self.applied.epoch);
        out.put_u32_le(self.applied.run);
        out.put_u64_le(self.applied.index);
        out.put_i64_le(self.revision.0);
        for tally in [self.blocks, self.cells] {
            out.put_u64_le(tally.count);
            out.put_u64_le(tally.sum);
        }
        let crc = checksum(&out[..4], &out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        batch.put(Table::Cells, HEAD_KEY, vec![out.freeze()]);
    }

    fn parse(stored: &[u8]) -> Result<Self, BackendError> {
        let damaged = || BackendError::Damaged("the head fails its checksum".to_owned());
        let (mut version, rest) = stored.split_at_checked(4).ok_or_else(damaged)?;
        let (mut crc, mut bytes) = rest.split_at_checked(4).ok_or_else(damaged)?;
        if crc.get_u32_le() != checksum(version, bytes) {
            return Err(damaged());
        }
        let found = version.get_u32_le();
        if found > FORMAT_VERSION {
            return Err(BackendError::Version {
                found,
                known: FORMAT_VERSION,
            });
        }
        if found == 0 || stored.len() != HEAD_LEN {
            return Err(damaged());
        }
        let applied = LogPosition {
            epoch: bytes.get_u64_le(),
            run: bytes.get_u32_le(),
            index: bytes.get_u64_le(),
        };
        let revision = Revision(bytes.get_i64_le());
        let mut tally = || Tally {
            count: bytes.get_u64_le(),
            sum: bytes.get_u64_le(),
        };
        Ok(Self {
            applied,
            revision,
            blocks: tally(),
            cells: tally(),
        })
    }
}

/// Version and checksum stay where they are in every version, and the checksum covers all the rest.
fn checksum(version: &[u8], fields: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(version), fields)
}

/// How many there are of something, and the sum of their checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) sum: u64,
}

impl Tally {
    const EMPTY: Self = Self { count: 0, sum: 0 };

    pub(crate) const fn add(&mut self, crc: u32) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(crc as u64);
    }

    pub(crate) const fn subtract(&mut self, crc: u32) {
        self.count -= 1;
        self.sum = self.sum.wrapping_sub(crc as u64);
    }
}

/// Puts cells into a batch and keeps their tally.
pub(crate) fn store_cells(
    cells: &BTreeMap<Bytes, Option<Bytes>>,
    view: &impl View,
    tally: &mut Tally,
    batch: &mut WriteBatch,
) -> Result<(), BackendError> {
    for (name, value) in cells {
        let key = cell_key(name);
        let old = view.get(Table::Cells, &key, |stored| {
            parse_cell(name, stored).map(|(crc, _)| crc)
        })?;
        let old = old.transpose()?;
        if let Some(crc) = old {
            tally.subtract(crc);
        }
        if let Some(value) = value {
            let crc = cell_checksum(name, value);
            tally.add(crc);
            let crc = Bytes::copy_from_slice(&crc.to_le_bytes());
            batch.put(Table::Cells, &key, vec![crc, value.clone()]);
        } else if old.is_some() {
            batch.delete(Table::Cells, &key);
        }
    }
    Ok(())
}

/// The head and all cells, checked against it.
pub(crate) fn read_held(view: &impl View) -> Result<Held, BackendError> {
    let head = Head::read(view)?;
    let mut cells = BTreeMap::new();
    let mut tally = Tally::EMPTY;
    view.scan(Table::Cells, &[CELL_PREFIX], |key, stored| {
        let Some((&CELL_PREFIX, name)) = key.split_first() else {
            return Ok(ControlFlow::Break(()));
        };
        let (crc, value) = parse_cell(name, stored)?;
        tally.add(crc);
        cells.insert(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        Ok(ControlFlow::Continue(()))
    })?;
    if tally != head.cells {
        return Err(BackendError::Damaged(format!(
            "{} cells are there, {} were written",
            tally.count, head.cells.count
        )));
    }
    Ok(Held {
        applied: head.applied,
        revision: head.revision,
        cells,
    })
}

fn cell_key(name: &[u8]) -> Vec<u8> {
    [&[CELL_PREFIX], name].concat()
}

fn cell_checksum(name: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(name), value)
}

fn parse_cell<'s>(name: &[u8], mut stored: &'s [u8]) -> Result<(u32, &'s [u8]), BackendError> {
    let crc = stored.try_get_u32_le().ok();
    crc.filter(|crc| *crc == cell_checksum(name, stored))
        .map(|crc| (crc, stored))
        .ok_or_else(|| {
            let name = name.escape_ascii();
            BackendError::Damaged(format!("cell {name} fails its checksum"))
        })
}
