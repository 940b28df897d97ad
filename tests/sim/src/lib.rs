//! Whole nodes on a virtual clock: what clients of two nodes and a witness see while everything
//! goes wrong, from one seed. Described in docs/simulator.md.

pub mod history;
pub mod leases;
pub mod linearizability;
pub mod model;
pub mod rng;
pub mod watching;
