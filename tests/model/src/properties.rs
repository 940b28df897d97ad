//! What must always hold (P1 to P11), what a run must have reached (L1 to L29), and what must be possible again after every
//! state (R1 to R3).

use stateright::Property;

use crate::mutation::Mutation;
use crate::settings::{Force, Rollback, Settings};
use crate::state::{
    BOTH, Committers, Config, LEAD, NODES, OTHER, PARTS, State, bad, bit, generation, seen,
};

const SLOTS: u8 = 32;

impl Settings {
    /// The properties of this run.
    pub(crate) fn all_properties(&self) -> Vec<Property<Self>> {
        let mut all = if self.visible_only {
            visible()
        } else {
            let mut all = visible();
            all.extend(inner());
            all
        };
        if self.forces > 0 {
            all.extend(after_force());
        }
        all.extend(reached());
        if self.arbiter_moves {
            all.push(Property::sometimes(
                "L28 arbiter moved while an ADD was in doubt",
                |_, state| was_seen(state, seen::MOVED_IN_DOUBT),
            ));
        }
        if self.inits > 0 {
            all.push(Property::sometimes(
                "L29 a register prepared for a move begun anew",
                |_, state| was_seen(state, seen::INIT_REPLACED),
            ));
        }
        if self.has_snapshots() {
            all.extend(reached_with_snapshots());
        }
        if self.forces > 0 {
            all.extend(reached_with_force());
        }
        if self.rollback != Rollback::Never {
            all.extend(reached_with_rollback());
        }
        if self.recover {
            all.extend(recovers());
        }
        all
    }
}

/// What clients see, and the shape of configurations.
fn visible() -> Vec<Property<Settings>> {
    vec![
        Property::always(
            "P1 one committing primary per epoch and part",
            |_, state| is_free(state, bad::TWO_COMMITTERS),
        ),
        Property::always("P2 exposed history never contradicted", |_, state| {
            is_free(state, bad::EXPOSED)
        }),
        Property::always("P3 reads linearizable", |_, state| {
            is_free(state, bad::READ)
        }),
        Property::always("P4 no exposed entry truncated", |_, state| {
            is_free(state, bad::TRUNCATED)
        }),
        Property::always(
            "P8 shape of the configuration",
            |settings: &Settings, state: &State| {
                settings.mutation != Mutation::None || has_shape(&state.top())
            },
        ),
    ]
}

/// What sees a violation before a client would.
fn inner() -> Vec<Property<Settings>> {
    vec![
        Property::always(
            "P5 every node in sync holds all that is exposed, durably",
            |settings: &Settings, state: &State| {
                settings.breaks(Mutation::NoCas) || holds_exposed(state)
            },
        ),
        Property::always("P6 log matching", |_, state: &State| {
            PARTS.into_iter().all(|part| logs_match(state, part))
        }),
        Property::always(
            "P7 a part is served only by a node in sync for it, never half installed",
            |_, state| is_free(state, bad::SERVED),
        ),
        Property::always(
            "P9 unforced: no twins, no node stops as diverged, no node in sync needs a snapshot",
            |settings: &Settings, state: &State| {
                is_free(state, bad::STOPPED) && (settings.forces > 0 || !has_twins(state))
            },
        ),
    ]
}

fn after_force() -> Vec<Property<Settings>> {
    vec![
        Property::always(
            "P10 whatever was acked is on a disk or in quarantine",
            |_, state| PARTS.into_iter().all(|part| is_kept(state, part)),
        ),
        Property::always(
            "P11 a forced promotion gives up only what it names",
            |_, state| is_free(state, bad::FORCED),
        ),
    ]
}

