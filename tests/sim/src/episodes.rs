//! Longer stories that a run is interrupted for: an order of things that chance would hardly bring
//! about, from a state in which all is well. Nothing else goes wrong meanwhile.

mod forced;
mod reverted;

use std::collections::BTreeMap;
use std::sync::Arc;

use kine2_backend::mem::MemBackend;
use kine2_replication::{NodeRef, RegisterKey};
use kine2_wal::fake;
use kine2_witness_core::Register;

use crate::due::Due;
use crate::plan::ms;
use crate::world::World;

/// A story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Episode {
    /// A node is lost, the other one promoted by force, and the lost one comes back with what it
    /// has.
    Forced,
    /// A machine goes back to an old image of its disk.
    Reverted,
    /// The witness does.
    WitnessReverted,
}

/// Images to go back to.
#[derive(Debug, Default)]
pub struct Images {
    machines: [Option<MachineImage>; 2],
    witnesses: [BTreeMap<RegisterKey, Register>; 2],
}

/// What is on a machine's disk.
#[derive(Debug)]
struct MachineImage {
    /// Whose it is: not that of a node that replaced it.
    me: NodeRef,
    log: fake::Image,
    state: Arc<MemBackend>,
    incoming: Option<Arc<MemBackend>>,
}

impl World {
    pub(crate) fn on_episode(&mut self, episode: Episode) {
        if self.quiet {
            return self.push(ms(500), Due::Episode(episode));
        }
        self.quiet = true;
        self.tell_story(format!("a story begins: {episode:?}"));
        self.end_faults(&[0, 1]);
        self.must_mirror("before a story: mirrored and served", ms(60_000));
        // What was asked for before, by nodes or the operator, is over.
        self.run_for(ms(3_000));
        self.must_mirror("before a story: it stays so", ms(60_000));
        match episode {
            Episode::Forced => self.force_and_return(),
            Episode::Reverted => self.revert_machine(),
            Episode::WitnessReverted => self.revert_witness(),
        }
        self.tell_story("the story ends".to_owned());
        self.network.healed = false;
        self.quiet = false;
    }

    /// Now and then images are made of what is there, if any story needs them.
    pub(crate) fn keep_images(&mut self) {
        let mut episodes = self.plan.episodes.iter();
        if episodes.all(|(_, episode)| *episode == Episode::Forced) {
            return;
        }
        let next = self.plan.chaos / 8;
        self.push(next, Due::KeepImages);
        for n in 0..2 {
            if self.images.machines[n].is_some() && self.rng.percent(60) {
                continue;
            }
            let machine = &self.machines[n];
            // One that never heard of another node asks nobody whether it knows all.
            if machine.on_disk.hard().config.members.len() < 2 {
                continue;
            }
            self.images.machines[n] = Some(MachineImage {
                me: machine.me.clone(),
                log: machine.disk.snapshot(),
                state: Arc::new(machine.state.image()),
                incoming: machine
                    .incoming
                    .as_ref()
                    .map(|state| Arc::new(state.image())),
            });
            self.images.witnesses[n] = self.witnesses[n].durable.clone();
        }
    }
}
