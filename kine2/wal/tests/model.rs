//! Any sequence of uses, restarts between them, against a plain list of entries.

mod support;

use bytes::Bytes;
use kine2_wal::fake::FakeDisk;
use kine2_wal::{LogIndex, Term, WalError};
use proptest::prelude::*;
use support::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        new_term: bool,
        bytes: u64,
    },
    Sync,
    HardState(u64),
    /// In thousandths of the log kept.
    Truncate(u64),
    Cut(u64),
    Prepare,
    Mark,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), 0..30_000_u64)
            .prop_map(|(new_term, bytes)| Step::Append { new_term, bytes }),
        3 => Just(Step::Sync),
        2 => (0..16_384_u64).prop_map(Step::HardState),
        1 => (0..=1000_u64).prop_map(Step::Truncate),
        1 => (0..=1000_u64).prop_map(Step::Cut),
        1 => Just(Step::Prepare),
        1 => Just(Step::Mark),
        1 => Just(Step::Reopen),
    ]
}

/// What was written: the entries from index 1 on, however many are cut.
#[derive(Debug, Default)]
struct Model {
    entries: Vec<(Term, Vec<u8>)>,
    hard_state: Option<Bytes>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_log_is_a_list(steps in proptest::collection::vec(step(), 1..60)) {
        let disk = FakeDisk::new();
        let mut wal = open(&disk).0;
        let mut model = Model::default();
        for (number, step) in (0_u64..).zip(steps) {
            let base = wal.base().index.0;
            let part = |thousandths: u64| base + (wal.last_index().0 - base) * thousandths / 1000;
            match step {
                Step::Append { new_term, bytes } => {
                    let last = model.entries.last().map_or_else(|| term(1), |(term, _)| *term);
                    let term = Term { run: last.run + u32::from(new_term), ..last };
                    wal.append(term, &payload(number, bytes)).unwrap();
                    model.entries.push((term, payload(number, bytes)));
                }
                Step::HardState(bytes) => {
                    let hard_state = Bytes::from(payload(number, bytes));
                    wal.set_hard_state(hard_state.clone()).unwrap();
                    model.hard_state = Some(hard_state);
                }
                Step::Truncate(thousandths) => {
                    let to = part(thousandths);
                    wal.truncate_after(LogIndex(to)).unwrap();
                    model.entries.truncate(usize::try_from(to).unwrap());
                }
                Step::Cut(thousandths) => {
                    let keep = part(thousandths) + 1;
                    wal.cut_below(LogIndex(keep)).unwrap();
                    prop_assert!(wal.first_index().0 <= keep);
                }
                Step::Sync => wal.sync().unwrap(),
                Step::Prepare => drop(wal.prepare_next().unwrap()),
                Step::Mark => wal.mark().unwrap(),
                Step::Reopen => {
                    wal.sync().unwrap();
                    let before = (wal.base(), wal.last());
                    let (reopened, recovery) = open(&disk);
                    wal = reopened;
                    prop_assert_eq!((recovery.base, recovery.last), before);
                    prop_assert_eq!(&recovery.hard_state, &model.hard_state);
                    prop_assert_eq!(recovery.torn_tail, None);
                }
            }
            prop_assert_eq!(wal.last_index().0, model.entries.len() as u64);
            prop_assert_eq!(wal.hard_state(), model.hard_state.as_ref());
            prop_assert!(wal.durable_index() <= wal.last_index());
            if wal.staged_bytes() == 0 {
                prop_assert_eq!(wal.durable_index(), wal.last_index());
            }
            check(&wal, &model)?;
        }
    }
}

fn check(wal: &kine2_wal::Wal<FakeDisk>, model: &Model) -> Result<(), TestCaseError> {
    let entries = all_entries(wal);
    assert_chained(wal, &entries);
    let first = wal.first_index().0;
    prop_assert_eq!(entries.len() as u64, wal.durable_index().0 + 1 - first);
    for entry in &entries {
        let index = entry.position.index;
        let (term, payload) = &model.entries[usize::try_from(index.0).expect("few") - 1];
        prop_assert_eq!(
            (&entry.position.term, &entry.payload[..]),
            (term, &payload[..])
        );
        prop_assert_eq!(wal.term_at(index), Some(*term));
    }
    for entry in entries.iter().step_by(7) {
        prop_assert_eq!(
            wal.position_at(entry.position.index).ok().map(|p| p.chain),
            Some(entry.position.chain)
        );
    }
    let beyond = wal.position_at(LogIndex(wal.durable_index().0 + 1));
    assert!(matches!(beyond, Err(WalError::Beyond { .. })), "{beyond:?}");
    Ok(())
}
