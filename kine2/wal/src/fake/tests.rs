use std::io::ErrorKind;

use super::*;

fn read(disk: &FakeDisk, name: &str) -> Vec<u8> {
    disk.bytes_of(name)
}

/// A disk with a durable file "a" of 4096 times 1.
fn with_file() -> (FakeDisk, FakeFile) {
    let disk = FakeDisk::new();
    let file = disk.create("a").unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir().unwrap();
    (disk, file)
}

#[test]
fn what_is_flushed_survives_and_what_is_not_may_not() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let (disk, file) = with_file();
        file.write_all_at(&[2; 1024], 1000).unwrap();
        disk.crash(seed);
        let bytes = read(&disk, "a");
        assert_eq!(bytes.len(), 4096);
        let twos = bytes.iter().filter(|byte| **byte == 2).count();
        assert!(
            bytes[..1000]
                .iter()
                .chain(&bytes[2024..])
                .all(|byte| *byte == 1)
        );
        match twos {
            0 => lost += 1,
            1024 => kept += 1,
            _ => torn += 1,
        }
        assert!(file.sync_data().is_err(), "an old handle is void");
    }
    assert!(kept > 20 && lost > 20 && torn > 20, "{kept} {lost} {torn}");
}

#[test]
fn names_survive_the_flush_of_the_directory() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..100 {
        let (disk, _) = with_file();
        disk.rename("a", "b").unwrap();
        disk.crash(seed);
        match disk.list().unwrap().as_slice() {
            [name] if name == "a" => old += 1,
            [name] if name == "b" => new += 1,
            names => panic!("{names:?}"),
        }
        let (disk, _) = with_file();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        disk.crash(seed);
        assert_eq!(disk.list().unwrap(), ["b"]);
    }
    assert!(old > 10 && new > 10, "{old} {new}");
}

#[test]
fn a_failed_flush_loses_data_that_a_later_one_does_not_bring_back() {
    let mut lost = 0;
    for seed in 0..50 {
        let (disk, file) = with_file();
        file.write_all_at(&[2; 512], 0).unwrap();
        disk.fail_nth(Operation::Sync, 1, ErrorKind::Other);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        assert_eq!(read(&disk, "a")[0], 2, "it is still shown");
        disk.crash(seed);
        lost += usize::from(read(&disk, "a")[0] == 1);
        // Written again, it is safe.
        let (disk, file) = with_file();
        file.write_all_at(&[2; 512], 0).unwrap();
        disk.fail_nth(Operation::Sync, 1, ErrorKind::Other);
        file.sync_data().unwrap_err();
        file.write_all_at(&[2; 512], 0).unwrap();
        file.sync_data().unwrap();
        disk.crash(seed);
        assert_eq!(read(&disk, "a")[0], 2);
    }
    assert!(lost > 10, "{lost}");
}

#[test]
fn faults_come_when_told() {
    let (disk, file) = with_file();
    disk.fail_nth(Operation::Write, 2, ErrorKind::Other);
    file.write_all_at(&[3], 0).unwrap();
    assert_eq!(
        file.write_all_at(&[4], 0).unwrap_err().kind(),
        ErrorKind::Other
    );
    file.write_all_at(&[5], 0).unwrap();

    disk.short_nth_write(1, 2);
    file.write_all_at(&[6, 7, 8], 0).unwrap_err();
    assert_eq!(read(&disk, "a")[..3], [6, 7, 1]);

    disk.limit_bytes(Some(5000));
    let full = file.write_all_at(&[9; 2000], 4000).unwrap_err();
    assert_eq!(
        (full.kind(), read(&disk, "a").len()),
        (ErrorKind::StorageFull, 5000)
    );
    file.write_all_at(&[9; 2000], 3000).unwrap();

    disk.cut_power_after(1);
    file.write_all_at(&[1], 0).unwrap();
    assert!(file.sync_data().is_err() && disk.list().is_err());
    disk.crash(1);
    assert_eq!(disk.list().unwrap(), ["a"]);
}

#[test]
fn an_image_brings_back_all_that_was_seen() {
    let (disk, file) = with_file();
    file.write_all_at(&[2], 0).unwrap();
    let image = disk.snapshot();
    file.write_all_at(&[3], 0).unwrap();
    disk.remove("a").unwrap();
    disk.sync_dir().unwrap();
    disk.restore(&image);
    disk.crash(0);
    assert_eq!(read(&disk, "a")[0], 2);
    assert_eq!(read(&FakeDisk::from_image(&image), "a")[0], 2);
}
