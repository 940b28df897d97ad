use std::os::unix::fs::PermissionsExt;

use kine2_replication::{
    Arbiter, ClusterId, Config, Floors, Incarnation, LogIndex, Mark, NodeRef, PartName, Policies,
    RegisterKey, Term, WitnessId,
};
use kine2_witness_core::Register;
use tempfile::{TempDir, tempdir};

use super::*;

fn register(unit: &str, uid: u64) -> Record {
    let store = PartName::from("store");
    let config = Config::first(
        RegisterKey {
            cluster: ClusterId(7),
            unit: unit.into(),
        },
        uid,
        NodeRef::new("a", 1),
        store.clone(),
        [(store, Incarnation(5))],
        Arbiter::Witness {
            id: WitnessId(9),
            address: "w:1".into(),
        },
        Policies::default(),
    );
    Record::Register(Box::new(Register {
        config: config.unwrap(),
        moved_to: None,
        regressed: uid % 2 == 1,
        floors: floors(uid),
    }))
}

/// Every other register has some.
fn floors(uid: u64) -> Floors {
    let mut floors = Floors::default();
    if uid % 4 < 2 {
        let (index, term) = (LogIndex(uid), Term::new(7, 1));
        floors.parts.insert("store".into(), Mark { index, term });
        floors.boots.insert(NodeRef::new("a", 1), uid);
    }
    floors
}

/// What a program that knew no floors wrote is a register without any, and the other way round.
#[test]
fn a_register_without_floors_is_as_it_was_before_there_were_any() {
    let without = register("main", 2);
    let bytes = without.encode();
    assert_eq!(bytes[1], 0, "no flag");
    assert_eq!(Record::decode(&bytes), Ok(without));
    let with = register("main", 4);
    assert_eq!(with.encode()[1], 4);
    assert_eq!(Record::decode(&with.encode()), Ok(with));
}

fn open(dir: &TempDir) -> Result<(Store, Identity, Vec<Record>), StoreError> {
    Store::open(&dir.path().join("data"), SystemTime::now())
}

fn records(dir: &TempDir) -> Vec<Record> {
    open(dir).unwrap().2
}

fn file(dir: &TempDir) -> PathBuf {
    dir.path().join("data").join(FILE)
}

fn moved(record: &Record) -> Record {
    let Record::Register(register) = record.clone() else {
        panic!("not a register");
    };
    let moved_to = Some(register.config.clone());
    Record::Register(Box::new(Register {
        moved_to,
        ..*register
    }))
}

#[test]
fn an_empty_store_is_a_new_witness_and_stays_it() {
    let dirs = [tempdir().unwrap(), tempdir().unwrap()];
    let identity = |dir| open(dir).unwrap().1;
    let one = identity(&dirs[0]);
    assert_eq!(identity(&dirs[0]), one);
    assert_ne!(identity(&dirs[1]), one);
    assert_eq!(super::identity(&dirs[0].path().join("data")).unwrap(), one);
    fs::remove_file(file(&dirs[0])).unwrap();
    assert_ne!(identity(&dirs[0]), one);
    let mode = fs::metadata(file(&dirs[0])).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the witness's key is in it");
}

#[test]
fn the_newest_of_each_register_comes_back() {
    let dir = tempdir().unwrap();
    let (mut store, ..) = open(&dir).unwrap();
    let cluster = Record::Cluster(ClusterId(7), b"certificate".to_vec().into());
    store
        .append(&[cluster.clone(), register("main", 1)])
        .unwrap();
    store.append(&[register("web", 2)]).unwrap();
    store.append(&[moved(&register("main", 3))]).unwrap();
    drop(store);
    let expected = vec![cluster, moved(&register("main", 3)), register("web", 2)];
    assert_eq!(records(&dir), expected);
}

#[test]
fn two_do_not_use_one_store() {
    let dir = tempdir().unwrap();
    let _open = open(&dir).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
}

