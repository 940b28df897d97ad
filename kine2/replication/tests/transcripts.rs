//! The failure table of the protocol (`repl section 14`), a transcript a row: commands, `----`,
//! what an operator sees, with the time since the commands.
//!
//! The transcripts are `tests/testdata/replication/*.txt`. `UPDATE=1` writes them anew; read the
//! difference. Nothing is left to chance: frames and disks take 1 ms, the witness 5 ms each way.
//!
//! `write PART within NEAR far FAR` says what was promised, in milliseconds: it must not take longer.
//! Both times are medians: the stories are played at other moments between two signs of life, too,
//! with a witness that is near (a round trip of 1 ms) and far (50 and 150 ms).

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "all of it is a test"
)]

mod sim;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kine2_replication::{Arbiter, Command, LonePolicy, PartName, Policies};
use sim::{Plan, Sim, arbiter, gateway, ms};

/// What differs between two plays of a story.
#[derive(Clone, Copy)]
struct Pace {
    /// One way to the witness.
    witness: Duration,
    /// How much later all begins.
    phase: Duration,
}

/// As the transcripts are written.
const AS_WRITTEN: Pace = Pace {
    witness: ms(5),
    phase: Duration::ZERO,
};

/// A write that was promised to take no longer, and how long it took.
#[derive(Clone, Debug)]
struct Promise {
    part: String,
    near: u64,
    far: u64,
    took: u64,
}

fn new_sim(words: &[&str], pace: Pace) -> Sim {
    let mut preferred = None;
    let mut auto_discard = false;
    let arbiter = match words {
        [] => arbiter(1),
        ["preferred", name] => {
            preferred = Some((*name).into());
            arbiter(1)
        }
        ["stop"] => Arbiter::None(LonePolicy::Stop),
        ["prefer-primary"] => Arbiter::None(LonePolicy::PreferPrimary),
        ["ping"] => gateway(),
        ["ping", "auto-discard"] => {
            auto_discard = true;
            gateway()
        }
        other => {
            panic!("no arbiter {other:?}: nothing, stop, prefer-primary, ping or preferred NODE")
        }
    };
    Sim::new(Plan {
        arbiter,
        preferred,
        auto_discard,
        witness: pace.witness,
        ..Plan::calm()
    })
}

