//! The store of etcd's data model: revisions, transactions, leases, watches, compaction.
//!
//! Owns no clock, thread, file or socket. Commands come in with every id and time they need and
//! are applied in log order; what to write to the state engine comes out as [`StateBatch`]es.

mod answer;
mod backend;
mod cache;
mod cells;
mod codec;
mod command;
mod compaction;
mod cost;
mod event;
mod hash;
mod history;
mod index;
mod key_heads;
mod key_range;
mod lease;
mod range;
mod record;
mod revision;
mod ring;
mod store;
mod txn;
mod watch;
pub mod wire;

pub use answer::{
    Answer, Applied, DeleteAnswer, OpAnswer, PutAnswer, RangeAnswer, Refusal, TxnAnswer,
};
pub use backend::{
    Backend, BackendError, BackendStats, Change, Held, HistoryPage, LogPosition, Meta, StateBatch,
};
pub use codec::{CommandError, TXN_DEPTH_MAX};
pub use command::{
    Alarm, AlarmChange, AlarmKind, Command, Compact, Compare, Delete, LeaseGrant, Operand, Put,
    RangeQuery, Relation, RevisionBounds, Sort, SortBy, Txn, TxnOp,
};
pub use event::{Event, Previous};
pub use hash::{HashJob, StoreHash};
pub use history::{EventPage, History};
pub use key_range::{KeyRange, RangeEnd};
pub use range::ReadError;
pub use record::{KeyValue, Record};
pub use revision::{ChangeId, Revision};
pub use store::{OpCounts, Store, StoreOptions, StoreStats};
pub use watch::{
    CancelCause, Polled, StreamId, WatchHub, WatchMessage, WatchOptions, WatchRequest, WatchStats,
    WatchUpdate,
};
