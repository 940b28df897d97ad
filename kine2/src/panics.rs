//! What a panic does: it stops the program, unless it is an engine's.
//!
//! A broken invariant must not be served from, so the hook aborts before anything unwinds. The
//! state engines panic on damaged files; [`kine2_backend`] catches that and has it come out as
//! damage, from which a start can recover. That is why the program is built to unwind at all.

use std::panic::{set_hook, take_hook};

use kine2_backend::engine_at_work;
use tracing::debug;

/// Makes every panic abort the process, but for those inside a state engine.
pub(crate) fn abort_but_for_engines() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        if engine_at_work() {
            // Reported as an error by who called the engine.
            debug!(%panic, "a state engine panicked");
            return;
        }
        report(panic);
        std::process::abort();
    }));
}
