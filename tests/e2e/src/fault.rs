//! What happens to a pair, and how it is mended.

use std::fmt;
use std::time::Duration;

use kine2_crash::rng::Rng;
use rustix::process::Signal;

use crate::disk::Medium;
use crate::lab::{Lab, Machine};
use crate::pair::{Node, Pair};

/// A link this slow does not carry what a client writes.
const SLOW_KBITS: u32 = 200;
/// Restarts, and swaps, of a storm.
const STORM: u64 = 6;

/// Something that happens to a pair in service, whose primary is the node named first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The primary is killed.
    KillPrimary,
    /// The secondary is killed.
    KillSecondary,
    /// The primary stands still.
    StopPrimary,
    /// The secondary stands still.
    StopSecondary,
    /// The operator hands the role over.
    Swap,
    /// The primary is asked to end.
    EndPrimary,
    /// The witness is killed.
    KillWitness,
    /// Both nodes are killed at once.
    KillBoth,
    /// The nodes do not hear each other.
    CutLink,
    /// The secondary does not hear the primary.
    CutToSecondary,
    /// The primary does not hear the secondary.
    CutToPrimary,
    /// The primary reaches nobody, and clients do not reach it.
    CutOffPrimary,
    /// The same with the secondary.
    CutOffSecondary,
    /// Neither node reaches the witness.
    CutOffWitness,
    /// The primary hears nobody, but is heard.
    DeafPrimary,
    /// What the nodes say to each other and to the witness takes long.
    SlowLink,
    /// The primary's disk is full.
    FullPrimary,
    /// The secondary's disk is full.
    FullSecondary,
    /// A flush of the primary's disk fails.
    FlushPrimary,
    /// A flush of the secondary's disk fails.
    FlushSecondary,
    /// The primary loses its disk.
    WipePrimary,
    /// The secondary loses its disk.
    WipeSecondary,
    /// The secondary comes back with an old image of its disk.
    OldImage,
    /// One node or the other is killed and started, again and again.
    RestartStorm,
    /// The operator hands the role over again and again.
    SwapStorm,
    /// Both nodes lose power.
    PowerCut,
}

/// What a fault takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// A network of the test's own.
    Lab,
    /// A disk that can fail.
    FailingDisk,
    /// A disk that can be filled.
    SmallDisk,
    /// A disk that can lose what was not flushed.
    VolatileDisk,
}