/// Does one command; says what it has to say beside what is logged.
fn execute(play: &mut Play, command: &str) -> Option<String> {
    let pace = play.pace;
    let sim = play
        .sim
        .as_mut()
        .expect("the first command makes the cluster");
    let words: Vec<_> = command.split_whitespace().collect();
    let node = |name: &str| usize::from(name == "b");
    let place = |name: &str| match name {
        // Where the witness would be.
        "gateway" => 2,
        _ => ["a", "b", "w"].iter().position(|n| *n == name).unwrap(),
    };
    match words[..] {
        ["settle"] => {
            sim.run_for(ms(4000) + pace.phase);
            sim.log.clear();
            return Some(format!("{}\n{}", sim.state_line(0), sim.state_line(1)));
        }
        ["run", time] => sim.run_for(ms(time.parse().unwrap())),
        ["kill", "w"] => sim.crash_witness(0),
        ["start", "w"] => sim.start_witness(0),
        ["keep", "w"] => sim.keep_witness(),
        ["restore", "w"] => sim.restore_witness(),
        ["keep", n] => sim.keep_node(node(n)),
        ["set-back", n] => sim.set_back(node(n)),
        ["kill", n] => sim.crash_as(node(n), true),
        ["power-off", n] => sim.crash_as(node(n), false),
        ["start", n] => sim.start(node(n)),
        ["freeze", n, time] => sim.freeze(node(n), ms(time.parse().unwrap())),
        ["cut", a, b] => sim.cut_link(place(a), place(b)),
        ["cut-one-way", from, to] => sim.cut_one_way(place(from), place(to)),
        ["heal"] => sim.heal_links(),
        ["slow", n, part] => drop(sim.slow.insert((node(n), part.into()))),
        ["fast", n, part] => sim.make_fast(node(n), part.into()),
        ["fail", n, part] => sim.fail_disk(node(n), part.into()),
        ["replace", n] => sim.replace(node(n)),
        ["swap", n] => sim.command(node(n), Command::Swap { partial: false }),
        ["swap", n, "partial"] => sim.command(node(n), Command::Swap { partial: true }),
        ["stop", n] => sim.command(node(n), Command::Stop { force: false }),
        ["stop", n, "force"] => sim.command(node(n), Command::Stop { force: true }),
        ["resume", n] => sim.command(node(n), Command::Start),
        ["promote", n] => sim.command(node(n), Command::Promote),
        ["promote", n, "force"] => sim.force(node(n), None, false),
        ["promote", n, "force", "without-witness"] => sim.force(node(n), None, true),
        ["promote", n, "force", "part", part] => sim.force(node(n), Some(part.into()), false),
        ["promote", n, "force", "part", part, "without-witness"] => {
            sim.force(node(n), Some(part.into()), true);
        }
        ["rejoin", n, part] => sim.command(node(n), Command::Rejoin(part.into())),
        ["quarantine", n] => return Some(sim.quarantine_line(node(n))),
        ["prefer", n, name] => sim.command(
            node(n),
            Command::SetPolicies(Policies {
                preferred: Some(name.into()),
                ..Policies::default()
            }),
        ),
        ["new-part", n, part] => sim.new_part(node(n), part.into()),
        ["delete-part", n, part] => sim.command(node(n), Command::DeletePart(part.into())),
        ["change-arbiter", n, id, ref rest @ ..] => sim.command(
            node(n),
            Command::ChangeArbiter {
                arbiter: arbiter(id.parse().unwrap()),
                old_lost: *rest == ["old-lost"],
            },
        ),
        ["try", part] => (0..2).for_each(|n| sim.write_if_served(n, &part.into())),
        ["write", part] => return Some(write(sim, &part.into()).1),
        ["write", part, "within", near, ref rest @ ..] => {
            let near = near.parse().unwrap();
            let far = match rest {
                [] => near,
                ["far", far] => far.parse().unwrap(),
                _ => panic!("after {near} comes nothing, or far MILLISECONDS"),
            };
            let (took, said) = write(sim, &part.into());
            let part = part.to_owned();
            play.promises.push(Promise {
                part,
                near,
                far,
                took,
            });
            return Some(said);
        }
        ["state"] => return Some(format!("{}\n{}", sim.state_line(0), sim.state_line(1))),
        _ => panic!("no command {command:?}"),
    }
    None
}

/// Writes until one is committed: after how many milliseconds, and what to say.
fn write(sim: &mut Sim, part: &PartName) -> (u64, String) {
    const PATIENCE: Duration = ms(3000);
    let (begin, before) = (sim.now, sim.truth.counts.acknowledged);
    while sim.now < begin + PATIENCE {
        for n in 0..2 {
            sim.write_if_served(n, part);
        }
        sim.run_for(ms(5));
        if sim.truth.counts.acknowledged > before {
            let after = u64::try_from((sim.now - begin).as_millis()).unwrap();
            return (after, format!("{part}: written after {after} ms"));
        }
    }
    let said = format!("{part}: not written in {} ms", PATIENCE.as_millis());
    (u64::MAX, said)
}

/// A story on its way.
struct Play {
    sim: Option<Sim>,
    pace: Pace,
    promises: Vec<Promise>,
}

/// What a transcript's commands give, and what was promised.
fn play(text: &str, pace: Pace) -> (String, Vec<Promise>) {
    let mut play = Play {
        sim: None,
        pace,
        promises: Vec::new(),
    };
    let mut played = String::new();
    let mut commands = Vec::new();
    let mut answer = false;
    for line in text.lines() {
        if line == "----" {
            answer = true;
            played += &format!("----\n{}\n", block(&mut play, &commands));
            commands.clear();
        } else if answer {
            answer = !line.is_empty();
        } else {
            played += &format!("{line}\n");
            if !line.is_empty() && !line.starts_with('#') {
                commands.push(line);
            }
        }
    }
    assert!(commands.is_empty(), "commands without an answer at the end");
    (played, play.promises)
}

