//! Checks of a request that need no store (`etcd S7`, `S11`, `S14`, `S20`, `S21`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use kine2_proto::etcdserverpb::compare::{CompareResult, CompareTarget};
use kine2_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use kine2_proto::etcdserverpb::request_op::Request;
use kine2_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use crate::errors::Invalid;

pub(crate) fn check_range(request: &RangeRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known {
        Ok(())
    } else {
        Err(Invalid::SortOption)
    }
}

pub(crate) fn check_put(request: &PutRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Invalid::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Invalid::LeaseProvided);
    }
    Ok(())
}

pub(crate) fn check_delete(request: &DeleteRangeRequest) -> Result<(), Invalid> {
    if request.key.is_empty() {
        Err(Invalid::EmptyKey)
    } else {
        Ok(())
    }
}

/// Both branches, with at most `ops_max` operations a level; a level's longest list is taken off
/// what the levels below may have (`etcd S20`).
pub(crate) fn check_txn(request: &TxnRequest, ops_max: usize) -> Result<(), Invalid> {
    check_txn_ops(request, ops_max)?;
    check_duplicates(&request.success)?;
    check_duplicates(&request.failure)?;
    Ok(())
}

fn check_txn_ops(request: &TxnRequest, ops_max: usize) -> Result<(), Invalid> {
    let longest = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let below = ops_max.checked_sub(longest).ok_or(Invalid::TooManyOps)?;
    request.compare.iter().try_for_each(check_compare)?;
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            Some(Request::RequestTxn(txn)) => check_txn_ops(txn, below)?,
            None => return Err(Invalid::KeyNotFound),
        }
    }
    Ok(())
}

fn check_compare(compare: &Compare) -> Result<(), Invalid> {
    if compare.key.is_empty() {
        return Err(Invalid::EmptyKey);
    }
    let known = CompareResult::try_from(compare.result).is_ok()
        && CompareTarget::try_from(compare.target).is_ok();
    if known { Ok(()) } else { Err(Invalid::Compare) }
}

/// What one branch writes.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: DeletedRanges<'a>,
}

impl<'a> Writes<'a> {
    fn put(&mut self, key: &'a [u8]) -> Result<(), Invalid> {
        if !self.puts.insert(key) {
            return Err(Invalid::DuplicateKey);
        }
        self.check_deleted(key)
    }

    fn check_deleted(&self, key: &[u8]) -> Result<(), Invalid> {
        if self.deletes.contains(key) {
            Err(Invalid::DuplicateKey)
        } else {
            Ok(())
        }
    }
}

/// Where a range starts or ends.
type Edge<'a> = Cow<'a, [u8]>;

/// Ranges `[start, end)` that do not overlap, by start; so that a key is found among them without
/// looking at each.
#[derive(Default)]
struct DeletedRanges<'a> {
    end_of: BTreeMap<Edge<'a>, Edge<'a>>,
}

impl<'a> DeletedRanges<'a> {
    /// A delete that reaches to the end of the key space collides with no put: so does etcd's
    /// interval tree have it.
    fn insert(&mut self, delete: &'a DeleteRangeRequest) {
        let start = &delete.key[..];
        match &delete.range_end[..] {
            [] => self.merge(Cow::Borrowed(start), Cow::Owned([start, b"\0"].concat())),
            [0] => {}
            end => self.merge(Cow::Borrowed(start), Cow::Borrowed(end)),
        }
    }

    fn extend(&mut self, other: Self) {
        for (start, end) in other.end_of {
            self.merge(start, end);
        }
    }

    fn merge(&mut self, mut start: Edge<'a>, mut end: Edge<'a>) {
        if start >= end {
            return;
        }
        // From the right, each neighbour that touches is taken in.
        while let Some((left, left_end)) = self.up_to(&end) {
            if *left_end < start {
                break;
            }
            let left = left.clone();
            let left_end = self.end_of.remove(&left).expect("just found");
            end = end.max(left_end);
            start = start.min(left);
        }
        self.end_of.insert(start, end);
    }

    fn contains(&self, key: &[u8]) -> bool {
        self.up_to(key).is_some_and(|(_, end)| key < &end[..])
    }

