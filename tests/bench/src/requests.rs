//! The requests Kubernetes makes, as bytes.

use crate::wire::Message;

pub(crate) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(crate) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(crate) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(crate) const LEASE_REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

/// What all keys begin with.
pub(crate) const PREFIX: &str = "/registry/configmaps/";
const PREFIX_END: &str = "/registry/configmaps0";

/// About 60 bytes, as a namespace and a name make.
pub(crate) fn key(space: &str, number: usize) -> Vec<u8> {
    format!("{PREFIX}{space}-namespace/configmap-{number:020}").into_bytes()
}

pub(crate) fn get(key: &[u8]) -> Vec<u8> {
    Message::default().bytes(1, key).int(3, 1).0
}

/// A page of the list after a key; an empty one for the first page.
pub(crate) fn list(after: &[u8], limit: i64, revision: i64) -> Vec<u8> {
    let mut start = after.to_vec();
    if start.is_empty() {
        start.extend_from_slice(PREFIX.as_bytes());
    } else {
        start.push(0);
    }
    Message::default().bytes(1, &start).bytes(2, PREFIX_END.as_bytes()).int(3, limit).int(4, revision).0
}

/// Compare mod_revision, then put, or else read.
pub(crate) fn put_if(key: &[u8], revision: i64, value: &[u8], lease: i64) -> Vec<u8> {
    // target MOD = 2, result EQUAL = 0, mod_revision = 6.
    let compare = Message::default().int(2, 2).bytes(3, key).present(6, revision);
    let put = Message::default().bytes(1, key).bytes(2, value).int(3, lease);
    let success = Message::default().message(2, &put);
    let txn = Message::default().message(1, &compare).message(2, &success);
    if revision == 0 {
        return txn.0;
    }
    let range = Message::default().bytes(1, key);
    txn.message(3, &Message::default().message(1, &range)).0
}

pub(crate) fn watch() -> Vec<u8> {
    let create = Message::default()
        .bytes(1, PREFIX.as_bytes())
        .bytes(2, PREFIX_END.as_bytes())
        .int(6, 1);
    Message::default().message(1, &create).0
}

pub(crate) fn lease_grant(ttl: i64) -> Vec<u8> {
    Message::default().int(1, ttl).0
}

pub(crate) fn lease_revoke(id: i64) -> Vec<u8> {
    Message::default().int(1, id).0
}
