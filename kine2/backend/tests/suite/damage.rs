//! Files that something else has changed: an error or the right data, never wrong data.

use std::fs;
use std::path::{Path, PathBuf};

use kine2_backend::{Backend, EngineKind, Options, destroy, open};
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

/// Reads everything, as a start does and then clients; each answer is the model's, or an error.
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

fn damage(engine: EngineKind, runs: u64, change: impl Fn(&mut Random, &mut Vec<u8>)) {
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
        let opened = open(dir.path(), &options(engine));
        match opened.and_then(|backend| read_all(&*backend, &model)) {
            Ok(()) => harmless += 1,
            Err(BackendError::Damaged(_)) => refused += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
        destroy(dir.path()).unwrap();
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
        // Nothing of it is left in the process either: a new state can be built in its place.
        let backend = open(dir.path(), &options(engine)).unwrap();
        Model::default().check(&*backend);
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
        damage(*engine, runs(), |random, bytes| {
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
        damage(*engine, runs(), |random, bytes| {
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
        damage(*engine, runs() / 2, |random, bytes| {
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
    // Where nothing can replace it, it is opened and checked all the same.
    let irreplaceable = Options {
        unfinished_is_damage: false,
        ..options(EngineKind::Redb)
    };
    let backend = open(subject.path(), &irreplaceable).unwrap();
    model.check(&*backend);
    drop(backend);
    destroy(subject.path()).unwrap();
    open(subject.path(), &options(EngineKind::Redb)).unwrap();
}

/// Damage that is met only later brings the mark back, so that the next open looks at everything.
#[test]
fn damage_that_shows_late_has_the_next_open_check_everything() {
    for engine in EngineKind::ALL {
        let mut checked = 0;
        for seed in 0..400 {
            let (mut subject, model) = on_disk(*engine);
            damage_one_record(&subject, seed);
            let Ok(backend) = open(subject.path(), &options(*engine)) else {
                continue;
            };
            let mark = subject.path().join("unproven");
            let Err(error) = backend.checkpoint().and_then(|_| {
                assert!(!mark.exists());
                read_all(&*backend, &model)
            }) else {
                continue;
            };
            assert!(matches!(error, BackendError::Damaged(_)), "{error}");
            backend.checkpoint().ok();
            assert!(mark.exists(), "{engine}, seed {seed}: {error}");
            drop(backend);
            let error = open(subject.path(), &options(*engine)).unwrap_err();
            assert!(matches!(error, BackendError::Damaged(_)), "{error}");
            subject.close();
            checked += 1;
            if checked == 5 {
                break;
            }
        }
        // sled's state is read whole at each open: nothing is left to show late.
        let expected = if *engine == EngineKind::Redb { 5 } else { 0 };
        assert_eq!(checked, expected, "{engine}");
    }
}

/// Flips one byte of a value that lies in the engine's files as it was written.
fn damage_one_record(subject: &Subject, seed: u64) {
    let mut random = Random(seed);
    let targets = files(subject.path());
    let target = targets
        .iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(target).unwrap();
    let at = random.below(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(target, bytes).unwrap();
}

/// An engine that loses its newest pages falls back to an older state: that is noticed.
#[test]
fn an_older_state_in_its_place_is_damage() {
    for engine in EngineKind::ALL {
        let mut subject = Subject::new(Kind::Disk(*engine));
        let mut workload = Workload::new(4, Sizes::Mixed, 50);
        subject.apply(&workload.batch(50, 0));
        subject.checkpoint();
        subject.close();
        let older = tempfile::tempdir().unwrap();
        copy_dir(subject.path(), older.path());
        subject.open();
        subject.apply(&workload.batch(50, 0));
        subject.checkpoint();
        subject.close();
        let promised = fs::read(subject.path().join("promised")).unwrap();
        destroy(subject.path()).unwrap();
        copy_dir(older.path(), subject.path());
        fs::write(subject.path().join("promised"), promised).unwrap();
        let error = open(subject.path(), &options(*engine)).unwrap_err();
        assert!(error.to_string().contains("at log entry 1"), "{error}");
    }
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
