//! The loop: wait, apply, hand out.
//!
//! It runs as a task of the runtime's one thread, behind all tasks that were ready before it; so
//! what they submitted in one sweep goes to the log as one batch.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::anyhow;
use kine2_mvcc::{Alarm, AlarmKind};
use kine2_node::{Event, STORE, Work};
use kine2_replication::{Act, Event as ReplicaEvent, Notice};
use tracing::{error, info, warn};

use super::log_space::DISK_FULL;
use super::log_thread::LogThread;
use super::open::{LOG_DIR, STATE_DIR};
use super::shared::{Finished, Shared};
use super::state_thread::StateThread;

/// Drives the node until a disk fails. Cancel-safe: nothing is lost when its future is dropped
/// while it waits.
///
/// # Errors
/// If the log or the state cannot be written or read: nothing more may be served.
pub(super) async fn drive(
    shared: &Shared,
    log: &LogThread,
    state: &StateThread,
) -> anyhow::Result<()> {
    let mut alarms = BTreeSet::new();
    loop {
        let next_wake = turn(shared, log, state)?;
        tell_alarms(&mut alarms, shared.node.lock().store().alarms());
        let wait = next_wake.saturating_sub(shared.now());
        if wait.is_zero() {
            // Let the clients in between two slices of background work.
            tokio::task::yield_now().await;
            continue;
        }
        woken_within(shared, wait).await;
    }
}

async fn woken_within(shared: &Shared, wait: Duration) {
    tokio::select! {
        biased;
        () = shared.woken() => {}
        () = tokio::time::sleep(wait) => {}
    }
}

/// Drives the node until it serves the store: it is the primary, and all that its log holds of
/// committed entries is applied.
///
/// # Errors
/// As [`drive`].
pub(super) async fn activate(
    shared: &Shared,
    log: &LogThread,
    state: &StateThread,
) -> anyhow::Result<()> {
    loop {
        let next_wake = turn(shared, log, state)?;
        if shared.node.lock().reads_locally() {
            return Ok(());
        }
        woken_within(shared, next_wake.saturating_sub(shared.now())).await;
    }
}

/// Finishes what is under way and makes the state durable, so that the next start has no log to
/// apply.
///
/// # Errors
/// As [`drive`].
pub(super) async fn settle(
    shared: &Shared,
    log: &LogThread,
    state: &StateThread,
) -> anyhow::Result<()> {
    shared.node.lock().settle();
    loop {
        turn(shared, log, state)?;
        if shared.node.lock().is_settled() {
            return Ok(());
        }
        shared.woken().await;
    }
}

/// Tells the operator what changed since `told`.
fn tell_alarms(told: &mut BTreeSet<Alarm>, alarms: &BTreeSet<Alarm>) {
    if told == alarms {
        return;
    }
    for Alarm { kind, .. } in alarms.difference(told) {
        match kind {
            AlarmKind::NoSpace => warn!(
                "alarm NOSPACE: the state has reached quota-bytes, or the disk is full; what needs \
                 space is refused until there is space and the alarm is disarmed (a state gives \
                 space back when history is compacted and the state defragmented)"
            ),
            AlarmKind::Corrupt => error!(
                "alarm CORRUPT: every write is refused until the cause is mended and the alarm \
                 disarmed"
            ),
        }
    }
    for Alarm { kind, .. } in told.difference(alarms) {
        info!(?kind, "alarm disarmed");
    }
    told.clone_from(alarms);
}

fn apply(shared: &Shared, now: Duration, finished: Finished) -> anyhow::Result<()> {
    let (log, state) = (
        shared.data_dir.join(LOG_DIR),
        shared.data_dir.join(STATE_DIR),
    );
    let (log, state) = (log.display(), state.display());
    // The errors name their causes themselves; what they do not know is the directory.
    let event = match finished {
        Finished::Logged(result) => {
            let through = result.map_err(|error| {
                let hint = if error.is_no_space() { DISK_FULL } else { "" };
                anyhow!("write the log in {log}: {error}{hint}")
            })?;
            let part = STORE.into();
            Event::Replica(ReplicaEvent::Written { part, through })
        }
        Finished::LogRead(reader, result) => {
            let (prev, entries) =
                result.map_err(|error| anyhow!("read the log in {log}: {error}"))?;
            Event::LogRead {
                reader,
                prev,
                entries,
            }
        }
        Finished::LogCut(base) => {
            let part = STORE.into();
            Event::Replica(ReplicaEvent::LogCut { part, base })
        }
        Finished::LogFull(is_full) => {
            shared.node.lock().set_log_full(is_full);
            return Ok(());
        }
        Finished::Saved(result) => {
            let saved = result.map_err(|error| anyhow!("write the state in {state}: {error}"));
            Event::Saved(saved?)
        }
        Finished::Sized(result) => {
            let stats = result.map_err(|error| anyhow!("measure the state in {state}: {error}"))?;
            shared.node.lock().set_state_bytes(stats);
            return Ok(());
        }
        Finished::Checkpointed(result) => {
            let made = result.map_err(|error| anyhow!("checkpoint the state in {state}: {error}"));
            Event::Checkpointed(made?)
        }
    };
    shared.node.lock().apply(now, event)?;
    Ok(())
}

/// Hands a thing to do to who does it.
fn begin(shared: &Shared, log: &LogThread, work: Work) {
    match work {
        Work::Write(write) => log.write(write),
        Work::ReadLog(read) => log.read(read),
        Work::Act(Act::Notice(Notice::Adopted(config))) => shared.set_term(config.epoch.0),
        Work::Act(Act::Notice(notice)) => warn!(?notice, "the unit has something to tell"),
        Work::Act(Act::Serve { active: true, .. }) => info!("serves the store as its primary"),
        Work::Act(Act::Serve { active: false, .. }) => warn!("does not serve the store any more"),
        Work::SwitchState | Work::Act(_) => {
            unreachable!("a unit of one node sends, calls and receives nothing")
        }
    }
}

/// Tells the node what is finished and the time, hands out what it wants done, and says when to
/// come back.
fn turn(shared: &Shared, log: &LogThread, state: &StateThread) -> anyhow::Result<Duration> {
    let now = shared.now();
    for finished in shared.take_finished() {
        apply(shared, now, finished)?;
    }
    let mut node = shared.node.lock();
    node.apply(now, Event::Tick)?;
    let output = node.take_output(now)?;
    let next_wake = node.next_wake(now);
    drop(node);

    for work in output.work {
        begin(shared, log, work);
    }
    if let Some(damage) = output.damage {
        error!(
            damage,
            "a read met damage in the state (store/state): writes are refused from here on; the \
             next start checks all of the state, and builds it again if the log reaches back"
        );
    }
    for (waiter, answer) in output.answers {
        // A client that has gone away does not want its answer.
        let _ = waiter.send(answer);
    }
    for stream in output.ready_streams {
        shared.stream_ready(stream);
    }
    if let Some(batch) = output.state {
        state.apply(batch);
    }
    if output.checkpoint {
        state.checkpoint();
    }
    if let Some(index) = output.cut_below {
        log.cut_below(index);
    }
    Ok(next_wake)
}