impl Need {
    /// Whether a pair on such disks, in a lab or not, has it.
    #[must_use]
    pub fn is_met(self, medium: Medium, is_in_lab: bool) -> bool {
        match self {
            Self::Nothing => true,
            Self::Lab => is_in_lab,
            Self::FailingDisk => medium != Medium::Good,
            Self::SmallDisk => medium == Medium::Failing,
            Self::VolatileDisk => medium == Medium::Volatile,
        }
    }
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 26] = [
        Self::KillPrimary,
        Self::KillSecondary,
        Self::StopPrimary,
        Self::StopSecondary,
        Self::Swap,
        Self::EndPrimary,
        Self::KillWitness,
        Self::KillBoth,
        Self::CutLink,
        Self::CutToSecondary,
        Self::CutToPrimary,
        Self::CutOffPrimary,
        Self::CutOffSecondary,
        Self::CutOffWitness,
        Self::DeafPrimary,
        Self::SlowLink,
        Self::FullPrimary,
        Self::FullSecondary,
        Self::FlushPrimary,
        Self::FlushSecondary,
        Self::WipePrimary,
        Self::WipeSecondary,
        Self::OldImage,
        Self::RestartStorm,
        Self::SwapStorm,
        Self::PowerCut,
    ];

    /// What it takes.
    #[must_use]
    pub const fn needs(self) -> Need {
        match self {
            Self::KillPrimary
            | Self::KillSecondary
            | Self::StopPrimary
            | Self::StopSecondary
            | Self::Swap
            | Self::EndPrimary
            | Self::KillWitness
            | Self::KillBoth
            | Self::WipePrimary
            | Self::WipeSecondary
            | Self::OldImage
            | Self::RestartStorm
            | Self::SwapStorm => Need::Nothing,
            Self::CutLink
            | Self::CutToSecondary
            | Self::CutToPrimary
            | Self::CutOffPrimary
            | Self::CutOffSecondary
            | Self::CutOffWitness
            | Self::DeafPrimary
            | Self::SlowLink => Need::Lab,
            Self::FlushPrimary | Self::FlushSecondary => Need::FailingDisk,
            Self::FullPrimary | Self::FullSecondary => Need::SmallDisk,
            Self::PowerCut => Need::VolatileDisk,
        }
    }

    /// Whether more may happen before it is mended: what loses data on purpose comes alone, as only
    /// one of two copies may be lost.
    #[must_use]
    pub const fn may_coincide(self) -> bool {
        !matches!(
            self,
            Self::WipePrimary | Self::WipeSecondary | Self::OldImage | Self::RestartStorm
        )
    }

    /// Does it.
    ///
    /// # Panics
    /// If it cannot be done.
    pub async fn strike(self, pair: &mut Pair, primary: Node, rng: &mut Rng) {
        let secondary = primary.other();
        match self {
            Self::KillPrimary => pair.kill(primary),
            Self::KillSecondary => pair.kill(secondary),
            Self::StopPrimary => pair.signal(primary, Signal::STOP),
            Self::StopSecondary => pair.signal(secondary, Signal::STOP),
            Self::Swap => swap(pair, primary),
            Self::EndPrimary => pair.signal(primary, Signal::TERM),
            Self::KillWitness => pair.kill_witness(),
            Self::KillBoth => pair.kill_both(),
            Self::CutLink
            | Self::CutToSecondary
            | Self::CutToPrimary
            | Self::CutOffPrimary
            | Self::CutOffSecondary
            | Self::CutOffWitness
            | Self::DeafPrimary
            | Self::SlowLink => self.cut(pair.lab().expect("there is a lab"), primary),
            Self::FullPrimary => pair.disk(primary).fill(),
            Self::FullSecondary => pair.disk(secondary).fill(),
            Self::FlushPrimary => pair.disk(primary).fail_flushes(),
            Self::FlushSecondary => pair.disk(secondary).fail_flushes(),
            Self::WipePrimary => pair.wipe(primary),
            Self::WipeSecondary => pair.wipe(secondary),
            Self::OldImage => {
                pair.kill(secondary);
                if !pair.disk(secondary).has_image() {
                    pair.disk(secondary).take_image();
                }
            }
            Self::RestartStorm => {
                for _ in 0..STORM {
                    let node = if rng.percent(50) { primary } else { secondary };
                    pair.kill(node);
                    pause(rng.within(0..200)).await;
                    pair.start_node(node);
                    pause(rng.within(0..1_000)).await;
                }
            }
            Self::SwapStorm => {
                for _ in 0..STORM {
                    for node in Node::BOTH {
                        swap(pair, node);
                    }
                    pause(rng.within(0..300)).await;
                }
            }
            Self::PowerCut => {
                pair.kill_both();
                for node in Node::BOTH {
                    pair.disk(node).cut_power(rng);
                }
            }
        }
    }

    fn cut(self, lab: &Lab, primary: Node) {
        let (primary, secondary) = (primary.machine(), primary.other().machine());
        let deafen = |machine: Machine| {
            for other in Machine::ALL.into_iter().filter(|other| *other != machine) {
                lab.cut(other, machine);
            }
        };
        let cut_off = |machine: Machine| {
            deafen(machine);
            for other in Machine::ALL.into_iter().filter(|other| *other != machine) {
                lab.cut(machine, other);
            }
        };
        match self {
            Self::CutLink => {
                lab.cut(primary, secondary);
                lab.cut(secondary, primary);
            }
            Self::CutToSecondary => lab.cut(primary, secondary),
            Self::CutToPrimary => lab.cut(secondary, primary),
            Self::CutOffPrimary => {
                cut_off(primary);
                lab.cut_clients(primary);
            }
            Self::CutOffSecondary => {
                cut_off(secondary);
                lab.cut_clients(secondary);
            }
            Self::CutOffWitness => cut_off(Machine::Witness),
            Self::DeafPrimary => deafen(primary),
            _ => {
                lab.slow_down(primary, SLOW_KBITS);
                lab.slow_down(secondary, SLOW_KBITS);
            }
        }
    }

    /// Brings back what was lost.
    ///
    /// # Panics
    /// If it cannot be.
    pub fn mend(self, pair: &mut Pair, primary: Node) {
        let secondary = primary.other();
        match self {
            Self::KillPrimary => pair.start_node(primary),
            Self::KillSecondary => pair.start_node(secondary),
            Self::StopPrimary => pair.signal(primary, Signal::CONT),
            Self::StopSecondary => pair.signal(secondary, Signal::CONT),
            Self::Swap | Self::RestartStorm | Self::SwapStorm => {}
            Self::EndPrimary => {
                pair.signal(primary, Signal::CONT);
                pair.wait_for_end(primary);
                pair.start_node(primary);
            }
            Self::KillWitness => pair.start_witness(),
            Self::KillBoth | Self::PowerCut => {
                pair.start_node(secondary);
                pair.start_node(primary);
            }
            Self::CutLink
            | Self::CutToSecondary
            | Self::CutToPrimary
            | Self::CutOffPrimary
            | Self::CutOffSecondary
            | Self::CutOffWitness
            | Self::DeafPrimary
            | Self::SlowLink => pair.lab().expect("there is a lab").heal(),
            Self::FullPrimary => make_room(pair, primary),
            Self::FullSecondary => make_room(pair, secondary),
            Self::FlushPrimary => replace_disk(pair, primary),
            Self::FlushSecondary => replace_disk(pair, secondary),
            Self::WipePrimary => {
                pair.wait_for(secondary, "ALONE");
                pair.join(primary);
            }
            Self::WipeSecondary => {
                pair.wait_for(primary, "ALONE");
                pair.join(secondary);
            }
            Self::OldImage => {
                // Else the image is as new as all that counts.
                pair.wait_for(primary, "ALONE");
                pair.disk(secondary).restore_image();
                pair.start_node(secondary);
            }
        }
    }
}

