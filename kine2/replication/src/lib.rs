//! The replication core of a failover unit on two nodes and a witness, without I/O.
//!
//! A [`Unit`] is one node's half. Events come in by [`Unit::handle`] with the time they happened:
//! frames of the peer, words of the witness, finished disk writes, clients' requests, the
//! operator's commands. [`Unit::take_steps`] gives out what to persist, send, apply and answer, in
//! order, each step naming the disk write it waits for. It owns no clock, thread, socket, file or
//! random source; a runtime drives it with real ones, a simulator with false ones.
//!
//! The protocol as built is written down in `docs/replication.md`, rule by rule.

mod activation;
mod adopt;
mod append;
mod arbiter_change;
mod backoff;
mod broken;
mod catch_up;
mod config;
mod durable;
mod epoch;
mod event;
mod fields;
mod floors;
mod force;
mod forms;
mod frames;
pub mod fuzz;
mod gateway;
mod hard_state;
mod history;
mod ids;
mod limits;
mod log;
mod message;
mod operator;
mod output;
mod part;
mod peer;
mod policy;
mod quarantine;
mod quarantine_file;
mod reads;
mod register;
mod seed;
mod snapshot;
mod status;
mod suspicion;
mod timers;
mod unit;
mod view;
mod witness;

pub use config::{Config, ConfigId, MEMBERS_MAX, PARTS_MAX, ShapeError, Standing};
pub use durable::Durable;
pub use epoch::Epoch;
pub use event::{Command, Event, Link};
pub use fields::RecordError;
pub use floors::{Floors, Holdings, Mark, PartHoldings, ToldFloors};
pub use force::{Force, ForcedPart, force, force_part};
pub use forms::{Form, FormError, Reason};
pub use hard_state::{DataState, HardState, PendingAdd};
pub use history::{History, Span};
pub use ids::{
    ClusterId, Incarnation, NAME_BYTES_MAX, NodeName, NodeRef, PartName, RegisterKey, Replica,
    RequestId, UnitName, WitnessId, WitnessLife,
};
pub use kine2_wal::{Chain, Entry, LogIndex, Origin, Position, Term};
pub use limits::{FRAME_BYTES_MAX, HELD_MAX, READS_MAX, WINDOW_BYTES_MAX, WINDOW_ENTRIES_MAX};
pub use message::{Body, Frame, Heartbeat, Opened, PartSummary, ReadId, StreamId};
pub use output::{Act, Answer, Notice, Record, Step, Write, WriteId};
pub use part::LoadedPart;
pub use policy::{Arbiter, GATEWAYS_MAX, LonePolicy, Policies};
pub use quarantine::Quarantine;
pub use quarantine_file::{
    QUARANTINE_HEADER_BYTES_MAX, QuarantineError, QuarantineHeader, read_quarantined,
    write_quarantined,
};
pub use status::{PartStatus, PartWord, State, Status, WaitReason};
pub use timers::Timers;
pub use unit::{Loaded, Unit};
pub use witness::{Ask, Cas, Refusal, Report, Tell, WitnessCall, WitnessWord};
