//! Nodes driven by hand: what they ask for, and when.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

mod alone;
mod common;
mod damage;
mod pair;
