//! What a command may add to the state, for the quota (`etcd S53`).

use crate::command::{Command, Put, Txn, TxnOp};

/// Bytes a put is counted for besides key and value.
const PUT_OVERHEAD: u64 = 256;
/// Bytes a lease is counted for.
const LEASE_COST: u64 = 64;

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
    fn s53_a_transaction_costs_its_larger_branch_and_nested_puts_count() {
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
