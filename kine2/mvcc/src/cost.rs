//! What a command may add to the state, for the quota (`etcd S53`), and what it takes by itself.

use crate::command::{Command, Compare, Operand, Put, RangeQuery, Txn, TxnOp};
use crate::key_range::{KeyRange, RangeEnd};

/// Bytes a put is counted for besides key and value.
const PUT_OVERHEAD: u64 = 256;
/// Bytes a lease is counted for.
const LEASE_COST: u64 = 64;
/// Bytes that an operation, a compare or a command takes in the log at most besides its keys and
/// values: a range has most, with eight numbers of up to ten bytes.
const OP_OVERHEAD: usize = 128;

impl Command {
    /// Bytes it is counted for against the quota; 0 for what never needs space.
    #[must_use]
    pub fn space_cost(&self) -> u64 {
        match self {
            Self::Put(put) => put_cost(put),
            Self::Txn(txn) => txn_cost(txn),
            Self::LeaseGrant(_) => LEASE_COST,
            Self::Noop
            | Self::Delete(_)
            | Self::Compact(_)
            | Self::LeaseRevoke { .. }
            | Self::Alarm(_) => 0,
        }
    }

    /// Bytes its form in the log has at most; near enough to what it takes in memory.
    #[must_use]
    pub fn size_bound(&self) -> usize {
        OP_OVERHEAD
            + match self {
                Self::Put(put) => put_size(put),
                Self::Delete(delete) => range_size(&delete.range),
                Self::Txn(txn) => txn_size(txn),
                Self::Noop
                | Self::LeaseGrant(_)
                | Self::Compact(_)
                | Self::LeaseRevoke { .. }
                | Self::Alarm(_) => 0,
            }
    }
}

fn txn_size(txn: &Txn) -> usize {
    let compares: usize = txn.compares.iter().map(compare_size).sum();
    let ops: usize = txn.success.iter().chain(&txn.failure).map(op_size).sum();
    OP_OVERHEAD + compares + ops
}

fn compare_size(compare: &Compare) -> usize {
    let operand = match &compare.operand {
        Operand::Value(value) => value.len(),
        Operand::Version(_) | Operand::Create(_) | Operand::Mod(_) | Operand::Lease(_) => 0,
    };
    OP_OVERHEAD + range_size(&compare.range) + operand
}

fn op_size(op: &TxnOp) -> usize {
    OP_OVERHEAD
        + match op {
            TxnOp::Range(RangeQuery { range, .. }) => range_size(range),
            TxnOp::Put(put) => put_size(put),
            TxnOp::Delete(delete) => range_size(&delete.range),
            TxnOp::Txn(txn) => txn_size(txn),
        }
}

fn put_size(put: &Put) -> usize {
    put.key.len() + put.value.len()
}

fn range_size(range: &KeyRange) -> usize {
    let end = match &range.end {
        RangeEnd::Before(end) => end.len(),
        RangeEnd::Single | RangeEnd::Unbounded => 0,
    };
    range.start.len() + end
}

fn put_cost(put: &Put) -> u64 {
    PUT_OVERHEAD + put.key.len() as u64 + put.value.len() as u64
}

/// The larger branch, transactions within counted too (etcd #22139 did not).
fn txn_cost(txn: &Txn) -> u64 {
    let branch = |ops: &[TxnOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_cost(op: &TxnOp) -> u64 {
    match op {
        TxnOp::Put(put) => put_cost(put),
        TxnOp::Txn(txn) => txn_cost(txn),
        TxnOp::Range(_) | TxnOp::Delete(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s53_22139_a_transaction_costs_its_larger_branch_and_nested_puts_count() {
        let put = Put {
            key: "k".into(),
            value: "v".into(),
            ..Put::default()
        };
        let inner = Txn {
            success: vec![TxnOp::Put(put.clone())],
            ..Txn::default()
        };
        let outer = Txn {
            success: vec![TxnOp::Txn(inner), TxnOp::Put(put)],
            failure: vec![],
            ..Txn::default()
        };
        assert_eq!(Command::Txn(outer).space_cost(), 2 * 258);
        assert_eq!(Command::Txn(Txn::default()).space_cost(), 0);
    }
}