fn reached() -> Vec<Property<Settings>> {
    vec![
        Property::sometimes("L1 failover: B commits", |_, state: &State| {
            let by_b = |committers: &Committers| (2..SLOTS).any(|at| committers.get(at) == Some(1));
            state.committers.0.iter().any(by_b)
        }),
        Property::sometimes("L2 failback: A commits after B did", |_, state: &State| {
            state.committers.0.iter().any(has_failback)
        }),
        Property::sometimes(
            "L3 reintegration of the lead part, then a commit",
            |_, state| has_reintegration(state),
        ),
        Property::sometimes("L4 swap: B commits in MIRROR", |_, state| {
            was_seen(state, seen::SWAPPED_COMMIT)
        }),
        Property::sometimes("L5 tail truncated", |_, state| {
            was_seen(state, seen::TRUNCATE)
        }),
        Property::sometimes("L6 secondary read served", |_, state| {
            was_seen(state, seen::READ_AT_SECOND)
        }),
        Property::sometimes("L7 mirror read served", |_, state| {
            was_seen(state, seen::MIRROR_READ)
        }),
        Property::sometimes("L8 joint commit while an ADD is in doubt", |_, state| {
            was_seen(state, seen::JOINT)
        }),
        Property::sometimes("L9 restarted primary pulled a tail", |_, state| {
            was_seen(state, seen::PULL)
        }),
        Property::sometimes(
            "L10 arbiter moved, commit under the new one",
            |settings: &Settings, state: &State| {
                let moved =
                    |committers: &Committers| (11..20).any(|at| committers.get(at).is_some());
                !settings.arbiter_moves || state.committers.0.iter().any(moved)
            },
        ),
        Property::sometimes("L11 lead-only takeover: part away", |_, state: &State| {
            state.register.windows(2).any(|pair| {
                pair[0].primary != pair[1].primary
                    && pair[1].in_sync[OTHER] == bit(pair[0].primary)
                    && pair[1].in_sync[LEAD] == bit(pair[1].primary)
            })
        }),
        Property::sometimes(
            "L12 swap back: part that was away commits again",
            |_, state| was_seen(state, seen::BACK),
        ),
        Property::sometimes(
            "L13 deposed primary commits in a part it alone holds",
            |_, state| was_seen(state, seen::DEPOSED),
        ),
        Property::sometimes(
            "L14 joint commit in the other part while its ADD is in doubt",
            |_, state| was_seen(state, seen::JOINT_OTHER),
        ),
        Property::sometimes("L15 read at a node that is not in sync", |_, state| {
            was_seen(state, seen::READ_OUT_OF_SYNC)
        }),
        Property::sometimes(
            "L16 other part added, then a commit in it in MIRROR",
            |_, state: &State| {
                state.register.windows(2).any(|pair| {
                    pair[0].in_sync[OTHER] != BOTH
                        && pair[1].in_sync[OTHER] == BOTH
                        && state.committers[OTHER].get(pair[1].slot()).is_some()
                })
            },
        ),
    ]
}

fn reached_with_snapshots() -> Vec<Property<Settings>> {
    vec![
        Property::sometimes("L17 log cut", |_, state| was_seen(state, seen::CUT)),
        Property::sometimes("L18 snapshot installed", |_, state| {
            was_seen(state, seen::INSTALL)
        }),
        Property::sometimes("L19 snapshot installed in place", |_, state| {
            was_seen(state, seen::INSTALL_IN_PLACE)
        }),
        Property::sometimes("L20 node added after it got a snapshot", |_, state| {
            was_seen(state, seen::ADD_AFTER_INSTALL)
        }),
    ]
}

fn reached_with_force() -> Vec<Property<Settings>> {
    vec![
        Property::sometimes("L21 forced promotion gave up acked entries", |_, state| {
            was_seen(state, seen::FORCE_LOST | seen::FORCE_PART)
        }),
        Property::sometimes(
            "L22 losing side in quarantine, and MIRROR again",
            |_, state: &State| {
                let again = state.top().origin != 0 && state.top().in_sync[LEAD] == BOTH;
                was_seen(state, seen::QUARANTINE) && again
            },
        ),
        Property::sometimes("L23 twins stopped", |settings: &Settings, state: &State| {
            settings.force == Force::AtWitness || settings.forces < 2 || was_seen(state, seen::TWIN)
        }),
        Property::sometimes(
            "L24 stopped as diverged, then discarded by the operator",
            |_, state| was_seen(state, seen::REJOIN),
        ),
    ]
}

