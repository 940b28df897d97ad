//! Threads, sockets and disks around the node.

pub(crate) mod admin;
mod driver;
mod elsewhere;
mod gateway;
mod identity;
pub(crate) mod journal;
mod log_space;
mod log_thread;
mod member;
pub(crate) mod membership;
mod metrics;
mod node_watch;
mod open;
mod own_record;
mod pair;
mod peers;
pub(crate) mod quarantine;
mod role;
mod serve;
mod shared;
mod state_thread;

pub(crate) use serve::serve;
