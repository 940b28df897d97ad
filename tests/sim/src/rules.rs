//! Each rule of the protocol and each row of its failure table, and what reaches it.
//!
//! The rules are those of the design; [`RULES`] and [`ROWS`] name a mark of [`coverage`], a row
//! of [`downtime`] or say why there is none here and what does it instead.
//!
//! [`coverage`]: crate::coverage
//! [`downtime`]: crate::downtime

/// How a rule or a row is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// These marks are reached by the seeds that CI runs.
    Marks(&'static [&'static str]),
    /// These rows of [`downtime::ROWS`](crate::downtime::ROWS) are played.
    Rows(&'static [&'static str]),
    /// Not by whole nodes with one part: this does it, or it is not built.
    Elsewhere(&'static str),
}

use Reach::{Elsewhere, Marks, Rows};

/// Two parts, which only the simulator of the replication core has.
const PARTS: Reach = Elsewhere("two parts: kine2/replication/tests/simulation.rs");

/// Each rule.
pub const RULES: &[(&str, Reach)] = &[
    (
        "S1",
        Elsewhere("the way of requests between nodes is the runtime's; R3 is reached"),
    ),
    (
        "S2",
        Marks(&[
            "K2: asked where it is not served",
            "client: sent to the other node",
        ]),
    ),
    (
        "S3",
        Marks(&["S3: watches ended with the service", "watch: resumed"]),
    ),
    ("S4", Elsewhere("addresses are not built")),
    (
        "S5",
        Marks(&[
            "operator: stop",
            "operator: stop by force",
            "operator: start",
        ]),
    ),
    ("S6", Elsewhere("decided outside of the unit")),
    ("C1", Marks(&["config: REMOVE", "config: MOVE"])),
    ("C2", Marks(&["C2: a change that came too late"])),
    (
        "C3",
        Marks(&[
            "C3: told by the witness",
            "C3: an old register proves nothing",
        ]),
    ),
    ("C4", Marks(&["C4: a configuration lost with the power"])),
    ("C5", Marks(&["C5: a configuration told by the peer"])),
    ("K1", PARTS),
    ("K2", Marks(&["K2: asked where it is not served"])),
    ("K3", PARTS),
    ("K4", Marks(&["config: ADD"])),
    ("K5", PARTS),
    (
        "K6",
        Marks(&["disk: wiped", "K6: another storage added again"]),
    ),
    ("K7", PARTS),
    ("K8", Elsewhere("the mode `async` is of volume sets")),
    ("L1", Marks(&["L1: sent before it was durable"])),
    (
        "L2",
        Marks(&["L2: committed by both", "L2: committed alone"]),
    ),
    ("L3", Marks(&["L3: acknowledged"])),
    (
        "L4",
        Marks(&[
            "L4: a tail cut",
            "L4: a stream opened again after a refusal",
        ]),
    ),
    ("L5", Marks(&["L5: applied at the other node"])),
    ("L6", Marks(&["L6: a log cut"])),
    ("A1", Marks(&["A1: alone and active by itself"])),
    (
        "A2",
        Marks(&[
            "A2: active with the other node",
            "A2: the tail of the other node fetched",
        ]),
    ),
    ("A3", Marks(&["A3: active across an epoch"])),
    (
        "A4",
        Elsewhere("a read that waits cannot be told from outside; broken on purpose it is found"),
    ),
    ("A5", Marks(&["A5: a run raised in the same epoch"])),
    ("R1", Marks(&["R1: read locally"])),
    ("R2", Marks(&["R2: read after a confirmation"])),
    ("R3", Marks(&["R3: read at the other node"])),
    ("R4", Elsewhere("reads by a leader's lease are not offered")),
    ("D1", Marks(&["config: ADD"])),
    ("D2", Marks(&["D2: committed while an ADD is in doubt"])),
    ("D3", Marks(&["D3: an ADD given up"])),
    ("D4", Marks(&["D4: restarted with an ADD in doubt"])),
    (
        "I1",
        Marks(&[
            "notice: a disk failed",
            "I1: handed over with a failed disk",
        ]),
    ),
    (
        "I2",
        Marks(&[
            "disk: bits turned over, found",
            "I2: a damaged log given up",
        ]),
    ),
    (
        "I3",
        Elsewhere("installs in place are of volume sets; the store uses N4"),
    ),
    (
        "I4",
        Marks(&[
            "I4: a machine set back to an old image",
            "I4: a machine lost what it had acknowledged",
            "I4: a node knows that it was set back",
            "I4: who was set back is taken out by the other",
            "I4: who was set back is told by the witness",
        ]),
    ),
    ("N1", Marks(&["N1: a snapshot made"])),
    (
        "N2",
        Elsewhere("kine2/replication/tests/secondary.rs; here P5 holds for who is in sync"),
    ),
    (
        "N3",
        Elsewhere("kine2/replication/tests/secondary.rs, and the marks `force`"),
    ),
    ("N4", Marks(&["N4: a snapshot installed"])),
    ("N5", Marks(&["N5: an install given up half way"])),
    ("T1", Marks(&["T3: a lease expired"])),
    ("T2", Marks(&["T2: leases given their whole time"])),
    ("T3", Marks(&["T3: a lease expired"])),
    ("T4", Marks(&["T4: a lease renewed"])),
    (
        "X1",
        Marks(&["X1: an arbiter proposed", "operator: change of arbiter"]),
    ),
    ("X2", Marks(&["X1: an arbiter proposed"])),
    ("X3", Marks(&["config: MOVE"])),
    ("X4", Marks(&["X4: restarted with an arbiter proposed"])),
    ("W1", Marks(&["operator: change of arbiter"])),
    (
        "W2",
        Marks(&["W2: a node knows that the witness went back"]),
    ),
    ("W3", Marks(&["W3: a witness set back"])),
    ("W4", Marks(&["W4: refused on probation"])),
    (
        "W5",
        Marks(&["W5: taken over from a node without a session"]),
    ),
    (
        "W6",
        Marks(&[
            "W6: a takeover refused, the primary is alive",
            "W6: taken over from a node with a session",
        ]),
    ),
    (
        "force",
        Marks(&[
            "force: a loss accepted",
            "force: the other node joined by its log",
            "force: the other node keeps what it has and waits",
        ]),
    ),
    ("REC1", Marks(&["REC1: both nodes and the witness"])),
    ("REC2", Marks(&["REC2: both nodes, no witness"])),
    ("REC3", Marks(&["REC3: one node and the witness"])),
];

