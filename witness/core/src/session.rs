//! What the witness knows of a node by its session.

use std::collections::{BTreeMap, BTreeSet};

use kine2_replication::{MEMBERS_MAX, PartName, Report, UnitName};

use crate::register::REGISTERS_MAX;

/// Sessions kept at most: of all nodes that registers can name, and some more.
pub(crate) const SESSIONS_MAX: usize = REGISTERS_MAX * MEMBERS_MAX + 64;

/// The open session of one node; it carries all its units.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// The last report for each unit.
    pub(crate) reports: BTreeMap<UnitName, Report>,
    /// Parts of which the node had not all that was known to be final when it reported (`repl I4`).
    pub(crate) lacking: BTreeMap<UnitName, BTreeSet<PartName>>,
}
