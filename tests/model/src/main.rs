//! Runs the model within bounds given as `key=value`, or each mutation within its own bounds with `mutations`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool"
)]

use std::env;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use kine2_model::mutation::Mutation;
use kine2_model::run::{Report, Search, run};
use kine2_model::settings::{Force, Rollback, Settings};
use kine2_model::state::Pair;

const HELP: &str = "\
kine2-model [KEY=VALUE]...             checks the protocol within bounds; 1 if a property is violated
kine2-model mutations [KEY=VALUE]...   breaks one rule after the other, each within its own bounds

bounds     e=4 highest epoch   w0=1 w1=1 writes (lead, other part)   c=1 crashes   r=1 reads   v=1 voluntary changes
           init=5 start states, a sum: 1 all MIRROR, 2 all ALONE, 4 lead MIRROR and other ALONE, 8 other part away
switches   recover=1 recovery schedules in every state   nowit=1 no TAKEOVER   mv=1 arbiter changes   nogc=1 keep all messages
           inits=N with mv=1: Init apart from what follows, by anybody who takes itself for the primary
           vis=1 only what clients see   volc=1 restarts forget the commit index
grown      cuts=N log truncations   snaps=N snapshots   forces=N forced promotions (force=1 at the witness, 2 without it, 3 ping)
           roll=1 the witness comes back from an old copy, nodes connected; 2 while nodes are cut off
search     max=N generated states at most   sim=SECONDS random walks, with seed=N   threads=2
output     trace=1 the states of a violation   only=NAME that mutation alone, within the bounds given with it
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match checked(&arguments) {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(problem) => {
            eprintln!("{problem}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

/// True if everything held, or every mutation that does harm was caught.
fn checked(arguments: &[String]) -> Result<bool, String> {
    let options = Options::parse(arguments)?;
    if !options.mutations {
        let settings = options.settings(Settings::default())?;
        let report = run(&settings, options.search()?, options.number("threads", 2)?);
        println!("{}\n{report}", options.given());
        options.print_trace(&report);
        return Ok(report.violations.is_empty());
    }
    let mut all_caught = true;
    for mutation in Mutation::ALL {
        let name = format!("{mutation:?}");
        if options.only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let settings = options.settings(mutation.bounds())?;
        let report = run(&settings, options.search()?, options.number("threads", 2)?);
        println!("{name}: {}\n  {report}", mutation.broken());
        if let Some(why) = mutation.harmless() {
            println!("  thought to do no harm: {why}");
        }
        options.print_trace(&report);
        all_caught &= report.violations.is_empty() == mutation.harmless().is_some();
    }
    Ok(all_caught)
}

struct Options {
    mutations: bool,
    only: Option<String>,
    values: Vec<(String, String)>,
}

const KEYS: &[&str] = &[
    "e", "w0", "w1", "c", "r", "v", "init", "recover", "nowit", "mv", "nogc", "vis", "volc",
    "cuts", "snaps", "forces", "force", "roll", "inits", "max", "sim", "seed", "threads", "trace",
    "only",
];

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            mutations: false,
            only: None,
            values: Vec::new(),
        };
        for argument in arguments {
            if argument == "mutations" {
                options.mutations = true;
                continue;
            }
            let pair = argument
                .split_once('=')
                .filter(|(key, _)| KEYS.contains(key));
            let (key, value) = pair.ok_or_else(|| format!("there is no option {argument:?}"))?;
            if key == "only" {
                Mutation::named(value).ok_or_else(|| format!("there is no mutation {value:?}"))?;
                options.only = Some(value.to_owned());
            } else {
                options.values.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(options)
    }

    fn number<T: FromStr>(&self, key: &str, otherwise: T) -> Result<T, String> {
        let given = self.values.iter().find(|(known, _)| known == key);
        match given {
            None => Ok(otherwise),
            Some((_, value)) => value
                .parse()
                .map_err(|_| format!("{key}={value}: a number is expected")),
        }
    }

    fn flag(&self, key: &str, otherwise: bool) -> Result<bool, String> {
        Ok(self.number(key, u8::from(otherwise))? != 0)
    }

    /// The settings given, those not given as in `base`.
    fn settings(&self, base: Settings) -> Result<Settings, String> {
        let force = match self.number("force", 0)? {
            0 => base.force,
            1 => Force::AtWitness,
            2 => Force::WithoutWitness,
            3 => Force::Ping,
            other => return Err(format!("force={other}: 1 to 3 is expected")),
        };
        let rollback = match self.number("roll", 0)? {
            0 => base.rollback,
            1 => Rollback::Connected,
            2 => Rollback::CutOff,
            other => return Err(format!("roll={other}: 1 or 2 is expected")),
        };
        let settings = Settings {
            mutation: base.mutation,
            epoch_max: self.number("e", base.epoch_max)?,
            writes: Pair([
                self.number("w0", base.writes[0])?,
                self.number("w1", base.writes[1])?,
            ]),
            crashes: self.number("c", base.crashes)?,
            reads: self.number("r", base.reads)?,
            voluntary: self.number("v", base.voluntary)?,
            starts: self.number("init", base.starts)?,
            recover: self.flag("recover", base.recover)?,
            without_takeover: self.flag("nowit", base.without_takeover)?,
            arbiter_moves: self.flag("mv", base.arbiter_moves)?,
            inits: self.number("inits", base.inits)?,
            keep_messages: self.flag("nogc", base.keep_messages)?,
            visible_only: self.flag("vis", base.visible_only)?,
            forget_commit: self.flag("volc", base.forget_commit)?,
            cuts: self.number("cuts", base.cuts)?,
            snapshots: self.number("snaps", base.snapshots)?,
            forces: self.number("forces", base.forces)?,
            force,
            rollback,
        };
        settings.check()?;
        Ok(settings)
    }

    fn search(&self) -> Result<Search, String> {
        let seconds: u64 = self.number("sim", 0)?;
        if seconds > 0 {
            let seed = self.number("seed", 1)?;
            return Ok(Search::Simulation(Duration::from_secs(seconds), seed));
        }
        // A mutation that is not caught would otherwise visit all there is.
        let otherwise = if self.mutations { 5_000_000 } else { 0 };
        Ok(match self.number("max", otherwise)? {
            0 => Search::Exhaustive,
            max => Search::Bounded(max),
        })
    }

    fn given(&self) -> String {
        let values = self.values.iter();
        let values: Vec<_> = values
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        values.join(" ")
    }

    fn print_trace(&self, report: &Report) {
        if self.number("trace", 0) == Ok(1) {
            for violation in &report.violations {
                println!("--- {}", violation.property);
                for (state, action) in &violation.trace {
                    println!("{state:#?}\n-> {action:?}");
                }
            }
        }
    }
}
