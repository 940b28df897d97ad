//! Rounds: all servers are up, each with its own directory, and take turns cell by cell. Those
//! whose turn it is not are held, so that they do not disturb.

use std::path::{Path, PathBuf};
use std::{fs, iter};

use anyhow::{Context, ensure};

use crate::cell::{self, Target};
use crate::disk::Disk;
use crate::figures::{CellFigures, Figures, Measured, RestartFigures};
use crate::keys::Store;
use crate::plan::{Cell, Options, Plan};
use crate::process::{Usage, pin};
use crate::report;
use crate::restart;
use crate::servers::{CLIENT_CORE, Kind, Program, Server};

/// Starts take long and hardly differ between rounds.
const RESTART_ROUNDS_MAX: usize = 3;

/// Builds, measures, prints and keeps everything that was asked for.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let plan = options.plan()?;
    let mut programs = Vec::new();
    for kind in &options.servers {
        programs.push(Program::build(*kind, options.kine2.as_deref())?);
    }
    let versions = programs
        .iter()
        .map(|program| (program.kind, program.version.clone()));
    let mut figures = Figures::new(&plan, versions.collect())?;
    fs::create_dir_all(&options.dir).with_context(|| format!("make {}", options.dir.display()))?;
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| options.dir.join("figures.json"));
    pin(CLIENT_CORE)?;
    for round in 1..=plan.rounds {
        for keys in &options.keys {
            if !plan.cells.is_empty() {
                run_round(&plan, &programs, &options.dir, round, *keys, &mut figures)?;
                figures.write(&out)?;
            }
        }
        if plan.restart && round <= RESTART_ROUNDS_MAX {
            run_restarts(&plan, &programs, options, round, &mut figures)?;
            figures.write(&out)?;
        }
    }
    report::print(&figures);
    eprintln!("all figures: {}", out.display());
    ensure!(
        figures.errors() == 0,
        "{} operations failed",
        figures.errors()
    );
    Ok(())
}

/// A server in a round.
#[derive(Debug)]
struct Player {
    kind: Kind,
    dir: PathBuf,
    /// None once it failed: it sits the rest of the round out.
    up: Option<(Server, Store)>,
}

fn run_round(
    plan: &Plan,
    programs: &[Program],
    dir: &Path,
    round: usize,
    keys: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let disk = Disk::of(dir)?;
    let mut players = Vec::new();
    for program in in_turn(programs, round) {
        let dir = fresh(dir, program.kind)?;
        let server = Server::start(program, &dir)?;
        let store = restart::preload(&server, keys, plan.connections)?;
        Usage::when_quiet(&server.pids)?;
        server.hold()?;
        players.push(Player {
            kind: program.kind,
            dir,
            up: Some((server, store)),
        });
    }
    for (number, cell) in with_gauge(&plan.cells).into_iter().enumerate() {
        players.rotate_left(number.min(1));
        let only_gauge = !plan.cells.contains(&cell);
        for player in &mut players {
            let plays = player.kind.serves(cell.load) && (!only_gauge || player.kind == Kind::Etcd);
            let Some(up) = player.up.take_if(|_| plays) else {
                continue;
            };
            player.up = Some(up);
            for place in iter::once(player.kind).chain(player.kind.elsewhere()) {
                let Some(up) = player.up.take() else {
                    break;
                };
                let latency = disk.latency()?;
                let taken = take_turn(plan, place, up, &disk, cell);
                let cell_figures = match taken {
                    Ok((cell_figures, up)) => {
                        player.up = Some(up);
                        cell_figures
                    }
                    Err(error) => CellFigures {
                        errors: 1,
                        first_error: Some(format!("{error:#}")),
                        ..CellFigures::default()
                    },
                };
                let measured = Measured {
                    round,
                    keys,
                    server: place,
                    cell,
                    disk: latency,
                    figures: cell_figures,
                };
                report::print_progress(&measured);
                figures.cells.push(measured);
            }
        }
    }
    for player in players {
        drop(player.up);
        fs::remove_dir_all(&player.dir)?;
    }
    Ok(())
}

fn take_turn(
    plan: &Plan,
    place: Kind,
    (server, store): (Server, Store),
    disk: &Disk,
    cell: Cell,
) -> anyhow::Result<(CellFigures, (Server, Store))> {
    server.release()?;
    let address = server.address_of(place)?;
    let target = Target {
        address: &address,
        pids: &server.pids,
        store,
    };
    let (figures, store) = cell::measure(target, disk, cell, plan.connections, plan.window)?;
    server.hold()?;
    Ok((figures, (server, store)))
}

fn run_restarts(
    plan: &Plan,
    programs: &[Program],
    options: &Options,
    round: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let single =
        |program: &&Program| !matches!(program.kind, Kind::Echo | Kind::Pair | Kind::EtcdThree);
    for program in in_turn(programs, round).filter(single) {
        let dir = fresh(&options.dir, program.kind)?;
        let restarts =
            restart::measure(program, &dir, round, options.restart_keys, plan.connections)?;
        restarts.iter().for_each(report::print_restart_progress);
        figures.restarts.extend::<Vec<RestartFigures>>(restarts);
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// The programs, another one first in each round.
fn in_turn(programs: &[Program], round: usize) -> impl Iterator<Item = &Program> {
    programs
        .iter()
        .cycle()
        .skip((round - 1) % programs.len().max(1))
        .take(programs.len())
}

/// The cells, and the gauge if it is not among them.
fn with_gauge(cells: &[Cell]) -> Vec<Cell> {
    let gauge = (!cells.contains(&Cell::GAUGE)).then_some(Cell::GAUGE);
    cells.iter().copied().chain(gauge).collect()
}

fn fresh(dir: &Path, kind: Kind) -> anyhow::Result<PathBuf> {
    let dir = dir.join(kind.name());
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    Ok(dir)
}
