//! The program as its users run it: started, asked, stopped, and given damaged files.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]

mod damage;
mod seeds;
mod server;
mod space;
