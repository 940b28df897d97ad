//! Requests of the wire to commands of the store, and answers back. Checked requests only.

use kine2_mvcc::{
    Compare, Delete, DeleteAnswer, KeyRange, OpAnswer, Operand, Put, PutAnswer, RangeAnswer,
    RangeQuery, Record, Relation, Revision, RevisionBounds, Sort, SortBy, Txn, TxnAnswer, TxnOp,
};
use kine2_proto::etcdserverpb as pb;
use kine2_proto::etcdserverpb::compare::{CompareResult, TargetUnion};
use kine2_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use kine2_proto::etcdserverpb::request_op::Request;
use kine2_proto::etcdserverpb::response_op::Response;
use kine2_proto::mvccpb::KeyValue;

pub(crate) fn range_query(request: pb::RangeRequest) -> RangeQuery {
    let (order, target) = (request.sort_order(), request.sort_target());
    let by = match target {
        SortTarget::Key => SortBy::Key,
        SortTarget::Version => SortBy::Version,
        SortTarget::Create => SortBy::Create,
        SortTarget::Mod => SortBy::Mod,
        SortTarget::Value => SortBy::Value,
    };
    // Another target without an order means ascending; keys come in order anyway (`etcd S11`).
    let plain = order != SortOrder::Descend && target == SortTarget::Key;
    RangeQuery {
        range: KeyRange::from_wire(request.key, request.range_end),
        revision: request.revision,
        limit: request.limit,
        sort: (!plain).then_some(Sort {
            by,
            descending: order == SortOrder::Descend,
        }),
        keys_only: request.keys_only,
        count_only: request.count_only,
        uncounted: false,
        bounds: RevisionBounds {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        },
    }
}

pub(crate) fn put(request: pb::PutRequest) -> Put {
    let pb::PutRequest {
        key,
        value,
        lease,
        prev_kv,
        ignore_value,
        ignore_lease,
    } = request;
    Put {
        key,
        value,
        lease,
        prev_kv,
        ignore_value,
        ignore_lease,
    }
}

pub(crate) fn delete(request: pb::DeleteRangeRequest) -> Delete {
    let range = KeyRange::from_wire(request.key, request.range_end);
    Delete {
        range,
        prev_kv: request.prev_kv,
    }
}

pub(crate) fn txn(request: pb::TxnRequest) -> Txn {
    Txn {
        compares: request.compare.into_iter().map(compare).collect(),
        success: request.success.into_iter().filter_map(op).collect(),
        failure: request.failure.into_iter().filter_map(op).collect(),
    }
}

/// `None` only for an empty operation, which the checks refuse.
fn op(op: pb::RequestOp) -> Option<TxnOp> {
    Some(match op.request? {
        Request::RequestRange(request) => TxnOp::Range(range_query(request)),
        Request::RequestPut(request) => TxnOp::Put(put(request)),
        Request::RequestDeleteRange(request) => TxnOp::Delete(delete(request)),
        Request::RequestTxn(request) => TxnOp::Txn(txn(request)),
    })
}

fn compare(compare: pb::Compare) -> Compare {
    use kine2_proto::etcdserverpb::compare::CompareTarget;
    let relation = match compare.result() {
        CompareResult::Equal => Relation::Equal,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
        CompareResult::NotEqual => Relation::NotEqual,
    };
    // The target says which field; an operand of another kind, or none, counts as 0 or empty.
    let number = |pick: fn(&TargetUnion) -> Option<i64>| {
        compare
            .target_union
            .as_ref()
            .and_then(pick)
            .unwrap_or_default()
    };
    let operand = match compare.target() {
        CompareTarget::Version => Operand::Version(number(|union| match union {
            TargetUnion::Version(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Create => Operand::Create(number(|union| match union {
            TargetUnion::CreateRevision(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Mod => Operand::Mod(number(|union| match union {
            TargetUnion::ModRevision(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Lease => Operand::Lease(number(|union| match union {
            TargetUnion::Lease(n) => Some(*n),
            _ => None,
        })),
        CompareTarget::Value => Operand::Value(match &compare.target_union {
            Some(TargetUnion::Value(value)) => value.clone(),
            _ => bytes::Bytes::new(),
        }),
    };
    Compare {
        range: KeyRange::from_wire(compare.key, compare.range_end),
        relation,
        operand,
    }
}

fn key_value(record: Record) -> KeyValue {
    KeyValue(record.into_bytes())
}

pub(crate) fn key_values(records: Vec<Record>) -> Vec<KeyValue> {
    records.into_iter().map(key_value).collect()
}

/// The header of an operation in a transaction: a revision and nothing else (`etcd S4`).
fn op_header(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader {
        revision: revision.0,
        ..pb::ResponseHeader::default()
    })
}

pub(crate) fn range_response(
    header: Option<pb::ResponseHeader>,
    answer: RangeAnswer,
) -> pb::RangeResponse {
    let kvs = key_values(answer.records);
    pb::RangeResponse {
        header,
        kvs,
        more: answer.more,
        count: answer.count,
    }
}

pub(crate) fn put_response(
    header: Option<pb::ResponseHeader>,
    answer: PutAnswer,
) -> pb::PutResponse {
    pb::PutResponse {
        header,
        prev_kv: answer.prev.map(key_value),
    }
}

pub(crate) fn delete_response(
    header: Option<pb::ResponseHeader>,
    answer: DeleteAnswer,
) -> pb::DeleteRangeResponse {
    let prev_kvs = key_values(answer.prevs);
    pb::DeleteRangeResponse {
        header,
        deleted: answer.deleted,
        prev_kvs,
    }
}

pub(crate) fn txn_response(
    header: Option<pb::ResponseHeader>,
    answer: TxnAnswer,
) -> pb::TxnResponse {
    let responses = answer.ops.into_iter().map(op_response).collect();
    pb::TxnResponse {
        header,
        succeeded: answer.succeeded,
        responses,
    }
}

fn op_response(answer: OpAnswer) -> pb::ResponseOp {
    let response = match answer {
        OpAnswer::Range(revision, answer) => {
            Response::ResponseRange(range_response(op_header(revision), answer))
        }
        OpAnswer::Put(revision, answer) => {
            Response::ResponsePut(put_response(op_header(revision), answer))
        }
        OpAnswer::Delete(revision, answer) => {
            Response::ResponseDeleteRange(delete_response(op_header(revision), answer))
        }
        OpAnswer::Txn(answer) => {
            let header = Some(pb::ResponseHeader::default());
            Response::ResponseTxn(txn_response(header, answer))
        }
    };
    pb::ResponseOp {
        response: Some(response),
    }
}
