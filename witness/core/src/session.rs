//! What the witness knows of a node by its session.

use std::collections::BTreeMap;

use kine2_replication::{Report, UnitName};

/// The open session of one node; it carries all its units.
#[derive(Clone, Debug, Default)]
pub(crate) struct Session {
    /// The last report for each unit.
    pub(crate) reports: BTreeMap<UnitName, Report>,
}