/// Each row of the failure table.
pub const ROWS: &[(&str, Reach)] = &[
    (
        "primary process dies",
        Rows(&[
            "primary process dies",
            "primary process dies, witness 150 ms away",
        ]),
    ),
    (
        "primary host dies or freezes",
        Rows(&[
            "primary host dies",
            "primary freezes for 15 s",
            "primary host dies, witness 150 ms away",
        ]),
    ),
    ("the same, S in sync for the lead only", PARTS),
    ("the same, P never returns", PARTS),
    (
        "S dies / is slow",
        Rows(&[
            "secondary process dies",
            "secondary host dies",
            "secondary host dies, witness 150 ms away",
            "secondary's disk hangs",
        ]),
    ),
    (
        "A-B cut, both see W",
        Rows(&["nodes cut from each other, both see the witness"]),
    ),
    (
        "A-B cut, only S sees W",
        Rows(&["nodes cut, only the secondary sees the witness"]),
    ),
    (
        "A-B cut, only P sees W; asymmetric loss",
        Rows(&[
            "nodes cut, only the primary sees the witness",
            "secondary is not heard by the primary",
            "primary is not heard by the secondary",
        ]),
    ),
    (
        "W dies, restarts, or is unreachable",
        Rows(&[
            "witness dies and restarts",
            "primary cut from the witness",
            "the witness's way is cut at both nodes",
        ]),
    ),
    (
        "W lost, then S lost / then P lost",
        Rows(&[
            "witness lost, then the secondary; the secondary is back",
            "witness lost, then the secondary; the witness is back",
            "witness lost, then the primary; the primary is back",
        ]),
    ),
    (
        "W lost while ALONE, P restarts",
        Rows(&["alone, witness lost, primary restarts"]),
    ),
    (
        "W lost with ADD(k) in doubt",
        Marks(&["D4: restarted with an ADD in doubt", "witness: crashed"]),
    ),
    (
        "both nodes power off, both return",
        Rows(&["both lose power, both return"]),
    ),
    (
        "both off, only S returns / only an outdated node",
        Rows(&["both lose power, only the secondary returns"]),
    ),
    (
        "fsync error, lead, P / S",
        Rows(&["flush fails at the primary", "flush fails at the secondary"]),
    ),
    ("fsync error, other part", PARTS),
    (
        "fsync error on an ALONE part",
        Rows(&["flush fails at a primary that is alone; restarted after 1 s"]),
    ),
    (
        "disk of one node wiped",
        Rows(&["secondary loses its disk and joins again"]),
    ),
    (
        "disk of the last in-sync node lost",
        Elsewhere("the marks `force` without its return; kine2/replication/tests/simulation.rs"),
    ),
    (
        "node reverted to an old VM snapshot",
        Marks(&["I4: a machine lost what it had acknowledged"]),
    ),
    ("W restored from backup", Marks(&["W3: a witness set back"])),
    (
        "CAS reply lost, delayed or repeated",
        Marks(&["a lost call to the witness repeated", "frame: repeated"]),
    ),
    (
        "swap / swap back / reintegration interrupted",
        Marks(&["operator: swap", "notice: a handover called off"]),
    ),
    (
        "swap",
        Rows(&[
            "swap",
            "the operator stops the primary",
            "the operator stops the secondary",
        ]),
    ),
    (
        "force promotion with the other node alive and cut off",
        Elsewhere("the transcript force-while-the-other-lives; here the other node is off"),
    ),
    (
        "no witness, stop: any node lost",
        Rows(&[
            "no witness, stop: secondary lost, and back",
            "no witness, stop: primary lost, and back",
        ]),
    ),
    (
        "no witness, prefer-primary: S lost / P lost",
        Rows(&[
            "no witness, prefer-primary: secondary lost",
            "no witness, prefer-primary: primary lost, and back",
        ]),
    ),
    (
        "no witness, ping",
        Rows(&[
            "no witness, ping: secondary lost",
            "no witness, ping: primary lost",
        ]),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{RARE, WANTED};
    use crate::downtime;

    #[test]
    fn each_rule_and_row_names_what_is_there() {
        for (what, reach) in RULES.iter().chain(ROWS) {
            match reach {
                Marks(marks) => {
                    for mark in *marks {
                        let is_there = WANTED.contains(mark) || RARE.contains(mark);
                        assert!(is_there, "{what}: no mark {mark}");
                    }
                }
                Rows(rows) => {
                    for row in *rows {
                        let is_there = downtime::ROWS.iter().any(|r| r.event == *row);
                        assert!(is_there, "{what}: no row {row}");
                    }
                }
                Elsewhere(why) => assert!(!why.is_empty(), "{what}"),
            }
        }
    }

    #[test]
    fn each_measured_row_is_of_a_row_or_an_arbiter() {
        for row in downtime::ROWS {
            let is_named = ROWS.iter().any(|(_, reach)| match reach {
                Rows(rows) => rows.contains(&row.event),
                Marks(_) | Elsewhere(_) => false,
            });
            assert!(
                is_named || row.event.contains("replaced by another"),
                "{}: of no row of the failure table",
                row.event
            );
        }
    }
}
