//! Every case of the API that is written down has a test that carries its number.
//!
//! `S1`–`S62` are the numbered behaviours of the etcd v3 API this server keeps; past bugs of etcd
//! go by the number of their report. A test says in its name what it is for: the function
//! `s46_an_expired_lease_is_not_revived`, the transcript `s15_deletes.txt`.

#![expect(clippy::unwrap_used, reason = "a test stops where it fails")]

use std::collections::BTreeSet;

use kine2_tidy::{files, texts};

const CASES: std::ops::RangeInclusive<u32> = 1..=62;
/// Cases this server answers as unsupported so far: Snapshot.
const NOT_YET: &[u32] = &[55];
/// Past bugs that a single node can have.
const BUGS: &[&str] = &[
    "13766", "13932", "14177", "14370", "14562", "14571", "15220", "15271", "15275", "16188",
    "17247", "17507", "17529", "17780", "18089", "18667", "20221", "20707", "22139", "xg4h",
];

#[test]
fn every_case_has_a_test_that_carries_its_number() {
    let words = words_of_test_names();
    let known = |case: &u32| {
        NOT_YET.contains(case)
            || words.contains(&format!("s{case}"))
            || words.contains(&format!("s{case:02}"))
    };
    let missing: Vec<u32> = CASES.filter(|case| !known(case)).collect();
    assert!(
        missing.is_empty(),
        "no test carries the number of S{missing:?}"
    );
}

#[test]
fn every_past_bug_has_a_test_that_carries_its_number() {
    let words = words_of_test_names();
    let missing: Vec<&&str> = BUGS.iter().filter(|bug| !words.contains(**bug)).collect();
    assert!(missing.is_empty(), "no test carries {missing:?}");
}

/// The words of all names of test functions and transcripts.
fn words_of_test_names() -> BTreeSet<String> {
    let mut names: Vec<String> = files()
        .unwrap()
        .into_iter()
        .filter(|path| path.starts_with("tests/testdata/mvcc"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    for (_, text) in texts(&["rs"]).unwrap() {
        let mut is_test = false;
        for line in text.lines().map(str::trim_start) {
            if line.starts_with("#[") || line.starts_with("//") {
                is_test |= line.contains("test");
            } else if let Some((_, name)) = line.split_once("fn ") {
                if is_test {
                    names.push(name.split('(').next().unwrap_or_default().to_owned());
                }
                is_test = false;
            }
        }
    }
    let words = names.iter().flat_map(|name| name.split('_'));
    words.map(str::to_owned).collect()
}
