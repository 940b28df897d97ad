//! What the process asks of the system before it serves.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};
use tracing::warn;

/// Keeps what is written from others, and allows as many files as the system grants.
pub(crate) fn prepare() {
    // The store holds every secret of the cluster.
    umask(Mode::RWXG | Mode::RWXO);
    // Each client's connection is a file; the usual limit of 1,024 is there for select(2) only.
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files stays at {:?}", limit.current);
    }
}
