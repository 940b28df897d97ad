//! kine2-witness: lets exactly one of two nodes go on when they lose each other.

use std::process::ExitCode;

fn main() -> ExitCode {
    kine2_witness::run()
}
