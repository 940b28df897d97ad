//! Byte form of a command in the log.
//!
//! A format byte, then the command. Numbers are varints (signed ones as their two's complement),
//! byte strings carry their length, flags share a byte. Every branch is tagged, and a tag this
//! program does not know is an error: an entry is applied whole or not at all.
//!
//! ```text
//! command  = format:u8 kind:u8 body
//! put      = key value lease flags
//! delete   = range flags
//! range    = range revision limit flags sort:u8 bounds:4×varint
//! txn      = n compare*n n op*n n op*n
//! compare  = range relation:u8 field:u8 operand
//! op       = kind:u8 (range | put | delete | txn)
//! key range= start end-kind:u8 [end]
//! ```

use bytes::{BufMut, Bytes};
use thiserror::Error;

use crate::command::{
    Alarm, AlarmChange, AlarmKind, Command, Compact, Compare, Delete, LeaseGrant, Operand, Put,
    RangeQuery, Relation, RevisionBounds, Sort, SortBy, Txn, TxnOp,
};
use crate::key_range::{KeyRange, RangeEnd};
use crate::wire::{Reader, put_bytes, put_int64, put_varint};

/// Format of the bytes that follow.
const FORMAT: u8 = 1;

/// How deep transactions may nest. The API's budget of operations allows 127 levels below the
/// first; this bounds the stack against damaged bytes.
pub const TXN_DEPTH_MAX: u32 = 130;

/// Why bytes of the log are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Written by a newer program.
    #[error("command has format {0}, this program reads format {FORMAT}")]
    Format(u8),
    /// Not a command.
    #[error("command does not parse {left} bytes before its end")]
    Malformed {
        /// Bytes that were left where it stopped making sense.
        left: usize,
    },
}

impl Command {
    /// Appends the byte form to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(FORMAT);
        match self {
            Self::Noop => out.put_u8(0),
            Self::Put(put) => {
                out.put_u8(1);
                encode_put(out, put);
            }
            Self::Delete(delete) => {
                out.put_u8(2);
                encode_delete(out, delete);
            }
            Self::Txn(txn) => {
                out.put_u8(3);
                encode_txn(out, txn);
            }
            Self::Compact(compact) => {
                out.put_u8(4);
                put_int64(out, compact.revision);
                out.put_u8(u8::from(compact.physical));
            }
            Self::LeaseGrant(grant) => {
                out.put_u8(5);
                put_int64(out, grant.id);
                put_int64(out, grant.ttl_seconds);
            }
            Self::LeaseRevoke { id } => {
                out.put_u8(6);
                put_int64(out, *id);
            }
            Self::Alarm(change) => {
                let (tag, alarm) = match change {
                    AlarmChange::Raise(alarm) => (7, alarm),
                    AlarmChange::Clear(alarm) => (8, alarm),
                };
                out.put_u8(tag);
                put_varint(out, alarm.member_id);
                out.put_u8(alarm.kind.tag());
            }
        }
    }

    /// The inverse of [`encode`](Self::encode).
    ///
    /// # Errors
    /// If the bytes are of a newer format or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        let mut reader = Reader::new(bytes);
        match reader.byte() {
            Some(FORMAT) => {}
            Some(newer) => return Err(CommandError::Format(newer)),
            None => return Err(CommandError::Malformed { left: 0 }),
        }
        match decode_command(&mut reader) {
            Some(command) if reader.is_empty() => Ok(command),
            _ => Err(CommandError::Malformed {
                left: reader.remaining(),
            }),
        }
    }
}

impl AlarmKind {
    pub(crate) const fn tag(self) -> u8 {
        match self {
            Self::NoSpace => 1,
            Self::Corrupt => 2,
        }
    }

    pub(crate) const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::NoSpace),
            2 => Some(Self::Corrupt),
            _ => None,
        }
    }
}

fn encode_key_range(out: &mut impl BufMut, range: &KeyRange) {
    put_bytes(out, &range.start);
    match &range.end {
        RangeEnd::Single => out.put_u8(0),
        RangeEnd::Before(end) => {
            out.put_u8(1);
            put_bytes(out, end);
        }
        RangeEnd::Unbounded => out.put_u8(2),
    }
}

fn encode_put(out: &mut impl BufMut, put: &Put) {
    put_bytes(out, &put.key);
    put_bytes(out, &put.value);
    put_int64(out, put.lease);
    out.put_u8(flags([put.prev_kv, put.ignore_value, put.ignore_lease]));
}

fn encode_delete(out: &mut impl BufMut, delete: &Delete) {
    encode_key_range(out, &delete.range);
    out.put_u8(u8::from(delete.prev_kv));
}

