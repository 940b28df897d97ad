//! Bits that turn over on a disk while its machine is down.

use kine2_wal::Disk;
use kine2_wal::WalError;

use crate::due::Due;
use crate::log::Log;
use crate::plan::ms;
use crate::world::World;

/// Bits turned over at once, at most.
const BITS_MAX: usize = 3;

impl World {
    /// A machine goes down, and its disk rots.
    pub(crate) fn rot(&mut self, n: usize) {
        if self.rng.percent(50) {
            self.kill(n);
        } else {
            self.cut_power(n);
        }
        // What it asked of the witness before is decided by then.
        let after = ms(2_500 + self.rng.below(3_000));
        self.push(after, Due::Rot(n));
    }

    /// The disk is damaged where that loses nothing, and the machine started in any case.
    pub(crate) fn on_rot(&mut self, n: usize) {
        if self.is_spare(n) {
            self.turn_bits(n);
        }
        self.start(n);
    }

    /// A damaged log is found by the next start (`repl I2`), or nothing of it matters. What can be
    /// taken for a write that a power cut tore, as the last batch of a log that had no quiet time
    /// since, is lost silently: that is what a machine set back loses, and done there.
    fn turn_bits(&mut self, n: usize) {
        let seed = self.rng.draw();
        let disk = self.machines[n].disk.fork();
        let names = disk.list().expect("a disk in memory");
        for _ in 0..1 + self.rng.pick(BITS_MAX) {
            let name = self.rng.choose(&names);
            let bytes = disk.bytes_of(&name);
            let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
            if used.is_empty() {
                continue;
            }
            let byte = self.rng.choose(&used) as u64;
            let bit = u8::try_from(self.rng.below(8)).expect("of a byte");
            disk.flip_bit(&name, byte, bit);
        }
        let known = &self.machines[n].on_disk;
        match Log::open(&disk.fork(), seed) {
            Err(WalError::Damaged { .. }) => self.coverage.mark("disk: bits turned over, found"),
            // The disk is broken besides, and nobody can tell what the bits would do.
            Err(WalError::Io { .. }) => return,
            Err(error) => panic!("a log with bits turned over: {error}"),
            Ok((log, _)) if log.is_set_up() && log.on_disk() == *known => {
                self.coverage.mark("disk: bits turned over, of no use");
            }
            Ok(_) => {
                return self
                    .coverage
                    .mark("disk: bits turned over, as a torn write");
            }
        }
        self.machines[n].disk = disk;
        self.machines[n].is_rotten = true;
        let name = self.machines[n].me.name.clone();
        self.tell_story(format!("bits turn over on the disk of {name}"));
    }
}
