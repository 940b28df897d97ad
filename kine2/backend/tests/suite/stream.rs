//! Export and import, within and across engines.

use kine2_backend::{Backend, EngineKind, Options, StreamError, export, import, open};
use kine2_mvcc::Revision;

use crate::common::{Model, Sizes, Workload};
use crate::{Kind, Subject};

fn filled(kind: Kind) -> Subject {
    let mut subject = Subject::new(kind);
    let mut workload = Workload::new(17, Sizes::Mixed, 100);
    for _ in 0..15 {
        let batch = workload.batch(80, 30);
        subject.apply(&batch);
    }
    subject
}

fn exported(backend: &dyn Backend) -> Vec<u8> {
    let mut stream = Vec::new();
    export(backend, &mut stream).unwrap();
    stream
}

pub(crate) fn a_state_survives_export_and_import(kind: Kind) {
    let source = filled(kind);
    let stream = exported(source.backend());
    for kind in Kind::all() {
        let mut target = Subject::new(kind);
        // Behind the stream's end the reader is left alone.
        let longer = [&stream[..], b"more"].concat();
        let mut input = &longer[..];
        import(target.backend(), &mut input).unwrap();
        assert_eq!(input, b"more");
        source.model().check(target.backend());
        target.close();
        target.open();
        source.model().check(target.backend());
        assert_eq!(exported(target.backend()), stream, "to {kind:?} and back");
    }
}

pub(crate) fn import_needs_an_empty_backend(kind: Kind) {
    let subject = filled(kind);
    let stream = exported(subject.backend());
    let error = import(subject.backend(), &stream[..]).unwrap_err();
    assert!(matches!(error, StreamError::NotEmpty), "{error}");
    subject.check();
}

#[test]
fn a_fresh_state_can_be_carried_over() {
    let stream = exported(Subject::new(Kind::Mem).backend());
    let target = Subject::new(Kind::Disk(EngineKind::Redb));
    import(target.backend(), &stream[..]).unwrap();
    Model::default().check(target.backend());
}

#[test]
fn a_stream_that_was_cut_or_changed_is_refused() {
    let mut small = Subject::new(Kind::Mem);
    let mut workload = Workload::new(1, Sizes::Small, 10);
    for _ in 0..3 {
        small.apply(&workload.batch(5, 0));
    }
    let stream = exported(small.backend());
    for cut in 0..stream.len() {
        let error = import(Subject::new(Kind::Mem).backend(), &stream[..cut]).unwrap_err();
        assert!(matches!(error, StreamError::Damaged(_)), "{cut}: {error}");
    }
    for bit in 0..stream.len() * 8 {
        let mut flipped = stream.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = import(Subject::new(Kind::Mem).backend(), &flipped[..]).unwrap_err();
        let expected = matches!(error, StreamError::Damaged(_) | StreamError::Version { .. });
        assert!(expected, "bit {bit}: {error}");
    }
}

#[test]
fn an_import_that_stopped_half_way_is_no_state() {
    let source = filled(Kind::Mem);
    let stream = exported(source.backend());
    for kind in EngineKind::ALL {
        let mut target = Subject::new(Kind::Disk(*kind));
        import(target.backend(), &stream[..stream.len() - 5]).unwrap_err();
        target.backend().checkpoint().unwrap();
        target.close();
        let error = open(target.path(), &crate::subject::options(*kind)).unwrap_err();
        assert!(error.to_string().contains("at revision 1"), "{error}");
    }
}

#[test]
fn a_newer_stream_is_refused_by_its_version() {
    let mut stream = exported(Subject::new(Kind::Mem).backend());
    stream[12] = 9;
    let error = import(Subject::new(Kind::Mem).backend(), &stream[..]).unwrap_err();
    assert!(
        matches!(error, StreamError::Version { found: 9, .. }),
        "{error}"
    );
}

/// Opening with another engine carries the state over, back and forth.
#[cfg(feature = "sled")]
#[test]
fn a_state_is_converted_when_the_engine_changes() {
    let mut source = filled(Kind::Disk(EngineKind::Redb));
    source.checkpoint();
    let model = source.model().clone();
    source.close();
    for engine in [EngineKind::Sled, EngineKind::Redb, EngineKind::Sled] {
        // What an earlier try left behind is no obstacle.
        std::fs::create_dir(source.path().join("converting")).unwrap();
        std::fs::write(source.path().join("converting/sled"), b"half").unwrap();
        let options = Options {
            engine,
            ..Options::default()
        };
        let backend = open(source.path(), &options).unwrap();
        model.check(&*backend);
        let mut names: Vec<_> = std::fs::read_dir(source.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "unproven" && name != "promised")
            .collect();
        names.sort();
        let own = if engine == EngineKind::Sled {
            "sled"
        } else {
            "state.redb"
        };
        assert_eq!(names, [own]);
        backend.checkpoint().unwrap();
    }
}

#[cfg(not(feature = "sled"))]
#[test]
fn a_state_of_an_engine_this_build_lacks_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sled")).unwrap();
    let error = open(dir.path(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("feature `sled`"), "{error}");
    assert!(dir.path().join("sled").exists());
}

#[test]
fn revisions_of_a_stream_are_those_of_the_state() {
    let source = filled(Kind::Mem);
    let target = Subject::new(Kind::Disk(EngineKind::Redb));
    import(target.backend(), &exported(source.backend())[..]).unwrap();
    assert!(target.backend().held().unwrap().revision > Revision::FRESH);
}
