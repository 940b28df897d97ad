//! The program as its users run it: started, asked, stopped, and given damaged files.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: what fails here fails the test, and figures are shown"
)]

mod damage;
mod seeds;
mod server;
mod space;
