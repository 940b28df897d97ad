//! The decisions of a witness: one small register for each unit, changed by compare-and-swap, and
//! verdicts on whether a suspected primary is alive. It holds no user data.
//!
//! Owns no clock, thread, socket or file. What happens comes in by [`Witness::handle`]; what is to
//! be done comes out by [`Witness::take_steps`], in order, each step naming the write it waits
//! for. Verdicts can only delay a takeover; what is safe is decided by the compare-and-swap alone.

mod register;
mod session;
mod verdict;
mod witness;

pub use register::{REGISTERS_MAX, Register};
pub use witness::{Act, Event, Options, Step, Witness};
