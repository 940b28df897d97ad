//! The real `kine2 serve --single`, ended and hindered in every way a machine knows, and held to
//! what it had promised. `README.md` tells what is checked and how to run it.

pub mod campaign;
pub mod client;
pub mod cut;
pub mod faults;
pub mod follower;
pub mod history;
pub mod ledger;
pub mod load;
pub mod model;
pub mod rng;
pub mod server;
pub mod shim;
pub mod small_disk;
pub mod undo;
pub mod witness;

/// Runs on a thread's own runtime; everything here is single-threaded.
///
/// # Errors
/// If the runtime cannot be made.
pub fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(tokio::task::LocalSet::new().block_on(&runtime, future))
}
