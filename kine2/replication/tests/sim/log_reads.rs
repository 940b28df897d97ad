//! Reads of a log, a few entries at a time.

use kine2_replication::{Event, LogIndex, PartName};

use super::Sim;

impl Sim {
    pub(super) fn on_log_read(
        &mut self,
        n: usize,
        boot: u64,
        part: PartName,
        from: LogIndex,
        through: LogIndex,
        bytes_max: usize,
    ) {
        let node = &self.nodes[n];
        if node.boot != boot || node.unit.is_none() {
            return;
        }
        let image = &node.disks[&part].durable;
        let Some(prev) = image.position(LogIndex(from.0 - 1)) else {
            return self.tell(
                n,
                Event::LogRead {
                    part,
                    prev: image.base,
                    entries: Vec::new(),
                },
            );
        };
        let mut entries = Vec::new();
        let mut index = from;
        // Short reads, so that catching up takes many.
        while index <= through && entries.len() < 3 && bytes_max > 0 {
            let Some(entry) = image.entry(index) else {
                break;
            };
            entries.push(entry.clone());
            index = index.next();
        }
        self.tell(
            n,
            Event::LogRead {
                part,
                prev,
                entries,
            },
        );
    }
}
