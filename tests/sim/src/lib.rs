//! Whole nodes on a virtual clock: what clients of two nodes and a witness see while everything
//! goes wrong, from one seed. Described in docs/simulator.md.

pub mod alarms;
mod clients;
pub mod compactions;
pub mod coverage;
pub mod downtime;
pub mod due;
pub mod episodes;
mod faults;
pub mod history;
mod host;
pub mod leases;
mod life;
pub mod linearizability;
pub mod log;
pub mod machine;
pub mod model;
pub mod network;
pub mod plan;
pub mod process;
mod recovery;
mod rot;
pub mod rules;
pub mod scripts;
pub mod seeds;
pub mod speech;
mod storage;
pub mod story;
pub mod truth;
mod watches;
pub mod watching;
mod witnesses;
pub mod world;

/// A quarter of a run is small allocations, with the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
