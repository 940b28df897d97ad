//! What idle clusters cost. As a test with a few; as a measurement with many:
//! `KINE2_WITNESS_CLUSTERS=1000 KINE2_WITNESS_SECONDS=30 KINE2_WITNESS_PROGRAM=PATH`
//! `cargo test --release -p kine2-witness --test process idle -- --nocapture`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kine2_proto::kine2::WitnessUp;
use kine2_proto::kine2::witness_up::Message as Up;
use kine2_replication::{Ask, Form, Policies, Tell};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::tempdir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::cluster::{Cluster, add_b};
use super::link::{Session, enrol, witness_of};
use super::witness::{Process, status, token};

fn setting(name: &str, default: u32) -> u32 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().expect("a number"))
}

/// Resident memory of the process, in KiB.
fn resident_kib(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Processor time that the process used so far.
fn processor(process: &Process) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// A pair in MIRROR, both of its nodes connected.
async fn pair(process: &Process, dir: &Path, number: u128) -> (Cluster, Session, Session) {
    let cluster = Cluster::new(number);
    let code = token(dir, process.address);
    assert_eq!(enrol(process.address, &code, &cluster.a).await, "");
    let (witness, key) = (witness_of(&code), cluster.key("main"));
    let mut a = Session::open(process.address, &cluster.a, witness).await;
    let mut b = Session::open(process.address, &cluster.b, witness).await;
    let first = cluster.first("main", witness);
    a.call(&key, Ask::Init(Box::new(first.clone()))).await;
    a.report(&key, &first).await;
    let Tell::Register(mirror) = a.cas(&key, add_b()).await else {
        panic!("ADD was refused");
    };
    a.report(&key, &mirror).await;
    b.report(&key, &mirror).await;
    (cluster, a, b)
}

/// Keeps a session alive as a node does, and reads what comes.
async fn keep(mut session: Session, number: u32, mut stop: watch::Receiver<bool>) -> u64 {
    let phase = Duration::from_millis(u64::from(number * 7919 % 3000));
    let start = tokio::time::Instant::now() + phase;
    let mut beat = interval_at(start, Duration::from_secs(3));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = 0;
    loop {
        tokio::select! {
            _ = stop.changed() => return beats,
            _ = beat.tick() => {
                beats += 1;
                let message = Some(Up::KeepAlive(beats));
                session.connection.send(&WitnessUp { message }).await;
            }
            said = session.connection.read.next::<kine2_proto::kine2::WitnessDown>() => {
                said.unwrap().expect("the session goes on");
            }
        }
    }
}

#[tokio::test]
async fn idle_clusters_cost_little() {
    let clusters = setting("KINE2_WITNESS_CLUSTERS", 20);
    let seconds = setting("KINE2_WITNESS_SECONDS", 4);
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    let dir = tempdir().unwrap();
    let process = Process::start(dir.path());
    let empty = resident_kib(&process);
    let (stop, stopped) = watch::channel(false);
    let mut kept = JoinSet::new();
    let (one, primary, other) = pair(&process, dir.path(), 1).await;
    kept.spawn(keep(other, 0, stopped.clone()));
    let with_one = resident_kib(&process);
    let began = Instant::now();
    for number in 1..clusters {
        let (_cluster, a, b) = pair(&process, dir.path(), u128::from(number) + 1).await;
        kept.spawn(keep(a, 2 * number, stopped.clone()));
        kept.spawn(keep(b, 2 * number + 1, stopped.clone()));
    }
    let enrolled = began.elapsed();
    let with_all = resident_kib(&process);
    // Nobody kept this one alive so far.
    let witness = primary.witness;
    drop(primary);
    let mut busy = Session::open(process.address, &one.a, witness).await;
    // The first pair's primary goes on working meanwhile, once in 20 ms for the first half.
    let key = one.key("main");
    let mut took = Vec::new();
    let half = Duration::from_secs(u64::from(seconds));
    let began = Instant::now();
    while began.elapsed() < half {
        let stored = busy.get(&key).await;
        busy.report(&key, &stored).await;
        let policies = Policies {
            boot_alone: !stored.policies.boot_alone,
            ..stored.policies.clone()
        };
        let cas = busy.make(&key, Form::Policy(policies)).await;
        let asked = Instant::now();
        let told = busy.call(&key, Ask::Cas(Box::new(cas))).await;
        assert!(matches!(told, Tell::Register(_)), "{told:?}");
        took.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kept.spawn(keep(busy, 1, stopped));
    // Nothing but keep-alives now.
    let (before, began) = (processor(&process), Instant::now());
    tokio::time::sleep(half).await;
    let used = processor(&process) - before;
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
    let at_end = resident_kib(&process);
    stop.send(true).unwrap();
    let mut beats = 0;
    while let Some(kept) = kept.join_next().await {
        beats += kept.unwrap();
    }
    took.sort();
    let [median, slow] = [2, 100].map(|part| took[took.len() - took.len() / part - 1]);
    let each = with_all.max(at_end).saturating_sub(with_one) / u64::from(clusters - 1).max(1);
    eprintln!(
        "{clusters} clusters: resident {empty} KiB empty, {with_one} with one, {with_all} with all, \
         {at_end} at the end; {each} KiB each; enrolled in {enrolled:?}; {beats} keep-alives; idle \
         {:.2} % of a core; compare-and-swap {median:?} median, {slow:?} 99 %",
        100.0 * share,
    );
    let connected = status(dir.path());
    let connected = connected["clusters"].as_array().unwrap().len();
    assert_eq!(connected, clusters as usize);
    assert!(with_one < 15 << 10, "{with_one} KiB with one cluster");
    assert!(each <= 150, "{each} KiB for each cluster");
}
