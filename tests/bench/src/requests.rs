//! The requests Kubernetes makes, as gRPC frames (etcd A1, A2, A6, A10).

use bytes::Bytes;

use crate::protobuf::Writer;

/// Headers, tags and lengths of the largest request, without its keys and value.
const OVERHEAD_BYTES: usize = 128;

/// `Compare.target` MOD; the result EQUAL is 0 and so left out.
const TARGET_MOD: i64 = 2;

/// The methods that are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Range,
    Txn,
    Watch,
    LeaseGrant,
    LeaseKeepAlive,
    LeaseRevoke,
    Status,
}

impl Method {
    pub(crate) const ALL: [Self; 7] = [
        Self::Range,
        Self::Txn,
        Self::Watch,
        Self::LeaseGrant,
        Self::LeaseKeepAlive,
        Self::LeaseRevoke,
        Self::Status,
    ];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Range => "/etcdserverpb.KV/Range",
            Self::Txn => "/etcdserverpb.KV/Txn",
            Self::Watch => "/etcdserverpb.Watch/Watch",
            Self::LeaseGrant => "/etcdserverpb.Lease/LeaseGrant",
            Self::LeaseKeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Self::LeaseRevoke => "/etcdserverpb.Lease/LeaseRevoke",
            Self::Status => "/etcdserverpb.Maintenance/Status",
        }
    }
}

/// How a member is.
pub(crate) fn status() -> Bytes {
    Writer::new(OVERHEAD_BYTES).frame()
}

/// Range of one key.
pub(crate) fn get(key: &[u8]) -> Bytes {
    let mut request = Writer::new(OVERHEAD_BYTES + key.len());
    request.int(3, 1);
    request.bytes(1, key);
    request.frame()
}

/// A page of `[start, end)`; revision 0 is the latest.
pub(crate) fn list(start: &[u8], end: &[u8], limit: i64, revision: i64) -> Bytes {
    let mut request = Writer::new(OVERHEAD_BYTES + start.len() + end.len());
    request.int(4, revision);
    request.int(3, limit);
    request.bytes(2, end);
    request.bytes(1, start);
    request.frame()
}

/// Put if the key is not there. The API server sends no other branch with it.
pub(crate) fn create(key: &[u8], value: &[u8], lease: i64) -> Bytes {
    let mut request = Writer::new(OVERHEAD_BYTES + 2 * key.len() + value.len());
    put_if_unchanged(&mut request, key, 0, value, lease);
    request.frame()
}

/// Put if the key has this revision, else read it.
pub(crate) fn update(key: &[u8], revision: i64, value: &[u8]) -> Bytes {
    let mut request = Writer::new(OVERHEAD_BYTES + 3 * key.len() + value.len());
    request.nested(3, |failure| failure.nested(1, |range| range.bytes(1, key)));
    put_if_unchanged(&mut request, key, revision, value, 0);
    request.frame()
}

fn put_if_unchanged(request: &mut Writer, key: &[u8], revision: i64, value: &[u8], lease: i64) {
    request.nested(2, |success| {
        success.nested(2, |put| {
            put.int(3, lease);
            put.bytes(2, value);
            put.bytes(1, key);
        });
    });
    request.nested(1, |compare| {
        compare.int(6, revision);
        compare.bytes(3, key);
        compare.int(2, TARGET_MOD);
    });
}

/// A watch as the API server's cache has it: previous values and progress are asked for.
pub(crate) fn watch(start: &[u8], end: &[u8]) -> Bytes {
    let mut request = Writer::new(OVERHEAD_BYTES + start.len() + end.len());
    request.nested(1, |create| {
        create.int(6, 1);
        create.int(4, 1);
        create.bytes(2, end);
        create.bytes(1, start);
    });
    request.frame()
}

pub(crate) fn lease_grant(ttl_seconds: i64) -> Bytes {
    number(ttl_seconds)
}

pub(crate) fn lease_keep_alive(id: i64) -> Bytes {
    number(id)
}

pub(crate) fn lease_revoke(id: i64) -> Bytes {
    number(id)
}

/// A message whose only field is its first.
fn number(value: i64) -> Bytes {
    let mut request = Writer::new(OVERHEAD_BYTES);
    request.int(1, value);
    request.frame()
}
