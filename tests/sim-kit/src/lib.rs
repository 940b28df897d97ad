//! What the simulator of the replication core (`kine2/replication/tests`) and the one of whole
//! nodes (`tests/sim`) have in common. How they move frames, disks and clients differs, and stays
//! with them.

mod in_force;
mod links;
mod rng;
mod truth;
mod witness;

pub use in_force::in_force;
pub use links::Links;
pub use rng::Rng;
pub use truth::{LogView, PartTruth};
pub use witness::{Outcome, WitnessHost};
