//! What must hold at any moment: P1 to P8 of the protocol (`repl section 15`), from outside.

use kine2_replication::{Config, LogIndex, Position, Replica};
use kine2_sim_kit::{LogView, PartTruth};

use crate::log::OnDisk;

impl LogView for OnDisk {
    fn position(&self, index: LogIndex) -> Option<Position> {
        self.position(index)
    }

    fn last(&self) -> Position {
        self.last()
    }
}

/// P5: every member of the in-sync set of the configuration in force has every exposed entry on
/// its disk.
pub fn check_in_sync<'d>(
    truth: &PartTruth,
    config: &Config,
    on_disk: impl Fn(&Replica) -> Option<&'d OnDisk>,
) {
    for replica in &config.in_sync[&config.lead] {
        if let Some(on_disk) = on_disk(replica) {
            truth.in_sync(replica, on_disk);
        }
    }
}
