//! Threads, sockets and disks around the node.

mod driver;
mod identity;
mod log_space;
mod log_thread;
mod member;
mod metrics;
mod open;
mod own_record;
mod serve;
mod shared;
mod state_thread;

pub(crate) use serve::serve;