/// Refused while the other node is not in sync, and by one that is not the primary.
fn swap(pair: &Pair, node: Node) {
    drop(pair.try_kine2(node, &["swap"]));
}

/// A node that has met the full disk is over, or takes up by itself.
fn make_room(pair: &mut Pair, node: Node) {
    pair.disk(node).make_room();
    pair.start_node(node);
}

/// The disk works again. A node that had nothing to flush meanwhile did not notice.
fn replace_disk(pair: &mut Pair, node: Node) {
    if pair.disk(node).fails() {
        pair.signal(node, Signal::CONT);
        pair.wait_for_failure(node);
    }
    pair.start_node(node);
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillPrimary => "primary killed",
            Self::KillSecondary => "secondary killed",
            Self::StopPrimary => "primary stands still",
            Self::StopSecondary => "secondary stands still",
            Self::Swap => "swap",
            Self::EndPrimary => "primary ended by SIGTERM",
            Self::KillWitness => "witness killed",
            Self::KillBoth => "both killed",
            Self::CutLink => "link cut",
            Self::CutToSecondary => "link cut, primary to secondary",
            Self::CutToPrimary => "link cut, secondary to primary",
            Self::CutOffPrimary => "primary cut off from all",
            Self::CutOffSecondary => "secondary cut off from all",
            Self::CutOffWitness => "witness cut off",
            Self::DeafPrimary => "primary hears nobody, but is heard",
            Self::SlowLink => "slow link",
            Self::FullPrimary => "primary's disk full",
            Self::FullSecondary => "secondary's disk full",
            Self::FlushPrimary => "primary's flush fails",
            Self::FlushSecondary => "secondary's flush fails",
            Self::WipePrimary => "primary wiped",
            Self::WipeSecondary => "secondary wiped",
            Self::OldImage => "secondary with an old image",
            Self::RestartStorm => "restart storm",
            Self::SwapStorm => "swap storm",
            Self::PowerCut => "both powered off",
        })
    }
}