/// Does the commands and gives what was seen.
fn block(play: &mut Play, commands: &[&str]) -> String {
    let mut said = String::new();
    let mut begin = None;
    for command in commands {
        if let Some(arbiter) = command.strip_prefix("cluster") {
            let words: Vec<_> = arbiter.split_whitespace().collect();
            play.sim = Some(new_sim(&words, play.pace));
            continue;
        }
        let now = play.sim.as_ref().map(|sim| sim.now);
        let begin = *begin.get_or_insert_with(|| now.unwrap_or_default());
        let words = execute(play, command);
        let sim = play.sim.as_mut().expect("it was just used");
        sim.run_for(ms(0));
        for (at, line) in std::mem::take(&mut sim.log) {
            let after = at.saturating_sub(begin).as_millis();
            said += &format!("{after:>5} ms  {line}\n");
        }
        if let Some(words) = words {
            said += &format!("{words}\n");
        }
    }
    said
}

fn transcripts() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/testdata/replication");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    paths.sort();
    paths
}

/// Between two signs of life.
const BEAT_MS: u64 = 100;

#[test]
fn each_row_of_the_failure_table_plays_as_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differ = Vec::new();
    for path in transcripts() {
        let written = fs::read_to_string(&path).unwrap();
        let (played, promises) = play(&written, AS_WRITTEN);
        for promise in promises {
            // The promise is of the median; what this one play meets depends on the moment.
            let held = promise.took <= promise.near + BEAT_MS;
            assert!(held, "{}: {promise:?}", path.display());
        }
        if played == written {
            continue;
        }
        if update {
            fs::write(&path, &played).unwrap();
        } else {
            println!("{}:\n{played}", path.display());
            differ.push(path);
        }
    }
    assert!(differ.is_empty(), "{differ:?} play otherwise");
}

/// The median over moments between two signs of life, for each promise of a transcript.
fn medians(text: &str, witness: Duration) -> Vec<(Promise, u64)> {
    let phases = (0..PLAYS).map(|n| Pace {
        witness,
        phase: Duration::from_micros(n * BEAT_MS * 1_000 / PLAYS),
    });
    let plays: Vec<_> = phases.map(|pace| play(text, pace).1).collect();
    let first = plays[0].iter().cloned().enumerate();
    let median = |(k, promise): (usize, Promise)| {
        let mut took: Vec<_> = plays.iter().map(|play| play[k].took).collect();
        took.sort_unstable();
        (promise, took[took.len() / 2])
    };
    first.map(median).collect()
}

/// Plays of each story.
const PLAYS: u64 = 9;

#[test]
fn the_promised_downtimes_are_kept_in_the_median() {
    let round_trips = [1, 50, 150];
    let mut broken = Vec::new();
    println!(
        "| transcript | part | promised, ms | at 1, 50, 150 ms to the witness |\n|---|---|---|---|"
    );
    for path in transcripts() {
        let text = fs::read_to_string(&path).unwrap();
        if !text.contains(" within ") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let all = round_trips.map(|rtt| medians(&text, Duration::from_micros(rtt * 500)));
        for (k, (promise, near)) in all[0].iter().enumerate() {
            let (
                Promise {
                    part,
                    near: a,
                    far: b,
                    ..
                },
                took,
            ) = (promise, all.each_ref().map(|m| m[k].1));
            let promised = if a == b {
                a.to_string()
            } else {
                format!("{a}, far {b}")
            };
            println!(
                "| {name} | {part} | {promised} | {} {} {} |",
                took[0], took[1], took[2]
            );
            if near > a || took[1..].iter().any(|took| took > b) {
                broken.push(format!("{name}: {part}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?} took longer than promised");
}
