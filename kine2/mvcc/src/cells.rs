//! Names and byte forms of what the store keeps in the backend's cells.
//!
//! ```text
//! c                      compacted revision, varint
//! l <id: 8 bytes BE>     lease, its TTL in seconds, varint
//! a <kind: 1> <member: 8 bytes BE>   alarm, empty
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::backend::BackendError;
use crate::command::{Alarm, AlarmKind};
use crate::revision::Revision;
use crate::store::{Cells, Restored};
use crate::wire::{Reader, put_int64};

/// Name of the compacted revision's cell.
pub(crate) const COMPACTED: Bytes = Bytes::from_static(b"c");

/// Name of a lease's cell.
pub(crate) fn lease(id: i64) -> Bytes {
    let mut name = BytesMut::with_capacity(9);
    name.put_u8(b'l');
    name.put_i64(id);
    name.freeze()
}

/// Name of an alarm's cell.
pub(crate) fn alarm(alarm: Alarm) -> Bytes {
    let mut name = BytesMut::with_capacity(10);
    name.put_u8(b'a');
    name.put_u8(alarm.kind.tag());
    name.put_u64(alarm.member_id);
    name.freeze()
}

/// Byte form of a number.
pub(crate) fn number(value: i64) -> Bytes {
    let mut out = BytesMut::with_capacity(10);
    put_int64(&mut out, value);
    out.freeze()
}

/// Reads all cells back.
pub(crate) fn restore(cells: &Cells) -> Result<Restored, BackendError> {
    let mut restored = Restored::default();
    for (name, value) in cells {
        restore_one(&mut restored, name, value).ok_or_else(|| {
            BackendError::Damaged(format!(
                "cell {name:?} holds {} unexpected bytes",
                value.len()
            ))
        })?;
    }
    Ok(restored)
}

fn restore_one(restored: &mut Restored, name: &[u8], value: &[u8]) -> Option<()> {
    match name {
        b"c" => restored.compacted = Revision(read_number(value)?),
        [b'l', id @ ..] => {
            let id = i64::from_be_bytes(id.try_into().ok()?);
            restored.leases.grant(id, read_number(value)?);
        }
        [b'a', kind, member @ ..] => {
            let member_id = u64::from_be_bytes(member.try_into().ok()?);
            restored.alarms.insert(Alarm {
                member_id,
                kind: AlarmKind::from_tag(*kind)?,
            });
        }
        _ => return None,
    }
    Some(())
}

fn read_number(value: &[u8]) -> Option<i64> {
    let mut reader = Reader::new(value);
    let number = reader.int64()?;
    reader.is_empty().then_some(number)
}
