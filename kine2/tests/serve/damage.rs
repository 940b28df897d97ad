//! A state file that something else has changed: the server serves what it had, builds the state
//! again from the log, or says what is damaged. It never serves anything else, and it does not
//! stop at the same place again and again.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::server::{Client, Server, run};

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }
}

/// A data directory of a stopped server, and what it answered.
struct Original {
    dir: TempDir,
    answers: Answers,
}

/// What is there at some revisions.
#[derive(Debug, PartialEq, Eq)]
struct Answers(Vec<(i64, Vec<u8>)>);

impl Original {
    /// Of `puts` changes of 300 keys.
    fn new(puts: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let server = Server::start(&data_dir).unwrap();
        let answers = run(async {
            let client = server.client().await;
            let mut last = 0;
            for n in 0..puts {
                let key = format!("/registry/things/{:05}", n * 7 % 300);
                let value = format!("{n:0width$}", width = 100 + n * 31 % 900);
                last = client.put(key, value.into_bytes()).await.unwrap();
            }
            client.compact(last / 4).await.unwrap();
            let asked = [0, last / 4, last / 2, last - 20];
            Answers::of(&client, &asked).await.unwrap()
        });
        server.stop();
        Self { dir, answers }
    }

    /// A copy to damage.
    fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(&self.dir.path().join("data"), &copy.path().join("data"));
        copy
    }
}

impl Answers {
    async fn of(client: &Client, revisions: &[i64]) -> Result<Self, tonic::Status> {
        let mut answers = Vec::new();
        for revision in revisions {
            answers.push((*revision, client.all(*revision).await?));
        }
        Ok(Self(answers))
    }

    async fn again(&self, client: &Client) -> Result<Self, tonic::Status> {
        let revisions: Vec<i64> = self.0.iter().map(|(revision, _)| *revision).collect();
        Self::of(client, &revisions).await
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy_dir(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn state_file(dir: &TempDir) -> PathBuf {
    dir.path().join("data/store/state/state.redb")
}

fn damage(file: &Path, random: &mut Random) -> &'static str {
    let mut bytes = fs::read(file).unwrap();
    let pages = bytes.len() / 4096;
    let page = random.below(pages) * 4096;
    let what = match random.below(5) {
        0 => {
            bytes.truncate(random.below(bytes.len()));
            "cut"
        }
        1 => {
            bytes[page..page + 4096].fill(0);
            "zeroed"
        }
        2 => {
            let other = random.below(pages) * 4096;
            bytes.copy_within(other..other + 4096, page);
            "copied over"
        }
        3 => {
            // The file's own header and the first pages are the likeliest to be needed.
            let at = random.below(4096.min(bytes.len()));
            bytes[at] ^= 1 << random.below(8);
            "flipped in front"
        }
        _ => {
            for _ in 0..=random.below(20) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            "flipped"
        }
    };
    fs::write(file, bytes).unwrap();
    what
}

#[derive(Debug, Default)]
struct Outcomes {
    served: u32,
    rebuilt: u32,
    refused: u32,
    found_late: u32,
}

/// Damages, starts, asks, and starts again if the damage showed only then.
fn damage_and_serve(original: &Original, seed: u64, outcomes: &mut Outcomes) {
    let copy = original.copy();
    let what = damage(&state_file(&copy), &mut Random(seed));
    let data_dir = copy.path().join("data");
    for start in 1.. {
        assert!(start <= 3, "seed {seed}: {what}: it never settles");
        let server = match Server::start(&data_dir) {
            Ok(server) => server,
            Err(said) => {
                let names_it = said.contains("store/state") && said.contains("damaged");
                assert!(names_it, "seed {seed}: {what}: {said}");
                outcomes.refused += 1;
                return;
            }
        };
        let answered = run(async { original.answers.again(&server.client().await).await });
        match answered {
            Ok(answers) => {
                assert!(
                    answers == original.answers,
                    "seed {seed}: {what}: wrong data is served: {}",
                    server.said()
                );
                match server.said().contains("rebuilt from the log") {
                    true => outcomes.rebuilt += 1,
                    false => outcomes.served += 1,
                }
                return;
            }
            Err(status) => {
                let text = status.to_string();
                assert!(text.contains("damaged"), "seed {seed}: {what}: {text}");
                // Until the state has been checked and the alarm disarmed nothing is written.
                let refused = run(async {
                    let client = server.client().await;
                    client.put("k".into(), Vec::new()).await.unwrap_err()
                });
                assert_eq!(refused.message(), "etcdserver: corrupt cluster");
                assert!(server.said().contains("a read met damage"), "seed {seed}");
                outcomes.found_late += 1;
            }
        }
    }
}

fn runs() -> u64 {
    std::env::var("KINE2_DAMAGE_RUNS").map_or(12, |n| n.parse().unwrap())
}

#[test]
fn a_damaged_state_is_built_again_from_a_log_that_reaches_back() {
    let original = Original::new(600);
    let mut outcomes = Outcomes::default();
    for seed in 0..runs() {
        damage_and_serve(&original, seed, &mut outcomes);
    }
    println!("{outcomes:?}");
    assert_eq!(outcomes.refused, 0, "the whole log is there");
    assert!(outcomes.rebuilt > 0);
}

#[test]
fn a_damaged_state_is_refused_by_name_where_the_log_was_cut() {
    let original = Original::new(9_000);
    let mut outcomes = Outcomes::default();
    for seed in 0..runs() {
        damage_and_serve(&original, seed, &mut outcomes);
    }
    println!("{outcomes:?}");
    assert_eq!(outcomes.rebuilt, 0, "the log does not reach back");
    assert!(outcomes.refused > 0);
}

#[test]
fn a_log_that_lost_entries_which_the_state_has_is_refused() {
    let original = Original::new(40);
    // An old image of the log beside the state of today.
    let older = original.copy();
    let server = Server::start(&original.dir.path().join("data")).unwrap();
    run(async {
        let client = server.client().await;
        for n in 0..40 {
            client
                .put(format!("/later/{n}"), vec![1; 100])
                .await
                .unwrap();
        }
    });
    server.stop();
    let copy = original.copy();
    let wal = copy.path().join("data/store/wal");
    fs::remove_dir_all(&wal).unwrap();
    copy_dir(&older.path().join("data/store/wal"), &wal);
    let said = Server::start(&copy.path().join("data")).unwrap_err();
    assert!(said.contains("missing from the log"), "{said}");
    assert!(state_file(&copy).exists());
}
