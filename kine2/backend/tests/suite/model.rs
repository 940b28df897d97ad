//! What can be read is what a simple model holds.

use bytes::Bytes;
use kine2_mvcc::{Change, ChangeId, KeyRange, KeyValue, LogPosition, Record, Revision, StateBatch};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::common::{Random, Sizes, Workload};
use crate::{Kind, Subject};

pub(crate) fn all_keys() -> KeyRange {
    KeyRange::from_wire(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"))
}

/// A batch that puts values of these lengths, one a revision, on top of the subject.
fn puts(subject: &Subject, values: &[usize]) -> StateBatch {
    let held = &subject.model().held;
    let mut random = Random(held.applied.index);
    let mut batch = StateBatch {
        applied: LogPosition {
            index: held.applied.index + 1,
            ..held.applied
        },
        revision: held.revision,
        ..StateBatch::default()
    };
    for len in values {
        batch.revision = batch.revision.next();
        let main = batch.revision.0;
        let key = format!("key {}", main % 10);
        let record = KeyValue {
            key: key.as_bytes(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: &random.bytes(*len),
            lease: 0,
        };
        batch.changes.push(Change {
            id: ChangeId::first_of(batch.revision),
            record: record.to_record(),
        });
    }
    batch
}

fn removal(subject: &Subject, removed: Vec<ChangeId>) -> StateBatch {
    StateBatch {
        removed,
        ..puts(subject, &[])
    }
}

pub(crate) fn fresh_state_is_empty(kind: Kind) {
    let mut subject = Subject::new(kind);
    subject.check();
    subject.checkpoint();
    subject.restart();
    assert_eq!(subject.backend().held().unwrap().revision, Revision::FRESH);
    subject
        .model()
        .check_history(subject.backend(), &all_keys(), (0, 100), 10);
}

#[derive(Clone, Debug)]
enum Step {
    Apply { changes_max: usize, compact: bool },
    Checkpoint,
    Restart,
    Defragment,
    History { from: i64, until: i64, limit: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (prop_oneof![Just(0usize), Just(3), Just(40), Just(200)], any::<bool>())
            .prop_map(|(changes_max, compact)| Step::Apply { changes_max, compact }),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::Defragment),
        2 => (0i64..400, 0i64..800, prop_oneof![Just(0usize), 0usize..5_000, Just(1 << 20)])
            .prop_map(|(from, until, limit)| Step::History { from, until, limit }),
    ]
}

pub(crate) fn random_batches_read_as_the_model_says(kind: Kind) {
    let cases = std::env::var("BACKEND_MODEL_CASES").map_or(12, |n| n.parse().unwrap());
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    };
    let sizes = prop_oneof![
        Just(Sizes::Small),
        Just(Sizes::Mixed),
        Just(Sizes::Kilobyte)
    ];
    let runs = (
        any::<u64>(),
        sizes,
        proptest::collection::vec(step(), 1..40),
    );
    TestRunner::new(config)
        .run(&runs, |(seed, sizes, steps)| {
            run_steps(kind, seed, sizes, &steps);
            Ok(())
        })
        .unwrap();
}

fn run_steps(kind: Kind, seed: u64, sizes: Sizes, steps: &[Step]) {
    let mut subject = Subject::new(kind);
    let mut workload = Workload::new(seed, sizes, 60);
    let mut at_batch = vec![workload.clone()];
    for step in steps {
        match *step {
            Step::Apply {
                changes_max,
                compact,
            } => {
                let batch = workload.batch(changes_max, if compact { 100 } else { 0 });
                subject.apply(&batch);
                at_batch.push(workload.clone());
            }
            Step::Checkpoint => subject.checkpoint(),
            Step::Defragment => {
                subject.backend().defragment().unwrap();
                subject.check();
            }
            Step::Restart => {
                subject.restart();
                let index = usize::try_from(subject.model().held.applied.index).unwrap();
                at_batch.truncate(index + 1);
                workload = at_batch[index].clone();
            }
            Step::History { from, until, limit } => {
                let range = KeyRange::from_wire(
                    Bytes::from_static(b"/registry/things/00010"),
                    Bytes::from_static(b"/registry/things/00030"),
                );
                let model = subject.model();
                for range in [range, all_keys()] {
                    model.check_history(subject.backend(), &range, (from, until), limit);
                }
            }
        }
    }
    subject.check();
    subject.checkpoint();
    subject.restart();
}

pub(crate) fn one_change_a_batch(kind: Kind) {
    let mut subject = Subject::new(kind);
    for _ in 0..100 {
        let batch = puts(&subject, &[700]);
        subject.apply(&batch);
    }
    subject.check();
    subject.checkpoint();
    let used = subject.backend().stats().unwrap().used_bytes;
    assert!(used < 100 * 900, "small batches share blocks: {used} bytes");
    subject.restart();
    let batch = puts(&subject, &[700; 3]);
    subject.apply(&batch);
    subject.check();
}

