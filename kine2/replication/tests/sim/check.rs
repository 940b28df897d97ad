//! What is in force, and what must hold after every event.

use kine2_replication::{Config, PartName, Reason, Replica, Standing, Unit};
use kine2_sim_kit::in_force;

use super::{Sim, store};

impl Sim {
    pub(super) fn note(&mut self, line: String) {
        self.log.push((self.now, line));
    }

    /// Notes the nodes' states that changed.
    fn note_states(&mut self) {
        for n in 0..2 {
            let state = self.state_line(n);
            if self.seen[n] != state {
                self.note(state.clone());
                self.seen[n] = state;
            }
        }
    }

    /// A node's state, and of each part how it stands and whether it is served.
    pub fn state_line(&self, n: usize) -> String {
        let node = &self.nodes[n];
        let Some(unit) = &node.unit else {
            return format!("{}: down", node.me);
        };
        let status = unit.status();
        let mut line = format!("{}: {}", node.me, status.state);
        for (part, status) in &status.parts {
            let served = if status.active { ", served" } else { "" };
            line += &format!(" | {part} {}{served}", status.word);
        }
        if let Some(part) = status.joint {
            line += &format!(" | joint {part}");
        }
        line
    }

    /// What a node has put away.
    pub fn quarantine_line(&self, n: usize) -> String {
        let node = &self.nodes[n];
        let mut line = format!("{}: in quarantine:", node.me);
        for (part, kept) in &node.quarantine {
            let ends = kept.first().zip(kept.last());
            let (first, last) = ends.expect("something was put away");
            line += &format!(" {part} {} to {}", first.index, last.index);
        }
        line
    }

    pub fn is_served(&self, part: &PartName) -> bool {
        self.nodes.iter().any(|node| {
            let status = node.unit.as_ref().map(Unit::status);
            status.is_some_and(|status| status.parts.get(part).is_some_and(|part| part.active))
        })
    }

    pub(super) fn all_mirrored_mut(&mut self) -> bool {
        self.all_mirrored()
    }

    pub(super) fn all_mirrored(&self) -> bool {
        let config = self.config();
        let mirror = |part| config.standing(part) == Some(Standing::Mirror);
        let known = self.nodes.iter().all(|node| {
            node.unit
                .as_ref()
                .is_some_and(|unit| unit.config().id() == config.id())
        });
        known && self.parts.iter().all(mirror)
    }

    /// What each node is in, for the message of a failed test.
    pub fn describe(&self) -> String {
        let mut text = format!("at {:?}, {:?}", self.now, self.links);
        for node in &self.nodes {
            if let Some(unit) = &node.unit {
                text += &format!(
                    "\n{}: run {} {:?} {:?}",
                    node.me,
                    unit.run(),
                    unit.config(),
                    unit.status()
                );
            } else {
                text += &format!("\n{}: down", node.me);
            }
        }
        text
    }

    /// The newest configuration that is durable: at a witness, or at a node.
    pub fn config(&self) -> Config {
        let registers = self.witnesses.iter().flat_map(|host| host.durable.values());
        let at_nodes = self.nodes.iter().map(|node| {
            let hard = node.disks[&store()].durable.hard.as_ref();
            &hard.expect("the lead's disk has it").config
        });
        in_force(registers, at_nodes).clone()
    }

    /// Two configurations are in force, each by a forced promotion of its own.
    fn has_twins(&self) -> bool {
        let mut hard = self.nodes.iter().map(|node| {
            let hard = node.disks[&store()].durable.hard.as_ref().unwrap();
            hard.config.id()
        });
        let (a, b) = (hard.next().unwrap(), hard.next().unwrap());
        !self.origins.is_empty() && a.is_twin_of(&b)
    }

    pub(super) fn check(&mut self) {
        self.note_promotions();
        let config = self.config();
        if self.last_config.as_ref() != Some(&config) {
            let counts = &mut self.truth.counts;
            match config.reason {
                Reason::Takeover => counts.takeovers += 1,
                Reason::Add => counts.additions += 1,
                Reason::Remove => counts.removals += 1,
                Reason::Drop => counts.drops += 1,
                Reason::Swap => counts.swaps += 1,
                Reason::Abdicate => counts.abdications += 1,
                Reason::Move => counts.moves += 1,
                Reason::Init | Reason::Parts | Reason::Policy | Reason::Force | Reason::Ping => {}
            }
            if self.trace {
                println!("{:?} in force: {config:?}", self.now);
            }
            self.last_config = Some(config.clone());
            if self.plan.calm {
                self.note(format!("in force: {}", config_line(&config)));
            }
        }
        if self.plan.calm {
            self.note_states();
        } else {
            self.strike(&config);
            self.roll_on();
        }
        if self.has_twins() {
            return;
        }
        let nodes = &self.nodes;
        self.truth
            .config_in_force(&config, |replica: &Replica, part| {
                let node = nodes.iter().find(|node| node.me == replica.node)?;
                let image = &node.disks[part].durable;
                // P5 is not for who was set back: it lacks what was exposed, and must know it.
                (image.storage == replica.storage && node.image.is_none()).then_some(image)
            });
    }
}

fn config_line(config: &Config) -> String {
    let mut line = format!(
        "{} {}, primary {}",
        config.epoch, config.reason, config.primary
    );
    for (part, set) in &config.in_sync {
        let nodes: Vec<_> = set.iter().map(|r| r.node.to_string()).collect();
        line += &format!(", {part} {{{}}}", nodes.join(" "));
    }
    line
}