#[test]
fn a_crash_within_a_write_leaves_what_was_durable_before() {
    let dir = tempdir().unwrap();
    let (mut store, ..) = open(&dir).unwrap();
    store.append(&[register("main", 1)]).unwrap();
    let before = fs::read(file(&dir)).unwrap().len();
    store
        .append(&[register("main", 2), register("web", 3)])
        .unwrap();
    drop(store);
    let whole = fs::read(file(&dir)).unwrap();
    let states = [
        vec![register("main", 1)],
        vec![register("main", 2)],
        vec![register("main", 2), register("web", 3)],
    ];
    for end in before..=whole.len() {
        for zeros in [0, 1, 11, 4096] {
            // Only where a record ends: what a file system adds is whole blocks of nothing.
            let mut crashed = whole[..end].to_vec();
            crashed.resize(end + zeros, 0);
            fs::write(file(&dir), &crashed).unwrap();
            let Ok((mut store, _, found)) = open(&dir) else {
                assert!(zeros > 0, "cut at {end}");
                continue;
            };
            assert!(states.contains(&found), "cut at {end}: {found:?}");
            // It can be written to, and what is written then comes back.
            store.append(&[register("new", 4)]).unwrap();
            drop(store);
            assert!(records(&dir).contains(&register("new", 4)), "cut at {end}");
        }
    }
    for (end, state) in [(before, 0), (whole.len(), 2)] {
        let mut longer = whole[..end].to_vec();
        longer.resize(end + 4096, 0);
        fs::write(file(&dir), &longer).unwrap();
        assert_eq!(records(&dir), states[state]);
    }
}

#[test]
fn every_changed_bit_is_found() {
    let dir = tempdir().unwrap();
    let (mut store, ..) = open(&dir).unwrap();
    store.append(&[register("main", 1)]).unwrap();
    store.append(&[register("main", 2)]).unwrap();
    drop(store);
    let whole = fs::read(file(&dir)).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let fault = parse(&bad).unwrap_err();
        let named = matches!(fault, Fault::Damaged { .. } | Fault::Version(_));
        assert!(named, "bit {bit}: {fault:?}");
    }
    let mut bad = whole.clone();
    bad[whole.len() / 2] ^= 1;
    fs::write(file(&dir), bad).unwrap();
    let error = open(&dir).unwrap_err().to_string();
    assert!(error.contains("damaged at byte"), "{error}");
    assert!(error.contains("witness replace"), "{error}");
}

#[test]
fn a_record_from_another_place_is_found() {
    let dir = tempdir().unwrap();
    let (mut store, ..) = open(&dir).unwrap();
    let start = store.end;
    store.append(&[register("main", 1)]).unwrap();
    let middle = store.end;
    store.append(&[register("main", 2)]).unwrap();
    drop(store);
    let whole = fs::read(file(&dir)).unwrap();
    let swapped = [&whole[..start], &whole[middle..], &whole[start..middle]].concat();
    assert!(matches!(parse(&swapped), Err(Fault::Damaged { .. })));
    let missing = [&whole[..start], &whole[middle..]].concat();
    assert!(matches!(parse(&missing), Err(Fault::Damaged { .. })));
}

#[test]
fn the_file_is_written_anew_when_most_of_it_is_outdated() {
    let dir = tempdir().unwrap();
    let (mut store, identity, _) = open(&dir).unwrap();
    let batch: Vec<Record> = (0..200).map(|n| register(&format!("u{n}"), 1)).collect();
    let mut largest = 0;
    for _ in 0..100 {
        store.append(&batch).unwrap();
        largest = largest.max(fs::metadata(file(&dir)).unwrap().len());
    }
    store.append(&[register("u0", 8)]).unwrap();
    drop(store);
    assert!(largest < 2 << 20, "{largest}");
    let (_, same, found) = open(&dir).unwrap();
    assert_eq!(same, identity);
    assert_eq!(found.len(), batch.len());
    assert!(found.contains(&register("u0", 8)));
}

#[test]
fn what_is_no_state_file_is_named() {
    let dir = tempdir().unwrap();
    drop(open(&dir).unwrap());
    let mut newer = fs::read(file(&dir)).unwrap();
    newer[8] = 2;
    for (content, why) in [
        (&b""[..], "too short"),
        (b"something else entirely", "not a witness's state file"),
        (&newer, "version 2"),
        (&newer[..8], "too short"),
    ] {
        fs::write(file(&dir), content).unwrap();
        let error = open(&dir).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let mut empty = MAGIC.to_vec();
    empty.extend_from_slice(&VERSION.to_le_bytes());
    fs::write(file(&dir), empty).unwrap();
    let error = open(&dir).unwrap_err().to_string();
    assert!(error.contains("which witness"), "{error}");
}