fn encode_range(out: &mut impl BufMut, query: &RangeQuery) {
    encode_key_range(out, &query.range);
    put_int64(out, query.revision);
    put_int64(out, query.limit);
    let descending = query.sort.is_some_and(|sort| sort.descending);
    out.put_u8(flags([
        query.keys_only,
        query.count_only,
        descending,
        query.uncounted,
    ]));
    out.put_u8(match query.sort.map(|sort| sort.by) {
        None => 0,
        Some(SortBy::Key) => 1,
        Some(SortBy::Version) => 2,
        Some(SortBy::Create) => 3,
        Some(SortBy::Mod) => 4,
        Some(SortBy::Value) => 5,
    });
    let RevisionBounds {
        min_mod,
        max_mod,
        min_create,
        max_create,
    } = query.bounds;
    for bound in [min_mod, max_mod, min_create, max_create] {
        put_int64(out, bound);
    }
}

fn encode_txn(out: &mut impl BufMut, txn: &Txn) {
    put_varint(out, txn.compares.len() as u64);
    for compare in &txn.compares {
        encode_compare(out, compare);
    }
    for branch in [&txn.success, &txn.failure] {
        put_varint(out, branch.len() as u64);
        for op in branch {
            encode_op(out, op);
        }
    }
}

fn encode_compare(out: &mut impl BufMut, compare: &Compare) {
    encode_key_range(out, &compare.range);
    out.put_u8(match compare.relation {
        Relation::Equal => 0,
        Relation::Greater => 1,
        Relation::Less => 2,
        Relation::NotEqual => 3,
    });
    let (tag, number) = match &compare.operand {
        Operand::Version(n) => (0, n),
        Operand::Create(n) => (1, n),
        Operand::Mod(n) => (2, n),
        Operand::Lease(n) => (4, n),
        Operand::Value(value) => {
            out.put_u8(3);
            return put_bytes(out, value);
        }
    };
    out.put_u8(tag);
    put_int64(out, *number);
}

fn encode_op(out: &mut impl BufMut, op: &TxnOp) {
    match op {
        TxnOp::Range(query) => {
            out.put_u8(0);
            encode_range(out, query);
        }
        TxnOp::Put(put) => {
            out.put_u8(1);
            encode_put(out, put);
        }
        TxnOp::Delete(delete) => {
            out.put_u8(2);
            encode_delete(out, delete);
        }
        TxnOp::Txn(txn) => {
            out.put_u8(3);
            encode_txn(out, txn);
        }
    }
}

fn decode_command(reader: &mut Reader<'_>) -> Option<Command> {
    Some(match reader.byte()? {
        0 => Command::Noop,
        1 => Command::Put(decode_put(reader)?),
        2 => Command::Delete(decode_delete(reader)?),
        3 => Command::Txn(decode_txn(reader, TXN_DEPTH_MAX)?),
        4 => Command::Compact(Compact {
            revision: reader.int64()?,
            physical: decode_flags::<1>(reader)?[0],
        }),
        5 => Command::LeaseGrant(LeaseGrant {
            id: reader.int64()?,
            ttl_seconds: reader.int64()?,
        }),
        6 => Command::LeaseRevoke {
            id: reader.int64()?,
        },
        7 => Command::Alarm(AlarmChange::Raise(decode_alarm(reader)?)),
        8 => Command::Alarm(AlarmChange::Clear(decode_alarm(reader)?)),
        _ => return None,
    })
}

fn decode_alarm(reader: &mut Reader<'_>) -> Option<Alarm> {
    Some(Alarm {
        member_id: reader.varint()?,
        kind: AlarmKind::from_tag(reader.byte()?)?,
    })
}

fn decode_key_range(reader: &mut Reader<'_>) -> Option<KeyRange> {
    let start = reader.owned()?;
    let end = match reader.byte()? {
        0 => RangeEnd::Single,
        1 => RangeEnd::Before(reader.owned()?),
        2 => RangeEnd::Unbounded,
        _ => return None,
    };
    Some(KeyRange { start, end })
}

fn decode_put(reader: &mut Reader<'_>) -> Option<Put> {
    let key = non_empty(reader.owned()?)?;
    let (value, lease) = (reader.owned()?, reader.int64()?);
    let [prev_kv, ignore_value, ignore_lease] = decode_flags(reader)?;
    Some(Put {
        key,
        value,
        lease,
        prev_kv,
        ignore_value,
        ignore_lease,
    })
}

fn decode_delete(reader: &mut Reader<'_>) -> Option<Delete> {
    let range = decode_key_range(reader)?;
    let [prev_kv] = decode_flags(reader)?;
    Some(Delete { range, prev_kv })
}

fn decode_range(reader: &mut Reader<'_>) -> Option<RangeQuery> {
    let range = decode_key_range(reader)?;
    let (revision, limit) = (reader.int64()?, reader.int64()?);
    let [keys_only, count_only, descending, uncounted] = decode_flags(reader)?;
    let by = match reader.byte()? {
        0 => None,
        1 => Some(SortBy::Key),
        2 => Some(SortBy::Version),
        3 => Some(SortBy::Create),
        4 => Some(SortBy::Mod),
        5 => Some(SortBy::Value),
        _ => return None,
    };
    let bounds = RevisionBounds {
        min_mod: reader.int64()?,
        max_mod: reader.int64()?,
        min_create: reader.int64()?,
        max_create: reader.int64()?,
    };
    let sort = by.map(|by| Sort { by, descending });
    Some(RangeQuery {
        range,
        revision,
        limit,
        sort,
        keys_only,
        count_only,
        uncounted,
        bounds,
    })
}

