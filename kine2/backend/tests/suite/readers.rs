//! Readers beside the writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kine2_mvcc::{ChangeId, Revision};

use crate::common::{Random, Sizes, Workload};
use crate::model::all_keys;
use crate::{Kind, Subject};

/// Two readers check every answer against what the model of the time before and after allows,
/// while batches, compactions and checkpoints go on.
pub(crate) fn readers_see_whole_states_while_the_writer_works(kind: Kind) {
    let mut workload = Workload::new(5, Sizes::Kilobyte, 200);
    let subject = Subject::new(kind);
    let backend = subject.shared();
    // Every record there ever is, by id: what is read must be one of them or nothing.
    let mut planned = workload.clone();
    let mut all = std::collections::BTreeMap::new();
    for _ in 0..60 {
        let batch = planned.batch(150, 40);
        all.extend(batch.changes.into_iter().map(|c| (c.id, c.record)));
    }
    let (done, applied) = (AtomicBool::new(false), AtomicU64::new(1));
    let (all, done, applied) = (&all, &done, &applied);
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            let backend = &backend;
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut reads = 0;
                while !done.load(Ordering::Acquire) || reads < 100 {
                    reads += 1;
                    let newest = i64::try_from(applied.load(Ordering::Acquire)).unwrap();
                    let main = Revision(
                        1 + i64::try_from(random.below(1 + usize::try_from(newest).unwrap()))
                            .unwrap(),
                    );
                    let id = ChangeId::first_of(main);
                    if let Some(record) = backend.get(id).unwrap() {
                        assert_eq!(Some(&record), all.get(&id), "{id}");
                    }
                    let page = backend
                        .history(&all_keys(), main, Revision(newest + 1), 20_000)
                        .unwrap();
                    for change in page.changes {
                        assert_eq!(Some(&change.record), all.get(&change.id), "{}", change.id);
                    }
                    if reads % 16 == 0 {
                        // A state of one batch: its metas agree with its head, or it is an error.
                        let mut last = ChangeId::default();
                        backend
                            .metas(&mut |meta| {
                                assert!(meta.id > last);
                                last = meta.id;
                            })
                            .unwrap();
                    }
                }
            });
        }
        for n in 0..60 {
            let batch = workload.batch(150, 40);
            backend.apply(&batch).unwrap();
            applied.store(batch.revision.0.unsigned_abs(), Ordering::Release);
            if n % 7 == 0 {
                backend.checkpoint().unwrap();
            }
            if n == 40 {
                backend.defragment().unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
    workload.model.check(&*backend);
}

/// A point read takes its usual time while a checkpoint syncs.
#[test]
fn reads_do_not_wait_for_a_checkpoint() {
    let subject = Subject::new(Kind::Disk(kine2_backend::EngineKind::Redb));
    let backend = subject.shared();
    let mut workload = Workload::new(9, Sizes::Kilobyte, 5_000);
    let (mut longest_checkpoint, mut slow_reads, mut reads) = (Duration::ZERO, 0, 0);
    for _ in 0..5 {
        for _ in 0..10 {
            backend.apply(&workload.batch(1_000, 0)).unwrap();
        }
        let ids: Vec<ChangeId> = workload.model.records.keys().copied().collect();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let checkpoint = scope.spawn(|| {
                let begun = Instant::now();
                backend.checkpoint().unwrap();
                done.store(true, Ordering::Release);
                begun.elapsed()
            });
            let mut random = Random(1);
            let mut longest_read = Duration::ZERO;
            while !done.load(Ordering::Acquire) {
                let begun = Instant::now();
                backend.get(ids[random.below(ids.len())]).unwrap().unwrap();
                longest_read = longest_read.max(begun.elapsed());
                reads += 1;
            }
            let took = checkpoint.join().unwrap();
            longest_checkpoint = longest_checkpoint.max(took);
            slow_reads += u32::from(longest_read > took / 2);
        });
    }
    println!("checkpoint up to {longest_checkpoint:?}, {reads} reads meanwhile");
    // Rounds may be unlucky with the scheduler; waiting would slow every round.
    assert!(
        reads > 20 && slow_reads < 5,
        "{slow_reads} of 5 rounds had a read as long as half the checkpoint"
    );
}
