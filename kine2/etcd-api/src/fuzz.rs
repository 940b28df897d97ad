//! What the fuzzers run; a test runs the same over the seeds that were kept.

use kine2_mvcc::Command;
use kine2_proto::etcdserverpb::request_op::Request;
use kine2_proto::etcdserverpb::{
    DeleteRangeRequest, DowngradeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    WatchRequest, watch_request,
};
use prost::Message;

use crate::checks::{check_delete, check_put, check_range, check_txn};
use crate::errors::Invalid;
use crate::service::Limits;
use crate::{convert, version, watch};

/// A request: the kind in the first byte, then the message. It is decoded, checked and turned into
/// what the member is asked; a write must come back from the log as it was.
///
/// # Panics
/// If that fails, or the check of duplicate keys is not that of a simple model.
pub fn request(data: &[u8]) {
    let Some((kind, message)) = data.split_first() else {
        return;
    };
    match kind % 6 {
        0 => on_message(message, |request: RangeRequest| {
            if check_range(&request).is_ok() {
                convert::range_query(request);
            }
        }),
        1 => on_message(message, |request: PutRequest| {
            if check_put(&request).is_ok() {
                survives_the_log(&Command::Put(convert::put(request)));
            }
        }),
        2 => on_message(message, |request: DeleteRangeRequest| {
            if check_delete(&request).is_ok() {
                survives_the_log(&Command::Delete(convert::delete(request)));
            }
        }),
        3 => on_message(message, txn),
        4 => on_message(message, |request: WatchRequest| {
            let union = request.request_union;
            if let Some(watch_request::RequestUnion::CreateRequest(create)) = union {
                watch::watch_request(create);
            }
        }),
        _ => on_message(message, |request: DowngradeRequest| {
            let _ = version::downgrade_target(&request.version);
        }),
    }
}

fn on_message<T: Message + Default>(message: &[u8], then: impl FnOnce(T)) {
    if let Ok(request) = T::decode(message) {
        then(request);
    }
}

fn txn(request: TxnRequest) {
    let result = check_txn(&request, Limits::default().txn_ops_max);
    let branches = [&request.success, &request.failure];
    let disjoint = branches.iter().all(|ops| model_of_writes(ops).is_some());
    match result {
        Ok(()) => {
            assert!(disjoint, "accepted, though keys are written twice");
            survives_the_log(&Command::Txn(convert::txn(request)));
        }
        Err(Invalid::DuplicateKey) => assert!(!disjoint, "refused, though no key is written twice"),
        Err(_) => {}
    }
}

fn survives_the_log(command: &Command) {
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    let read = Command::decode(&bytes).expect("what was logged can be read");
    assert_eq!(read, *command);
}

/// Keys and ranges that operations write.
type Writes<'a> = (Vec<&'a [u8]>, Vec<(&'a [u8], &'a [u8])>);

/// The check of `etcd S21` in its simplest form; `None` if a key is written twice.
fn model_of_writes(ops: &[RequestOp]) -> Option<Writes<'_>> {
    let (mut puts, mut deletes): Writes<'_> = (Vec::new(), Vec::new());
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            deletes.push((&delete.key[..], &delete.range_end[..]));
        }
    }
    let deleted = |deletes: &[(&[u8], &[u8])], key: &[u8]| {
        deletes.iter().any(|(start, end)| match end {
            [] => key == *start,
            end => key >= *start && key < *end,
        })
    };
    for op in ops {
        if let Some(Request::RequestTxn(txn)) = &op.request {
            let success = model_of_writes(&txn.success)?;
            let failure = model_of_writes(&txn.failure)?;
            let before = puts.clone();
            for key in success.0.iter().chain(&failure.0) {
                if before.contains(key) || deleted(&deletes, key) {
                    return None;
                }
                puts.push(key);
            }
            deletes.extend(success.1.into_iter().chain(failure.1));
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            if puts.contains(&&put.key[..]) || deleted(&deletes, &put.key) {
                return None;
            }
            puts.push(&put.key);
        }
    }
    Some((puts, deletes))
}
