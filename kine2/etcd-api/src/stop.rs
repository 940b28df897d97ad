//! Telling everyone that the server stops.

use tokio::sync::watch;

/// Who can stop the server; dropping it stops it as well.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

/// Whether the server stops; cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct StopSignal(watch::Receiver<bool>);

/// Both ends.
pub(crate) fn stop_channel() -> (Stopper, StopSignal) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), StopSignal(receiver))
}

impl Stopper {
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl StopSignal {
    /// Waits until the server stops.
    pub(crate) async fn stopped(&mut self) {
        // A stopper that is gone has stopped.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }
}
