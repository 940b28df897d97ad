//! The failure table of the protocol (`repl section 14`), a transcript a row: commands, `----`,
//! what an operator sees, with the time since the commands.
//!
//! The transcripts are `tests/testdata/replication/*.txt`. `UPDATE=1` writes them anew; read the
//! difference. Nothing is left to chance: frames and disks take 1 ms, the witness 5 ms each way.

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

use kine2_replication::{Arbiter, Command, LonePolicy, PartName};
use sim::{Plan, Sim, arbiter, ms};

fn new_sim(words: &[&str]) -> Sim {
    let arbiter = match words {
        [] => arbiter(1),
        ["stop"] => Arbiter::None(LonePolicy::Stop),
        ["prefer-primary"] => Arbiter::None(LonePolicy::PreferPrimary),
        other => panic!("no arbiter {other:?}: nothing, stop or prefer-primary"),
    };
    Sim::new(Plan {
        seed: 1,
        arbiter,
        loss: 0,
        repeats: 0,
        delay_max: ms(1),
        chaos: Duration::ZERO,
        fault_every: ms(1000),
        cuts: false,
        operator: false,
        disks: false,
        ambushes: 0,
        rolls: false,
        hasty: false,
        calm: true,
    })
}

/// Does one command; says what it has to say beside what is logged.
fn execute(sim: &mut Sim, command: &str) -> Option<String> {
    let words: Vec<_> = command.split_whitespace().collect();
    let node = |name: &str| usize::from(name == "b");
    let place = |name: &str| ["a", "b", "w"].iter().position(|n| *n == name).unwrap();
    match words[..] {
        ["settle"] => {
            sim.run_for(ms(4000));
            sim.log.clear();
            return Some(format!("{}\n{}", sim.state_line(0), sim.state_line(1)));
        }
        ["run", time] => sim.run_for(ms(time.parse().unwrap())),
        ["kill", "w"] => sim.crash_witness(0),
        ["start", "w"] => sim.start_witness(0),
        ["keep", "w"] => sim.keep_witness(),
        ["restore", "w"] => sim.restore_witness(),
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
        ["promote", n, "force"] => sim.command(
            node(n),
            Command::PromoteForce {
                without_witness: false,
            },
        ),
        ["promote", n, "force", "without-witness"] => sim.command(
            node(n),
            Command::PromoteForce {
                without_witness: true,
            },
        ),
        ["change-arbiter", n, id, ref rest @ ..] => sim.command(
            node(n),
            Command::ChangeArbiter {
                arbiter: arbiter(id.parse().unwrap()),
                old_lost: *rest == ["old-lost"],
            },
        ),
        ["try", part] => (0..2).for_each(|n| sim.write_if_served(n, &part.into())),
        ["write", part] => return Some(write(sim, &part.into())),
        ["state"] => return Some(format!("{}\n{}", sim.state_line(0), sim.state_line(1))),
        _ => panic!("no command {command:?}"),
    }
    None
}

/// Writes until one is committed.
fn write(sim: &mut Sim, part: &PartName) -> String {
    const PATIENCE: Duration = ms(3000);
    let (begin, before) = (sim.now, sim.truth.counts.acknowledged);
    while sim.now < begin + PATIENCE {
        for n in 0..2 {
            sim.write_if_served(n, part);
        }
        sim.run_for(ms(5));
        if sim.truth.counts.acknowledged > before {
            let after = (sim.now - begin).as_millis();
            return format!("{part}: written after {after} ms");
        }
    }
    format!("{part}: not written in {} ms", PATIENCE.as_millis())
}

/// What a transcript's commands give.
fn play(text: &str) -> String {
    let mut sim = None;
    let mut played = String::new();
    let mut commands = Vec::new();
    let mut answer = false;
    for line in text.lines() {
        if line == "----" {
            answer = true;
            played += &format!("----\n{}\n", block(&mut sim, &commands));
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
    played
}

/// Does the commands and gives what was seen.
fn block(sim: &mut Option<Sim>, commands: &[&str]) -> String {
    let mut said = String::new();
    let mut begin = None;
    for command in commands {
        if let Some(arbiter) = command.strip_prefix("cluster") {
            let words: Vec<_> = arbiter.split_whitespace().collect();
            *sim = Some(new_sim(&words));
            continue;
        }
        let sim = sim.as_mut().expect("the first command makes the cluster");
        let begin = *begin.get_or_insert(sim.now);
        let words = execute(sim, command);
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

#[test]
fn each_row_of_the_failure_table_plays_as_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differ = Vec::new();
    for path in transcripts() {
        let written = fs::read_to_string(&path).unwrap();
        let played = play(&written);
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
