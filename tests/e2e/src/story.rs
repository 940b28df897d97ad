//! A pair under load, to which things happen.

use std::time::{Duration, Instant};

use kine2_crash::rng::Rng;

use crate::client::Client;
use crate::disk::Medium;
use crate::fault::{Fault, Need};
use crate::load::{Load, check_equal, urls};
use crate::pair::{Node, PATIENCE, Pair};
use crate::writer::{Writer, Written};

/// A node that started this lately gives its peer more time.
const BOOT_GRACE_MS: u64 = 3_500;
/// A disk that was full is looked at again within this.
const ROOM_SEEN_WITHIN: Duration = Duration::from_secs(30);
/// Of a client that tries again.
const ATTEMPT: Duration = Duration::from_secs(2);

/// A pair that has what a fault takes.
///
/// # Errors
/// Why there can be none here.
pub fn pair_for(fault: Fault) -> Result<Pair, String> {
    match fault.needs() {
        Need::Nothing => Ok(Pair::start()),
        Need::Lab => Pair::in_lab(Medium::Good),
        Need::FailingDisk | Need::VolatileDisk => Ok(Pair::on(Medium::Volatile)),
        Need::SmallDisk if rustix::process::geteuid().is_root() => Ok(Pair::on(Medium::Failing)),
        Need::SmallDisk => Err("mounting needs root".to_owned()),
    }
}

/// One fault happens to a pair under load, lasts so long, and is mended; what must hold is checked.
/// The longest time between two acknowledged writes from it on, until `after` its end.
///
/// # Panics
/// If something does not hold.
pub async fn play(pair: &mut Pair, fault: Fault, lasts: Duration, after: Duration) -> Duration {
    let primary = pair.primary();
    let load = Load::start(pair, primary);
    pause(BOOT_GRACE_MS).await;
    let begun = Instant::now();
    fault.strike(pair, primary, &mut Rng::new(1)).await;
    tokio::time::sleep(lasts).await;
    fault.mend(pair, primary);
    tokio::time::sleep(after).await;
    settle(pair).await;
    let written = load.finish(pair).await;
    check_equal(pair, &written).await;
    written.longest_gap(begun)
}

/// The longest gap between two answers that a fault makes, as a client that has both endpoints and
/// gives each attempt 100 ms sees it; and the attempts that failed otherwise than by its own
/// deadline. What must hold is checked.
///
/// # Errors
/// Why the fault cannot happen here.
///
/// # Panics
/// If something does not hold.
pub async fn gap(fault: Fault) -> Result<(Duration, Vec<String>), String> {
    let mut pair = pair_for(fault)?;
    let primary = pair.primary();
    let writer = Writer::start(&urls(&pair, primary));
    pause(BOOT_GRACE_MS).await;
    let begun = Instant::now();
    fault.strike(&mut pair, primary, &mut Rng::new(1)).await;
    pause(if fault == Fault::KillBoth { 100 } else { 2_000 }).await;
    // What comes back makes no gap of its own.
    let written: Written = writer.finish().await;
    fault.mend(&mut pair, primary);
    settle(&mut pair).await;
    check_equal(&pair, &written).await;
    Ok((written.longest_gap(begun), written.failed))
}

/// Lets random things happen to a pair under load for so long, two at once at times, and checks what
/// must hold: what was acknowledged is there, reads know of it, revisions never went back, each event
/// was seen once, there were never two primaries, both nodes hold the same. Tells what happens.
///
/// # Panics
/// If something does not hold.
pub async fn random(seed: u64, length: Duration, tell: impl Fn(String)) {
    let mut rng = Rng::new(seed);
    let is_root = rustix::process::geteuid().is_root();
    let medium = match rng.percent(50) && is_root {
        true => Medium::Failing,
        false => Medium::Volatile,
    };
    let mut pair = Pair::in_lab(medium).unwrap_or_else(|why| {
        tell(format!("without faults of the network: {why}"));
        Pair::on(medium)
    });
    let (is_in_lab, possible) = (pair.lab().is_some(), |fault: &Fault, is_in_lab: bool| {
        fault.needs().is_met(medium, is_in_lab)
    });
    let all: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| possible(fault, is_in_lab))
        .collect();
    let beside: Vec<Fault> = all
        .iter()
        .copied()
        .filter(|fault| fault.may_coincide())
        .collect();
    let load = Load::start(&pair, Node::A);
    let begun = Instant::now();
    while begun.elapsed() < length {
        pause(rng.within(200..1_700)).await;
        let fault = *pick(&all, &mut rng);
        if !fault.may_coincide() {
            settle(&mut pair).await;
        }
        let primary = revive(&mut pair, Pair::find_primary).await;
        tell(format!(
            "{:.1?} {fault} ({})",
            begun.elapsed(),
            primary.name()
        ));
        fault.strike(&mut pair, primary, &mut rng).await;
        let mut struck = vec![(fault, primary)];
        if fault.may_coincide() && rng.percent(30) {
            pause(rng.within(0..1_500)).await;
            let fault = *pick(&beside, &mut rng);
            let primary = pair.find_primary().unwrap_or(primary);
            tell(format!(
                "  {:.1?} and {fault} ({})",
                begun.elapsed(),
                primary.name()
            ));
            fault.strike(&mut pair, primary, &mut rng).await;
            struck.push((fault, primary));
        }
        pause(rng.within(0..2_500)).await;
        for (fault, primary) in struck {
            fault.mend(&mut pair, primary);
        }
        // Most often the next thing happens to a pair that is whole.
        if rng.percent(75) {
            settle(&mut pair).await;
        }
    }
    settle(&mut pair).await;
    let written = load.finish(&pair).await;
    check_equal(&pair, &written).await;
    tell(format!("{} writes acknowledged", written.acked.len()));
}

fn pick<'f>(faults: &'f [Fault], rng: &mut Rng) -> &'f Fault {
    let at = rng.within(0..faults.len() as u64);
    &faults[usize::try_from(at).unwrap()]
}

/// Waits until the pair is whole and takes writes, as after an operator's visit: a node that has
/// ended is started again, alarms are disarmed.
///
/// # Panics
/// If it does not come to that.
pub async fn settle(pair: &mut Pair) {
    revive(pair, |pair| pair.is_mirrored().then_some(())).await;
    let begun = Instant::now();
    loop {
        let primary = revive(pair, Pair::find_primary).await;
        let client = Client::new(&pair.url(primary));
        let disarmed = client.disarm(ATTEMPT).await;
        let put = client.put("settled", "", ATTEMPT).await;
        match (disarmed, put) {
            (Ok(()), Ok(_)) if pair.is_mirrored() => return,
            refused => assert!(
                begun.elapsed() < ROOM_SEEN_WITHIN,
                "no write goes: {refused:?}"
            ),
        }
        pause(200).await;
    }
}

/// Waits for something, and starts nodes again that have ended by themselves.
async fn revive<T>(pair: &mut Pair, mut seen: impl FnMut(&Pair) -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = seen(pair) {
            return seen;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "they do not recover: {:#} {:#}",
            pair.status(Node::A),
            pair.status(Node::B)
        );
        for node in Node::BOTH {
            pair.start_node(node);
        }
        pause(50).await;
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