    /// The last range that starts at `key` or below it.
    fn up_to(&self, key: &[u8]) -> Option<(&Edge<'a>, &Edge<'a>)> {
        let below = (Bound::Unbounded, Bound::Included(key));
        self.end_of.range::<[u8], _>(below).next_back()
    }
}

/// `etcd S21`: no key is put twice, or put and deleted, by what may run together.
fn check_duplicates(ops: &[RequestOp]) -> Result<Writes<'_>, Invalid> {
    let mut writes = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            writes.deletes.insert(delete);
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(txn)) = &op.request else {
            continue;
        };
        let success = check_duplicates(&txn.success)?;
        let failure = check_duplicates(&txn.failure)?;
        for key in &success.puts {
            writes.put(key)?;
        }
        for key in &failure.puts {
            // The two branches never run together.
            if success.puts.contains(key) {
                writes.check_deleted(key)?;
            } else {
                writes.put(key)?;
            }
        }
        writes.deletes.extend(success.deletes);
        writes.deletes.extend(failure.deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            writes.put(&put.key)?;
        }
    }
    Ok(writes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    fn put(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest {
            key: key.into(),
            ..PutRequest::default()
        }))
    }

    fn delete(key: &'static str, end: &'static str) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: false,
        }))
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: vec![],
            success,
            failure,
        }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(txn(success, failure)))
    }

    fn check(success: Vec<RequestOp>) -> Result<(), Invalid> {
        check_txn(&txn(success, vec![]), 128)
    }

    #[test]
    fn s20_the_budget_of_operations_shrinks_level_by_level() {
        let puts = |n| (0..n).map(|_| delete("k", "")).collect::<Vec<_>>();
        assert_eq!(check(puts(128)), Ok(()));
        assert_eq!(check(puts(129)), Err(Invalid::TooManyOps));
        for (outer, inner, result) in [
            (101, 2, Ok(())),
            (127, 2, Err(Invalid::TooManyOps)),
            (127, 1, Ok(())),
        ] {
            let mut ops = puts(outer - 1);
            ops.push(nested(puts(inner), vec![]));
            assert_eq!(check(ops), result, "{outer} and {inner} within");
        }
    }

    #[test]
    fn s20_both_branches_are_checked_and_an_empty_operation_is_no_key() {
        let empty = RequestOp { request: None };
        assert_eq!(
            check_txn(&txn(vec![], vec![empty]), 128),
            Err(Invalid::KeyNotFound)
        );
        assert_eq!(
            check_txn(&txn(vec![], vec![put("")]), 128),
            Err(Invalid::EmptyKey)
        );
    }

    #[test]
    fn s21_duplicates() {
        let duplicate = Err(Invalid::DuplicateKey);
        assert_eq!(check(vec![put("a"), put("a")]), duplicate);
        assert_eq!(check(vec![put("b"), delete("a", "c")]), duplicate);
        assert_eq!(check(vec![delete("a", "c"), put("b")]), duplicate);
        assert_eq!(check(vec![delete("a", "c"), delete("b", "d")]), Ok(()));
        assert_eq!(check(vec![delete("a", "c"), put("c")]), Ok(()));
        assert_eq!(check(vec![delete("c", "a"), put("b")]), Ok(()));
        let many = vec![
            delete("a", "c"),
            delete("x", "z"),
            delete("b", "y"),
            put("d"),
        ];
        assert_eq!(check(many), duplicate);
        assert_eq!(
            check(vec![put("a"), nested(vec![put("a")], vec![])]),
            duplicate
        );
        assert_eq!(check(vec![nested(vec![put("a")], vec![put("a")])]), Ok(()));
        assert_eq!(
            check(vec![nested(vec![], vec![put("a")]), delete("a", "")]),
            duplicate
        );
        assert_eq!(check_txn(&txn(vec![put("a")], vec![put("a")]), 128), Ok(()));
    }

    #[test]
    fn s14_flags_of_a_put() {
        let put = |ignore_value, ignore_lease| PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 1,
            ignore_value,
            ignore_lease,
            prev_kv: false,
        };
        assert_eq!(check_put(&put(true, false)), Err(Invalid::ValueProvided));
        assert_eq!(check_put(&put(false, true)), Err(Invalid::LeaseProvided));
    }
}
