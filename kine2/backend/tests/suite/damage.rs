//! Files that something else has changed: an error or the right data, never wrong data.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use kine2_backend::{Backend, EngineKind, destroy, open};
use kine2_mvcc::BackendError;

use crate::common::{Model, Random, Sizes, Workload};
use crate::subject::options;
use crate::{Kind, Subject};

/// A state on disk after a checkpoint, and its model.
fn on_disk(engine: EngineKind) -> (Subject, Model) {
    let mut subject = Subject::new(Kind::Disk(engine));
    let mut workload = Workload::new(23, Sizes::Kilobyte, 60);
    for _ in 0..12 {
        let batch = workload.batch(40, 30);
        subject.apply(&batch);
    }
    subject.checkpoint();
    subject.close();
    (subject, workload.model)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy_dir(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

/// Reads everything; each answer is the model's, or an error.
fn read_all(backend: &dyn Backend, model: &Model) -> Result<(), BackendError> {
    assert_eq!(backend.held()?, model.held);
    let mut metas = Vec::new();
    backend.metas(&mut |meta| metas.push((meta.id, meta.key.to_vec())))?;
    let expected: Vec<_> = model
        .records
        .iter()
        .map(|(id, record)| (*id, record.view().key.to_vec()))
        .collect();
    assert_eq!(metas, expected);
    let mut failed = Ok(());
    for (id, record) in &model.records {
        match backend.get(*id) {
            Ok(found) => assert_eq!(found.as_ref(), Some(record), "{id}"),
            Err(error) => failed = Err(error),
        }
    }
    failed
}

fn flip(engine: EngineKind, runs: u64, change: impl Fn(&mut Random, &mut Vec<u8>)) {
    let (subject, model) = on_disk(engine);
    let (mut refused, mut harmless) = (0, 0);
    for seed in 0..runs {
        let mut random = Random(seed);
        let dir = tempfile::tempdir().unwrap();
        copy_dir(subject.path(), dir.path());
        let targets = files(dir.path());
        let target = &targets[random.below(targets.len())];
        let mut bytes = fs::read(target).unwrap();
        change(&mut random, &mut bytes);
        fs::write(target, bytes).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let backend = open(dir.path(), &options(engine))?;
            let read = read_all(&*backend, &model);
            // Closing writes: a panic there says as little as one before.
            drop(backend);
            read
        }));
        match outcome {
            Ok(Ok(())) => harmless += 1,
            Ok(Err(BackendError::Damaged(_) | BackendError::Version { .. })) => refused += 1,
            Ok(Err(error @ BackendError::Io(_))) => {
                let text = error.to_string();
                assert!(
                    text.contains("failed to fill whole buffer"),
                    "seed {seed}: {text}"
                );
                refused += 1;
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                // The test's own comparisons say "left"; an engine's panic stops the program,
                // which serves nothing wrong either.
                assert!(!text.contains("left"), "seed {seed}: {text}");
                refused += 1;
            }
        }
        destroy(dir.path()).unwrap();
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
    }
    println!("{engine}: {refused} refused, {harmless} harmless of {runs}");
    assert!(refused > 0);
}

fn runs() -> u64 {
    std::env::var("BACKEND_DAMAGE_RUNS").map_or(60, |n| n.parse().unwrap())
}

#[test]
fn flipped_bits_never_give_wrong_data() {
    for engine in EngineKind::ALL {
        flip(*engine, runs(), |random, bytes| {
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        });
    }
}

#[test]
fn zeroed_and_swapped_pages_never_give_wrong_data() {
    for engine in EngineKind::ALL {
        flip(*engine, runs(), |random, bytes| {
            let pages = bytes.len() / 4096;
            if pages == 0 {
                return;
            }
            let (a, b) = (random.below(pages) * 4096, random.below(pages) * 4096);
            if random.chance(50) {
                bytes[a..a + 4096].fill(0);
            } else {
                let page = bytes[a..a + 4096].to_vec();
                bytes.copy_within(b..b + 4096, a);
                bytes[b..b + 4096].copy_from_slice(&page);
            }
        });
    }
}

#[test]
fn cut_files_never_give_wrong_data() {
    for engine in EngineKind::ALL {
        flip(*engine, runs() / 2, |random, bytes| {
            let len = random.below(bytes.len().max(1));
            bytes.truncate(len);
        });
    }
}

#[test]
fn a_file_that_is_no_state_is_damage_and_can_be_destroyed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.redb"), b"this is no database").unwrap();
    fs::write(dir.path().join("other.txt"), b"not ours").unwrap();
    let error = open(dir.path(), &options(EngineKind::Redb)).unwrap_err();
    assert!(matches!(error, BackendError::Damaged(_)), "{error}");
    destroy(dir.path()).unwrap();
    assert_eq!(files(dir.path()), [dir.path().join("other.txt")]);
    let backend = open(dir.path(), &options(EngineKind::Redb)).unwrap();
    Model::default().check(&*backend);
}

#[test]
fn a_state_that_kills_its_opener_counts_as_damaged() {
    let (subject, model) = on_disk(EngineKind::Redb);
    // Two openings that never came back.
    fs::write(subject.path().join("unproven"), "1").unwrap();
    let backend = open(subject.path(), &options(EngineKind::Redb)).unwrap();
    model.check(&*backend);
    drop(backend);
    fs::write(subject.path().join("unproven"), "2").unwrap();
    let error = open(subject.path(), &options(EngineKind::Redb)).unwrap_err();
    assert!(matches!(error, BackendError::Damaged(_)), "{error}");
    destroy(subject.path()).unwrap();
    open(subject.path(), &options(EngineKind::Redb)).unwrap();
}

#[test]
fn the_mark_goes_with_the_first_checkpoint() {
    let mark = |subject: &Subject| subject.path().join("unproven").exists();
    let mut subject = Subject::new(Kind::Disk(EngineKind::Redb));
    assert!(mark(&subject));
    subject.checkpoint();
    assert!(!mark(&subject));
    subject.restart();
    assert!(mark(&subject));
}

#[test]
fn a_second_opener_is_refused_but_told_that_nothing_is_damaged() {
    let subject = Subject::new(Kind::Disk(EngineKind::Redb));
    let error = open(subject.path(), &options(EngineKind::Redb)).unwrap_err();
    assert!(matches!(error, BackendError::Io(_)), "{error}");
    assert!(error.to_string().contains("another process"), "{error}");
}
