//! The replication core of a failover unit on two nodes and a witness, without I/O.
//!
//! Owns no clock, thread, socket, file or random source.

mod config;
mod epoch;
mod forms;
mod ids;
mod policy;
mod witness;

pub use config::{Config, ConfigId, MEMBERS_MAX, PARTS_MAX, ShapeError, Standing};
pub use epoch::Epoch;
pub use forms::{Form, FormError, Reason, force};
pub use ids::{
    ClusterId, Incarnation, NodeName, NodeRef, PartName, RegisterKey, Replica, RequestId, UnitName,
    WitnessId,
};
pub use policy::{Arbiter, LonePolicy, Policies};
pub use witness::{Ask, Cas, Refusal, Report, Tell, WitnessCall, WitnessWord};