pub(crate) fn big_records(kind: Kind) {
    let mut subject = Subject::new(kind);
    let batch = puts(
        &subject,
        &[10, 1_500_000, 16_000, 400, 16_400, 1_500_000, 3],
    );
    subject.apply(&batch);
    let batch = puts(&subject, &[5, 8 << 20]);
    subject.apply(&batch);
    subject.check();
    subject.checkpoint();
    subject.restart();
    let removed = removal(&subject, batch.changes.iter().map(|c| c.id).collect());
    subject.apply(&removed);
    subject.check();
    subject
        .model()
        .check_history(subject.backend(), &all_keys(), (0, 100), 20_000);
}

pub(crate) fn many_small_records(kind: Kind) {
    let mut subject = Subject::new(kind);
    for _ in 0..2 {
        let batch = puts(&subject, &[1; 4_000]);
        subject.apply(&batch);
    }
    subject.checkpoint();
    subject.restart();
    let every_third = subject.model().records.keys().copied().step_by(3).collect();
    let removed = removal(&subject, every_third);
    subject.apply(&removed);
    subject.check();
}

pub(crate) fn compaction_frees_space(kind: Kind) {
    let mut subject = Subject::new(kind);
    for _ in 0..10 {
        let batch = puts(&subject, &[1_000; 300]);
        subject.apply(&batch);
    }
    let before = subject.backend().stats().unwrap().used_bytes;
    // In slices, as compaction does it: 19 of 20 go.
    let ids: Vec<ChangeId> = subject.model().records.keys().copied().collect();
    let dead: Vec<ChangeId> = (0..)
        .zip(&ids)
        .filter(|(n, _)| n % 20 != 7)
        .map(|(_, id)| *id)
        .collect();
    for slice in dead.chunks(200) {
        let removed = removal(&subject, slice.to_vec());
        subject.apply(&removed);
    }
    subject.check();
    let after = subject.backend().stats().unwrap().used_bytes;
    assert!(after < before / 12, "{after} of {before} bytes are left");
    subject.checkpoint();
    subject.restart();
    // All the rest, the last block as well, and then something new.
    let removed = removal(&subject, subject.model().records.keys().copied().collect());
    subject.apply(&removed);
    subject.check();
    let batch = puts(&subject, &[9; 3]);
    subject.apply(&batch);
    subject.check();
}

pub(crate) fn removing_what_is_not_there_does_nothing(kind: Kind) {
    let mut subject = Subject::new(kind);
    let absent = |main| ChangeId {
        main: Revision(main),
        sub: 9,
    };
    let removed = removal(&subject, vec![absent(1), absent(5)]);
    subject.apply(&removed);
    let batch = puts(&subject, &[100; 40]);
    subject.apply(&batch);
    let removed = removal(
        &subject,
        vec![absent(1), absent(5), absent(20), absent(900)],
    );
    subject.apply(&removed);
    subject.check();
}

pub(crate) fn a_change_added_and_removed_in_one_batch_never_shows(kind: Kind) {
    let mut subject = Subject::new(kind);
    let batch = puts(&subject, &[1_000; 20]);
    subject.apply(&batch);
    let mut batch = puts(&subject, &[1_000; 30]);
    let earlier = subject.model().records.keys().copied();
    // Two compactions that were joined: not ascending as a whole.
    batch.removed = batch.changes[3..20].iter().map(|c| c.id).collect();
    batch.removed.extend(earlier.skip(5));
    subject.apply(&batch);
    subject.check();
    subject.checkpoint();
    subject.restart();
}

pub(crate) fn history_pages_are_whole_transactions(kind: Kind) {
    let mut subject = Subject::new(kind);
    let mut workload = Workload::new(11, Sizes::Mixed, 30);
    for _ in 0..20 {
        let batch = workload.batch(60, 0);
        subject.apply(&batch);
    }
    let end = subject.model().held.revision.0 + 1;
    let one = KeyRange::single(Bytes::from_static(b"/registry/things/00007"));
    for limit in [0, 1, 1_000, 30_000, usize::MAX] {
        for (from, until) in [(0, end), (end / 2, end), (end / 3, end / 2), (end, 2 * end)] {
            for range in [&one, &all_keys()] {
                subject
                    .model()
                    .check_history(subject.backend(), range, (from, until), limit);
            }
        }
    }
}

