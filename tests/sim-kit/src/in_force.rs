//! Which configuration is in force.

use kine2_replication::Config;
use kine2_witness_core::Register;

/// The newest configuration that is durable: in a register of a witness, or at a node.
///
/// A register that was prepared for a change of the arbiter is in force only once a node acts by
/// it, or the old register was closed.
///
/// # Panics
/// When no node has one.
#[must_use]
pub fn in_force<'c>(
    registers: impl Iterator<Item = &'c Register> + Clone,
    at_nodes: impl Iterator<Item = &'c Config> + Clone,
) -> &'c Config {
    let newest_generation = at_nodes
        .clone()
        .map(|config| config.epoch.generation())
        .max();
    let is_moved_to = |config: &Config| {
        let mut moved = registers.clone().filter_map(|r| r.moved_to.as_ref());
        moved.any(|to| to.id() == config.id())
    };
    registers
        .clone()
        .map(|register| register.moved_to.as_ref().unwrap_or(&register.config))
        .filter(|config| {
            Some(config.epoch.generation()) <= newest_generation || is_moved_to(config)
        })
        .chain(at_nodes)
        .max_by_key(|config| config.epoch)
        .expect("the nodes have one")
}
