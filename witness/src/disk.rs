//! The thread that writes the state file: one batch at a time, one flush each.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::mpsc::{Receiver, channel};

use crate::record::Record;
use crate::store::{Store, StoreError};

/// Hands batches to the thread, and hears of each when it is durable.
#[derive(Debug)]
pub(crate) struct Disk {
    batches: SyncSender<Vec<Record>>,
    done: Receiver<Result<(), StoreError>>,
    busy: bool,
}

impl Disk {
    pub(crate) fn start(mut store: Store) -> io::Result<Self> {
        let (batches, todo) = sync_channel::<Vec<Record>>(1);
        let (tell, done) = channel(1);
        let write = move || {
            while let Ok(batch) = todo.recv() {
                let outcome = store.append(&batch);
                let failed = outcome.is_err();
                // After a failed write or flush nobody knows what is on the disk: it is the last.
                if tell.blocking_send(outcome).is_err() || failed {
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("disk".into());
        thread.stack_size(128 << 10).spawn(write)?;
        Ok(Self {
            batches,
            done,
            busy: false,
        })
    }

    /// True while a batch is being written.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Writes the batch. Only when it is not busy.
    pub(crate) fn write(&mut self, batch: Vec<Record>) {
        assert!(!self.busy, "one batch at a time");
        self.busy = true;
        // If the thread has ended, what it had to say waits in `done`.
        let _ = self.batches.try_send(batch);
    }

    /// The batch is durable, or never will be. Cancel-safe.
    pub(crate) async fn done(&mut self) -> Result<(), StoreError> {
        match self.done.recv().await {
            Some(outcome) => {
                self.busy = false;
                outcome
            }
            None => {
                let gone = io::Error::other("the disk's thread has ended");
                Err(StoreError::Io("witness.state".into(), gone))
            }
        }
    }
}