pub(crate) fn history_of_a_rare_key_comes_in_bounded_steps(kind: Kind) {
    let mut subject = Subject::new(kind);
    let batch = puts(&subject, &[1; 25_000]);
    subject.apply(&batch);
    let nobody = KeyRange::single(Bytes::from_static(b"nobody"));
    let page = subject
        .backend()
        .history(&nobody, Revision(0), Revision(i64::MAX), 1 << 20)
        .unwrap();
    assert!(page.changes.is_empty() && page.next.is_some());
    subject
        .model()
        .check_history(subject.backend(), &nobody, (0, i64::MAX), 1 << 20);
}

pub(crate) fn cells_are_set_and_deleted(kind: Kind) {
    let mut subject = Subject::new(kind);
    let set = |subject: &Subject, cells: &[(&'static str, Option<&'static str>)]| StateBatch {
        cells: cells
            .iter()
            .map(|(name, value)| (Bytes::from(*name), value.map(Bytes::from)))
            .collect(),
        ..puts(subject, &[])
    };
    let batch = set(
        &subject,
        &[
            ("a", Some("1")),
            ("b", Some("")),
            ("", Some("x")),
            ("z", None),
        ],
    );
    subject.apply(&batch);
    subject.check();
    let batch = set(
        &subject,
        &[("a", Some("2")), ("b", None), ("\u{7f}", Some("3"))],
    );
    subject.apply(&batch);
    subject.check();
    subject.checkpoint();
    subject.restart();
    assert_eq!(subject.backend().held().unwrap().cells.len(), 3);
}

pub(crate) fn defragment_changes_nothing_that_is_read(kind: Kind) {
    let mut subject = Subject::new(kind);
    let mut workload = Workload::new(3, Sizes::Kilobyte, 500);
    for _ in 0..10 {
        let batch = workload.batch(900, 0);
        subject.apply(&batch);
    }
    let removed = removal(
        &subject,
        subject.model().records.keys().copied().skip(50).collect(),
    );
    subject.apply(&removed);
    subject.checkpoint();
    let before = subject.backend().stats().unwrap().file_bytes;
    subject.backend().defragment().unwrap();
    subject.check();
    let after = subject.backend().stats().unwrap().file_bytes;
    if kind == Kind::Disk(kine2_backend::EngineKind::Redb) {
        assert!(after < before / 4, "{after} of {before}");
    }
    let batch = puts(&subject, &[100; 50]);
    subject.apply(&batch);
    subject.checkpoint();
    subject.restart();
}

/// Records with extreme fields, to which the directory must be true.
#[test]
fn extreme_fields_come_back() {
    for kind in Kind::all() {
        let mut subject = Subject::new(kind);
        let mut batch = puts(&subject, &[]);
        batch.revision = Revision(i64::MAX - 1);
        for (sub, lease) in [(0, i64::MIN), (7, -1), (u32::MAX - 1, i64::MAX)] {
            let record = KeyValue {
                key: &[0xff; 3_000],
                create_revision: 1,
                mod_revision: batch.revision.0,
                version: i64::MAX,
                value: b"",
                lease,
            };
            let id = ChangeId {
                main: batch.revision,
                sub,
            };
            batch.changes.push(Change {
                id,
                record: record.to_record(),
            });
        }
        batch.changes.insert(
            0,
            Change {
                id: ChangeId::first_of(Revision(2)),
                record: Record::tombstone(b"k", 2),
            },
        );
        subject.apply(&batch);
        subject.check();
        subject.checkpoint();
        subject.restart();
    }
}

/// A quota counts what is stored, not how far the engine has stretched its file ahead.
#[test]
fn the_size_is_near_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let backend = kine2_backend::open(dir.path(), &kine2_backend::Options::default()).unwrap();
    let value = [7; 1_000];
    let mut batch = StateBatch {
        revision: Revision::FRESH,
        ..StateBatch::default()
    };
    // The engine's file has doubled shortly before the end.
    for index in 1..=150 {
        batch.applied.index = index;
        batch.changes.clear();
        for _ in 0..250 {
            batch.revision = batch.revision.next();
            let record = KeyValue {
                key: b"key",
                create_revision: 2,
                mod_revision: batch.revision.0,
                version: batch.revision.0 - 1,
                value: &value,
                lease: 0,
            };
            batch.changes.push(Change {
                id: ChangeId::first_of(batch.revision),
                record: record.to_record(),
            });
        }
        backend.apply(&batch).unwrap();
        let size = backend.stats().unwrap();
        assert!(size.used_bytes <= size.file_bytes, "{size:?}");
    }
    backend.checkpoint().unwrap();
    let size = backend.stats().unwrap();
    assert!(size.used_bytes > 36 << 20, "{size:?}");
    assert!(size.file_bytes < size.used_bytes / 2 * 3, "{size:?}");
}
