//! A state that version 1 of the format wrote stays readable, and the stream of version 1 is still
//! what is written.
//!
//! A change of the format brings a new directory beside `tests/testdata/state/v1` and keeps this one.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: what fails here fails the test"
)]
#![expect(dead_code, reason = "the suite uses more of what is common")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Model, Sizes, Workload};
use kine2_backend::mem::MemBackend;
use kine2_backend::{Backend, EngineKind, Options, export, import, open};
use kine2_mvcc::StateBatch;

/// What `v1` was made of; never changed.
fn batches() -> (Vec<StateBatch>, Model) {
    let mut workload = Workload::new(2026, Sizes::Mixed, 40);
    let batches = (0..12).map(|_| workload.batch(25, 40)).collect();
    (batches, workload.model)
}

fn v1() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/testdata/state/v1").into()
}

fn write_state(dir: &Path, engine: EngineKind) {
    let options = Options {
        engine,
        ..Options::default()
    };
    let backend = open(dir, &options).unwrap();
    for (n, batch) in (0..).zip(batches().0) {
        backend.apply(&batch).unwrap();
        if n % 5 == 2 {
            backend.checkpoint().unwrap();
        }
    }
    backend.defragment().unwrap();
    backend.checkpoint().unwrap();
}

fn stream() -> Vec<u8> {
    let backend = MemBackend::default();
    for batch in batches().0 {
        backend.apply(&batch).unwrap();
    }
    let mut stream = Vec::new();
    export(&backend, &mut stream).unwrap();
    stream
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// With `KINE2_WRITE_GOLDEN` set, writes what the tests below read; only for a new version, and with
/// `--test-threads=1`.
fn written_if_asked() {
    if std::env::var_os("KINE2_WRITE_GOLDEN").is_none() {
        return;
    }
    fs::create_dir_all(v1()).unwrap();
    fs::write(v1().join("stream"), stream()).unwrap();
    let dir = v1().join("redb");
    fs::remove_dir_all(&dir).ok();
    write_state(&dir, EngineKind::Redb);
}

#[test]
fn a_state_of_version_1_is_read() {
    written_if_asked();
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&v1().join("redb"), dir.path());
    // With every record checked.
    fs::write(dir.path().join("unproven"), "0").unwrap();
    let backend = open(dir.path(), &Options::default()).unwrap();
    let (_, model) = batches();
    model.check(&*backend);
    backend.checkpoint().unwrap();
}

#[test]
fn a_stream_of_version_1_is_read_and_written_as_ever() {
    let golden = fs::read(v1().join("stream")).unwrap();
    assert!(stream() == golden, "the stream differs");
    let backend = MemBackend::default();
    import(&backend, &golden[..]).unwrap();
    let (_, model) = batches();
    model.check(&backend);
}
