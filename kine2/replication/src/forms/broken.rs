//! What a form makes if a rule of the table is broken on purpose, by a test.

use std::collections::BTreeSet;

use kine2_mutation::{Mutation, mutated};

use super::Form;
use crate::config::Config;
use crate::ids::{Incarnation, NodeRef, Replica};

/// Changes what `form` made of `stored` as the chosen mutation says.
pub(super) fn break_rule(form: &Form, stored: &Config, caller: &NodeRef, new: &mut Config) {
    let lead = stored.lead.clone();
    let old = |new: &mut Config, of_lead: bool| {
        for (part, set) in &mut new.in_sync {
            if (*part == lead) == of_lead {
                set.clone_from(&stored.in_sync[part]);
            }
        }
    };
    match form {
        Form::Takeover if mutated(Mutation::TakeoverAllParts) => join_all(new, caller, true),
        Form::Abdicate if mutated(Mutation::AbdicateAllParts) => {
            let peer = new.primary.clone();
            join_all(new, &peer, true);
        }
        Form::Swap if mutated(Mutation::SwapTakesAll) => {
            let peer = new.primary.clone();
            join_all(new, &peer, false);
        }
        Form::Remove if mutated(Mutation::RemoveStripsAway) => join_all(new, caller, true),
        Form::Remove if mutated(Mutation::RemoveStuck) => old(new, false),
        Form::Remove if mutated(Mutation::RemoveOtherOnly) => old(new, true),
        Form::Add { part, replica } if *part == lead && mutated(Mutation::AddLeadAddsAll) => {
            join_all(new, &replica.node, false);
        }
        _ => {}
    }
}

/// Puts `node` into every set, by itself if `alone`. Incarnations of its storages follow each
/// other, as the simulator makes them.
fn join_all(config: &mut Config, node: &NodeRef, alone: bool) {
    let Some(own) = config.replica(&config.lead, node).cloned() else {
        return;
    };
    let others = config
        .in_sync
        .iter_mut()
        .filter(|(part, _)| **part != config.lead);
    for ((_, set), k) in others.zip(1..) {
        let storage = Incarnation(own.storage.0 + k);
        let node = node.clone();
        if alone {
            *set = BTreeSet::new();
        }
        if set.iter().all(|replica| replica.node != node) {
            set.insert(Replica { node, storage });
        }
    }
}
