//! The loop: wait, apply, hand out.
//!
//! It runs as a task of the runtime's one thread, behind all tasks that were ready before it; so
//! what they submitted in one sweep goes to the log as one batch.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use kine2_backend::StreamError;
use kine2_node::{Event, STORE, Work};
use kine2_replication::{Act, Event as ReplicaEvent, LogIndex, Quarantine};
use tracing::{error, warn};

use super::journal::Kind;
use super::log_space::DISK_FULL;
use super::log_thread::LogThread;
use super::open::{LOG_DIR, STATE_DIR};
use super::pair::Pair;
use super::quarantine::ToPutAway;
use super::role::{Role, tell, tell_alarms, tell_serving};
use super::shared::{Finished, Shared};
use super::state_thread::StateThread;

/// The node and those who do what it wants done.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) log: LogThread,
    pub(super) state: StateThread,
    /// The way to the peer and the witness; a single node has none.
    pub(super) pair: Option<Arc<Pair>>,
}

/// Drives the node until a disk fails. Cancel-safe: nothing is lost when its future is dropped
/// while it waits.
///
/// # Errors
/// If the log or the state cannot be written or read: nothing more may be served.
pub(super) async fn drive(driver: &Driver) -> anyhow::Result<()> {
    let shared = &*driver.shared;
    let mut alarms = BTreeSet::new();
    let mut role = Role::default();
    loop {
        let next_wake = turn(driver)?;
        tell_alarms(&mut alarms, shared);
        role.follow(driver);
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
pub(super) async fn activate(driver: &Driver) -> anyhow::Result<()> {
    let shared = &*driver.shared;
    loop {
        let next_wake = turn(driver)?;
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
pub(super) async fn settle(driver: &Driver) -> anyhow::Result<()> {
    let shared = &*driver.shared;
    shared.node.lock().settle();
    loop {
        turn(driver)?;
        if shared.node.lock().is_settled() {
            return Ok(());
        }
        shared.woken().await;
    }
}

fn apply(driver: &Driver, now: Duration, finished: Finished) -> anyhow::Result<()> {
    let shared = &*driver.shared;
    let (log, state) = (
        shared.data_dir.join(LOG_DIR),
        shared.data_dir.join(STATE_DIR),
    );
    let (log, state) = (log.display(), state.display());
    // The errors name their causes themselves; what they do not know is the directory.
    let event = match finished {
        Finished::Came(event) => Event::Replica(event),
        Finished::Exported(result) => {
            match result {
                Ok(made) => driver.log.locate(LogIndex(made.index)),
                // A full disk, most likely: this node has all it needs, only the peer has to wait.
                Err(StreamError::Io(error)) => {
                    let pair = driver.pair.as_ref().context("a snapshot is for a peer")?;
                    let draft = pair.draft();
                    warn!(file = %draft.display(), %error, "no snapshot for the peer; tries again");
                    driver.state.export_later(draft);
                }
                Err(error) => return Err(anyhow!("write a snapshot of {state}: {error}")),
            }
            return Ok(());
        }
        Finished::Exporting(position) => {
            let pair = driver.pair.as_ref().context("a snapshot is for a peer")?;
            match position {
                Some(position) => {
                    pair.on_snapshot_made(position)?;
                    let part = STORE.into();
                    Event::Replica(ReplicaEvent::SnapshotMade { part, position })
                }
                // The log was cut beyond it meanwhile.
                None => {
                    driver.state.export(pair.draft());
                    return Ok(());
                }
            }
        }
        Finished::SnapshotReceived(position, store) => Event::SnapshotReceived { position, store },
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
        Finished::StatePutAway(wanted, result) => {
            result?;
            driver.log.put_away(wanted);
            return Ok(());
        }
        Finished::PutAway(wanted, result) => {
            result?;
            Event::Replica(ReplicaEvent::Quarantined(wanted.what))
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
fn begin(driver: &Driver, work: Work) -> anyhow::Result<()> {
    let shared = &*driver.shared;
    let pair = || {
        let pair = driver.pair.as_ref();
        pair.context("a unit of one node sends, calls and receives nothing")
    };
    match work {
        Work::Write(write) => driver.log.write(write),
        Work::ReadLog(read) => driver.log.read(read),
        Work::SwitchState => {
            let (backend, dir) = pair()?.take_received()?;
            shared.node.lock().set_state_bytes(backend.stats()?);
            driver.state.switch(backend, dir);
        }
        Work::Act(act) => match act {
            Act::Send(frame) => pair()?.send(&frame),
            Act::Call(call) => pair()?.call(*call),
            Act::MakeSnapshot { .. } => driver.state.export(pair()?.draft()),
            Act::SendSnapshot { position, .. } => pair()?.send_snapshot(position),
            Act::ReceiveSnapshot {
                sender, position, ..
            } => pair()?.receive_snapshot(sender, position),
            Act::Quarantine(what) => put_away(driver, what),
            Act::Ping { number } => pair()?.ask_gateways(number),
            Act::Notice(notice) => tell(shared, notice),
            Act::Serve { active, .. } => tell_serving(shared, active),
            other => unreachable!("the node does {other:?} itself"),
        },
    }
    Ok(())
}

/// The state goes first, if it has to: the entries are what says that the quarantine is whole.
fn put_away(driver: &Driver, what: Quarantine) {
    warn!(
        part = %what.part,
        after = %what.after,
        through = %what.through,
        overruled_by = %what.by.epoch,
        "what this node holds beyond what counts after a forced promotion goes to quarantine"
    );
    let text = format!(
        "entries {} to {} of part {} are only here and were overruled by force (epoch {}): they are \
         put away in quarantine",
        what.after.next().0,
        what.through.0,
        what.part,
        what.by.epoch
    );
    driver.shared.note(Kind::QuarantineBegun, text);
    let node = driver.shared.node.lock();
    let unit = node.unit();
    let wanted = Box::new(ToPutAway {
        key: unit.config().key(),
        node: unit.me().clone(),
        what,
    });
    drop(node);
    if wanted.what.with_state {
        driver.state.put_away(wanted);
    } else {
        driver.log.put_away(wanted);
    }
}

/// Tells the node what is finished and the time, hands out what it wants done, and says when to
/// come back.
fn turn(driver: &Driver) -> anyhow::Result<Duration> {
    let shared = &*driver.shared;
    let now = shared.now();
    for finished in shared.take_finished() {
        apply(driver, now, finished)?;
    }
    let mut node = shared.node.lock();
    node.apply(now, Event::Tick)?;
    let output = node.take_output(now)?;
    let next_wake = node.next_wake(now);
    let applied = node.store().applied().index;
    drop(node);

    for work in output.work {
        begin(driver, work)?;
    }
    if output.streams_ended {
        shared.forget_streams();
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
        driver.state.apply(batch);
    }
    if output.checkpoint {
        driver.state.checkpoint();
    }
    if let Some(cut) = output.cut {
        driver.log.cut(cut);
    }
    shared.on_applied(applied);
    Ok(next_wake)
}
