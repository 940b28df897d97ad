//! Cutting the log, and snapshots for a peer that needs what was cut (rules L6, N1 to N6, I3).
//!
//! The lead's state is installed beside the old one and switched to by one record. The other part, a volume set, is
//! overwritten in place: two pieces, and half-installed data between them.

use crate::message::{Message, Piece};
use crate::mutation::Mutation;
use crate::settings::Settings;
use crate::state::{BOTH, Install, LEAD, Log, Node, OTHER, State, UNKNOWN, bad, bit, other, seen};

impl Settings {
    /// L6: where the log of the part may be cut; None if nothing is gained.
    pub(crate) fn cut_point(&self, node: &Node, id: u8, part: u8) -> Option<u8> {
        let config = &node.config;
        if node.is_inconsistent(part) || (config.is_away(part) && config.has(id, part)) {
            return None;
        }
        if self.breaks(Mutation::CutUncommitted) {
            return Some(node.durable[part]).filter(|end| *end > node.base[part]);
        }
        let needs_peer = config.in_sync[part] == BOTH || node.has_pend_add(part);
        let point = if config.primary == id && needs_peer {
            match node.matched[part] {
                UNKNOWN => 0,
                known => known.min(node.commit[part]),
            }
        } else {
            node.commit[part]
        };
        Some(point).filter(|point| *point > node.base[part])
    }

    /// The log is cut; the state that replaces it is durable.
    pub(crate) fn cut(&self, state: &mut State, id: u8, part: u8, point: u8) {
        state.budget.cuts -= 1;
        state.seen |= seen::CUT;
        let node = &mut state.nodes[id];
        node.base[part] = point;
        node.commit[part] = node.commit[part].max(point);
    }

    /// N1, N2: whether the primary may send the peer a snapshot of the part.
    pub(crate) fn may_send_snapshot(&self, node: &Node, id: u8, part: u8) -> bool {
        let peer_in_sync = node.config.has(other(id), part);
        node.is_active(part)
            && node.config.primary == id
            && (!peer_in_sync || self.breaks(Mutation::SnapshotInSync))
            && node.commit[part] > 0
    }

    pub(crate) fn send_snapshot(&self, state: &mut State, id: u8, part: u8) {
        state.budget.snapshots -= 1;
        let node = state.nodes[id];
        let log = node.log[part];
        let index = if self.breaks(Mutation::SnapshotUncommitted) {
            log.len()
        } else {
            node.commit[part]
        };
        let install = Install {
            sender: id,
            index,
            term: log.at(index).term(),
        };
        let pieces: &[Piece] = if part == LEAD {
            &[Piece::Whole]
        } else {
            &[Piece::First, Piece::Last]
        };
        for piece in pieces {
            state.send(Message::Snapshot {
                to: other(id),
                config: node.config,
                run: node.run,
                part,
                install,
                log,
                piece: *piece,
            });
        }
    }

    pub(crate) fn on_snapshot(&self, state: &mut State, message: Message) {
        let Message::Snapshot {
            to,
            config,
            run,
            part,
            install,
            log,
            piece,
        } = message
        else {
            return;
        };
        if !self.accepts(state, to, config) {
            return;
        }
        let node = &mut state.nodes[to];
        if node.config.primary == to || run < node.run {
            return;
        }
        node.run = run;
        let node = *node;
        if node.config.has(to, part) && !self.breaks(Mutation::SnapshotInSync) {
            return;
        }
        if piece == Piece::Last {
            self.finish_in_place(state, to, part, install, &log);
            return;
        }
        if !node.is_inconsistent(part) && !self.may_replace(state, to, part, install, &log) {
            return;
        }
        if piece == Piece::Whole {
            self.install(state, to, part, install, &log);
        } else {
            self.begin_in_place(state, to, part, install);
        }
    }

    /// N3, N6: whether what the node has may give way to the snapshot.
    fn may_replace(
        &self,
        state: &mut State,
        to: u8,
        part: u8,
        install: Install,
        log: &Log,
    ) -> bool {
        let node = &state.nodes[to];
        let own = &node.log[part];
        let holds = node.base[part] >= install.index
            || (own.len() >= install.index && own.at(install.index).term() == install.term);
        if holds && node.suspect & bit(part) == 0 && !self.breaks(Mutation::SnapshotOverHeld) {
            return false;
        }
        if self.breaks(Mutation::SnapshotOverDiverged) {
            state.nodes[to].suspect &= !bit(part);
            return true;
        }
        if !self.settle_divergence(state, to, part, log) {
            return false;
        }
        let node = &state.nodes[to];
        let own = &node.log[part];
        let common = own.common(log);
        let at = own.len().min(install.index);
        let differs = if self.breaks(Mutation::SnapshotTailStops) {
            common < at
        } else {
            common < node.commit[part]
        };
        if differs {
            state.bad |= bad::STOPPED;
        }
        !differs
    }

    /// N4: the new state, the log empty behind it, and an ack of all that.
    fn install(&self, state: &mut State, to: u8, part: u8, install: Install, log: &Log) {
        let kept = state.nodes[to].log[part].common(&log.first(install.index));
        if kept < state.nodes[to].commit[part] && !state.nodes[to].is_inconsistent(part) {
            state.bad |= bad::TRUNCATED;
        }
        let node = &mut state.nodes[to];
        node.log[part] = log.first(install.index);
        node.durable[part] = install.index;
        node.base[part] = install.index;
        node.commit[part] = install.index;
        node.inconsistent &= !bit(part);
        node.garbage &= !bit(part);
        node.install = node.install.filter(|_| part == LEAD);
        let (epoch, run) = (node.config.epoch, node.run);
        state.seen |= seen::INSTALL;
        self.expose(state, to, part, install.index);
        state.send(Message::Ack {
            to: other(to),
            epoch,
            run,
            part,
            index: install.index,
        });
    }

    /// I3: marked half installed before the first byte.
    fn begin_in_place(&self, state: &mut State, to: u8, part: u8, install: Install) {
        let node = &mut state.nodes[to];
        node.inconsistent |= bit(part);
        node.install = Some(install);
        node.garbage |= bit(part);
        node.commit[part] = 0;
    }

    /// N5: the end belongs to the beginning, or it is not for us.
    fn finish_in_place(&self, state: &mut State, to: u8, part: u8, install: Install, log: &Log) {
        let node = &state.nodes[to];
        if !node.is_inconsistent(part) {
            return;
        }
        if node.install == Some(install) {
            state.seen |= seen::INSTALL_IN_PLACE;
            self.install(state, to, part, install, log);
        } else if self.breaks(Mutation::InstallMixed) {
            self.install(state, to, part, install, log);
            state.nodes[to].garbage |= bit(part);
        }
    }

    /// What of cut logs and half-installed data a restart finds.
    pub(crate) fn restart_snapshots(&self, node: &mut Node) {
        for part in [LEAD, OTHER] {
            node.commit[part] = node.commit[part].max(node.base[part]);
            if self.breaks(Mutation::CutBeforeCheckpoint) && node.base[part] > 0 {
                node.log[part].truncate(0);
                node.durable[part] = 0;
                node.base[part] = 0;
                node.commit[part] = 0;
            }
        }
        if self.breaks(Mutation::InconsistentVolatile) {
            node.inconsistent = 0;
            node.install = None;
        }
    }
}
