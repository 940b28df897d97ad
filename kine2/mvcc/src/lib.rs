//! The store of etcd's data model: revisions, transactions, leases, watches, compaction.
//!
//! Owns no clock, thread, file or socket. Commands come in with every id and time they need and
//! are applied in log order; what to write to the state engine comes out as [`StateBatch`]es.

mod answer;
mod backend;
mod command;
mod event;
mod key_range;
mod record;
mod revision;
mod watch;
mod wire;

pub use answer::{
    Answer, Applied, DeleteAnswer, OpAnswer, PutAnswer, RangeAnswer, Refusal, TxnAnswer,
};
pub use backend::{
    Backend, BackendError, BackendStats, Change, Held, HistoryPage, LogPosition, Meta, StateBatch,
};
pub use command::{
    Alarm, AlarmChange, AlarmKind, Command, Compact, Compare, Delete, LeaseGrant, Operand, Put,
    RangeQuery, Relation, RevisionBounds, Sort, SortBy, Txn, TxnOp,
};
pub use event::{Event, Previous};
pub use key_range::{KeyRange, RangeEnd};
pub use record::{KeyValue, Record};
pub use revision::{ChangeId, Revision};
pub use watch::{CancelCause, WatchMessage, WatchRequest, WatchUpdate};