fn reached_with_rollback() -> Vec<Property<Settings>> {
    vec![
        Property::sometimes("L25 witness noticed that it went back", |_, state| {
            was_seen(state, seen::REGRESSED)
        }),
        Property::sometimes(
            "L26 moved away from it, then a commit",
            |_, state: &State| {
                let moved =
                    |committers: &Committers| (11..20).any(|at| committers.get(at).is_some());
                state.committers.0.iter().any(moved)
            },
        ),
        Property::sometimes("L27 a rollback nobody knew more than", |_, state| {
            was_seen(state, seen::PROBATION_PASSED)
        }),
    ]
}

fn recovers() -> Vec<Property<Settings>> {
    vec![
        Property::always(
            "R1 both nodes and W heal: all parts served",
            |settings: &Settings, state: &State| settings.recovers(state, BOTH, true, BOTH),
        ),
        Property::always(
            "R2 both nodes without W: the lead served",
            |settings: &Settings, state: &State| settings.recovers(state, BOTH, false, bit(LEAD)),
        ),
        Property::always(
            "R3 any one node in sync for the lead and W: its parts served",
            |settings: &Settings, state: &State| {
                let top = state.top();
                NODES.into_iter().all(|id| {
                    let parts = bit(LEAD) | u8::from(top.has(id, OTHER)) << OTHER;
                    !top.has(id, LEAD)
                        || (settings.without_takeover && top.primary != id)
                        || settings.recovers(state, bit(id), true, parts)
                })
            },
        ),
    ]
}

fn is_free(state: &State, of: u8) -> bool {
    state.bad & of == 0
}

fn was_seen(state: &State, what: u32) -> bool {
    state.seen & what != 0
}

fn has_shape(config: &Config) -> bool {
    let mirror_only_with_lead = config.in_sync[OTHER] != BOTH || config.in_sync[LEAD] == BOTH;
    let none_empty = config.in_sync.0.iter().all(|set| *set != 0);
    config.has(config.primary, LEAD) && none_empty && mirror_only_with_lead
}

fn holds_exposed(state: &State) -> bool {
    let top = state.top();
    let two_lines = has_twins(state)
        || NODES.into_iter().any(|id| {
            let own = state.nodes[id].config;
            generation(own.epoch) == generation(top.epoch) && own.origin != top.origin
        });
    two_lines
        || PARTS.into_iter().all(|part| {
            NODES.into_iter().all(|id| {
                let exposed = state.history_of(part, top.origin);
                !top.has(id, part) || exposed.is_prefix_of(&state.nodes[id].on_disk(part))
            })
        })
}

fn logs_match(state: &State, part: u8) -> bool {
    let (a, b) = (&state.nodes[0].log[part], &state.nodes[1].log[part]);
    let mut same = true;
    for (one, two) in a.entries().iter().zip(b.entries()) {
        if one.term() == two.term() && (one.id != two.id || !same) {
            return false;
        }
        same &= one == two;
    }
    true
}

fn is_kept(state: &State, part: u8) -> bool {
    let kept = state.nodes.0.iter().fold(0, |ids, node| {
        ids | node.on_disk(part).ids() | node.quarantine[part]
    });
    state.acked[part] & !kept == 0
}

fn has_twins(state: &State) -> bool {
    let (a, b) = (&state.nodes[0].config, &state.nodes[1].config);
    a.epoch == b.epoch && a != b
}

fn has_failback(committers: &Committers) -> bool {
    let first = (0..SLOTS).find(|at| committers.get(*at) == Some(1));
    first.is_some_and(|first| (first..SLOTS).any(|at| committers.get(at) == Some(0)))
}

fn has_reintegration(state: &State) -> bool {
    let added = |config: &&Config| {
        let before = |old: &Config| old.epoch + 1 == config.epoch && old.in_sync[LEAD] != BOTH;
        config.epoch >= 3 && config.in_sync[LEAD] == BOTH && state.register.iter().any(before)
    };
    let committed = |config: &Config| {
        let mut parts = state.committers.0.iter();
        parts.any(|committers| committers.get(config.slot()).is_some())
    };
    state.register.iter().filter(added).any(committed)
}
