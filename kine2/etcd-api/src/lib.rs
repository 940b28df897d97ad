//! The etcd v3 API: gRPC services, HTTP answers, listeners.

mod member;

pub use member::{Identity, LeaseInfo, Member, MemberStatus, RequestError, StoreHash, WatchStream};
