//! Commands of the store as JSON, for people and their programs. Bytes that are text are text,
//! others `{"hex": ..}`.

use kine2_mvcc::{
    AlarmChange, AlarmKind, Command, Compare, Delete, KeyRange, Operand, Put, RangeEnd, Relation,
    Txn, TxnOp,
};
use serde_json::{Value, json};

pub(super) fn command(command: &Command) -> Value {
    match command {
        Command::Noop => json!({ "op": "nothing" }),
        Command::Put(one) => put(one),
        Command::Delete(one) => delete(one),
        Command::Txn(one) => txn(one),
        Command::Compact(one) => json!({ "op": "compact", "revision": one.revision }),
        Command::LeaseGrant(one) => {
            json!({ "op": "lease-grant", "lease": one.id, "ttl_seconds": one.ttl_seconds })
        }
        Command::LeaseRevoke { id } => json!({ "op": "lease-revoke", "lease": id }),
        Command::Alarm(change) => {
            let (op, alarm) = match change {
                AlarmChange::Raise(alarm) => ("alarm-raise", alarm),
                AlarmChange::Clear(alarm) => ("alarm-clear", alarm),
            };
            let kind = match alarm.kind {
                AlarmKind::NoSpace => "NOSPACE",
                AlarmKind::Corrupt => "CORRUPT",
            };
            json!({ "op": op, "alarm": kind })
        }
    }
}

fn put(put: &Put) -> Value {
    let mut shown = json!({ "op": "put", "key": bytes(&put.key), "lease": put.lease });
    match put.ignore_value {
        true => shown["keeps_value"] = json!(true),
        false => shown["value"] = bytes(&put.value),
    }
    if put.ignore_lease {
        shown["keeps_lease"] = json!(true);
    }
    shown
}

fn delete(delete: &Delete) -> Value {
    with_range(json!({ "op": "delete" }), &delete.range)
}

fn txn(txn: &Txn) -> Value {
    let ops = |ops: &[TxnOp]| Value::Array(ops.iter().map(op).collect());
    let compares = txn.compares.iter().map(compare).collect();
    json!({
        "op": "txn",
        "if": Value::Array(compares),
        "then": ops(&txn.success),
        "else": ops(&txn.failure),
    })
}

fn op(op: &TxnOp) -> Value {
    match op {
        TxnOp::Range(query) => with_range(json!({ "op": "range" }), &query.range),
        TxnOp::Put(one) => put(one),
        TxnOp::Delete(one) => delete(one),
        TxnOp::Txn(one) => txn(one),
    }
}

fn compare(compare: &Compare) -> Value {
    let relation = match compare.relation {
        Relation::Equal => "=",
        Relation::Greater => ">",
        Relation::Less => "<",
        Relation::NotEqual => "!=",
    };
    let (field, operand) = match &compare.operand {
        Operand::Version(version) => ("version", json!(version)),
        Operand::Create(revision) => ("create_revision", json!(revision)),
        Operand::Mod(revision) => ("mod_revision", json!(revision)),
        Operand::Value(value) => ("value", bytes(value)),
        Operand::Lease(lease) => ("lease", json!(lease)),
    };
    let shown = json!({ "field": field, "is": relation, "operand": operand });
    with_range(shown, &compare.range)
}

fn with_range(mut shown: Value, range: &KeyRange) -> Value {
    shown["key"] = bytes(&range.start);
    match &range.end {
        RangeEnd::Single => {}
        RangeEnd::Before(end) => shown["before"] = bytes(end),
        RangeEnd::Unbounded => shown["to_the_end"] = json!(true),
    }
    shown
}

/// Text, or hexadecimal digits.
pub(super) fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}