fn decode_txn(reader: &mut Reader<'_>, depth: u32) -> Option<Txn> {
    let depth = depth.checked_sub(1)?;
    Some(Txn {
        compares: decode_list(reader, decode_compare)?,
        success: decode_list(reader, |reader| decode_op(reader, depth))?,
        failure: decode_list(reader, |reader| decode_op(reader, depth))?,
    })
}

fn decode_compare(reader: &mut Reader<'_>) -> Option<Compare> {
    let range = decode_key_range(reader)?;
    let relation = match reader.byte()? {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        _ => return None,
    };
    let operand = match reader.byte()? {
        0 => Operand::Version(reader.int64()?),
        1 => Operand::Create(reader.int64()?),
        2 => Operand::Mod(reader.int64()?),
        3 => Operand::Value(reader.owned()?),
        4 => Operand::Lease(reader.int64()?),
        _ => return None,
    };
    Some(Compare {
        range,
        relation,
        operand,
    })
}

fn decode_op(reader: &mut Reader<'_>, depth: u32) -> Option<TxnOp> {
    Some(match reader.byte()? {
        0 => TxnOp::Range(decode_range(reader)?),
        1 => TxnOp::Put(decode_put(reader)?),
        2 => TxnOp::Delete(decode_delete(reader)?),
        3 => TxnOp::Txn(decode_txn(reader, depth)?),
        _ => return None,
    })
}

fn decode_list<T>(
    reader: &mut Reader<'_>,
    mut item: impl FnMut(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::try_from(reader.varint()?).ok()?;
    // Every item takes a byte at least: a count beyond that must not reserve memory.
    if count > reader.remaining() {
        return None;
    }
    (0..count).map(|_| item(reader)).collect()
}

fn non_empty(key: Bytes) -> Option<Bytes> {
    (!key.is_empty()).then_some(key)
}

fn flags<const N: usize>(set: [bool; N]) -> u8 {
    set.into_iter()
        .enumerate()
        .fold(0, |byte, (bit, set)| byte | u8::from(set) << bit)
}

fn decode_flags<const N: usize>(reader: &mut Reader<'_>) -> Option<[bool; N]> {
    let byte = reader.byte()?;
    (u32::from(byte) < 1 << N).then(|| std::array::from_fn(|bit| byte >> bit & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: u32) -> Txn {
        let below = if depth == 0 {
            vec![TxnOp::Put(Put {
                key: "k".into(),
                value: "v".into(),
                lease: -3,
                ..Put::default()
            })]
        } else {
            vec![TxnOp::Txn(nested(depth - 1))]
        };
        Txn {
            compares: vec![Compare {
                range: KeyRange::from_wire("a".into(), "b".into()),
                relation: Relation::NotEqual,
                operand: Operand::Value("x".into()),
            }],
            success: below,
            failure: vec![TxnOp::Range(RangeQuery {
                sort: Some(Sort {
                    by: SortBy::Create,
                    descending: true,
                }),
                limit: 1,
                uncounted: true,
                bounds: RevisionBounds {
                    max_create: 7,
                    ..RevisionBounds::default()
                },
                ..RangeQuery::all(KeyRange::from_wire("a".into(), "\0".into()))
            })],
        }
    }

    fn commands() -> Vec<Command> {
        vec![
            Command::Noop,
            Command::Put(Put {
                key: "k".into(),
                prev_kv: true,
                ..Put::default()
            }),
            Command::Delete(Delete {
                range: KeyRange::single("k".into()),
                prev_kv: true,
            }),
            Command::Txn(nested(3)),
            Command::Compact(Compact {
                revision: -1,
                physical: true,
            }),
            Command::LeaseGrant(LeaseGrant {
                id: i64::MIN,
                ttl_seconds: 9_000_000_000,
            }),
            Command::LeaseRevoke { id: 5 },
            Command::Alarm(AlarmChange::Clear(Alarm {
                member_id: u64::MAX,
                kind: AlarmKind::Corrupt,
            })),
        ]
    }

    #[test]
    fn commands_round_trip_and_every_prefix_is_refused() {
        for command in commands() {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert!(bytes.len() <= command.size_bound(), "{command:?}");
            assert_eq!(Command::decode(&bytes), Ok(command));
            for cut in 0..bytes.len() {
                assert!(Command::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn a_newer_format_and_endless_nesting_are_refused() {
        assert_eq!(Command::decode(&[9, 0]), Err(CommandError::Format(9)));
        let mut bytes = Vec::new();
        Command::Txn(nested(TXN_DEPTH_MAX)).encode(&mut bytes);
        assert!(Command::decode(&bytes).is_err());
    }
}
