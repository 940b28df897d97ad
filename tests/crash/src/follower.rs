//! A client that watches, and goes on after a restart where it was.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use kine2_proto::decoded::{Event, event::EventType};
use kine2_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use prost::Message;
use tokio::task::JoinHandle;

use crate::client::{Client, Watch, revision_of};
use crate::model::{Change, Step};

/// What a follower has got.
#[derive(Debug)]
pub struct Followed {
    /// All up to this revision has come.
    pub last: i64,
    /// What came and was not taken yet.
    pub steps: Vec<Step>,
    /// What was wrong.
    pub fault: Option<String>,
}

/// A watch of `[start, end)` that survives restarts.
#[derive(Debug)]
pub struct Follower {
    /// First key.
    pub start: Bytes,
    /// Behind the last; `"\0"` for no end.
    pub end: Bytes,
    followed: Rc<RefCell<Followed>>,
    task: Option<JoinHandle<()>>,
}

impl Follower {
    /// A follower of all from the beginning.
    #[must_use]
    pub fn new(start: &'static [u8], end: &'static [u8]) -> Self {
        Self {
            start: Bytes::from_static(start),
            end: Bytes::from_static(end),
            followed: Rc::new(RefCell::new(Followed {
                last: 1,
                steps: Vec::new(),
                fault: None,
            })),
            task: None,
        }
    }

    /// Does it follow every key?
    #[must_use]
    pub fn sees_all(&self) -> bool {
        self.end[..] == *b"\0"
    }

    /// Does it follow this one?
    #[must_use]
    pub fn sees(&self, key: &[u8]) -> bool {
        self.sees_all() || (self.start[..] <= *key && *key < self.end[..])
    }

    /// All up to this revision has come.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.followed.borrow().last
    }

    /// Goes on from where it was, on a server that was just started.
    ///
    /// # Errors
    /// If something was wrong with what came before.
    pub fn resume(&mut self, client: &Client) -> anyhow::Result<()> {
        self.pause();
        self.check()?;
        let request = WatchCreateRequest {
            key: self.start.clone(),
            range_end: self.end.clone(),
            start_revision: self.last() + 1,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let (client, followed) = (client.clone(), Rc::clone(&self.followed));
        let sees_all = self.sees_all();
        self.task = Some(tokio::task::spawn_local(async move {
            let Ok(mut watch) = client.watch(request).await else {
                return;
            };
            // The stream ends when the server is killed.
            while let Ok(answer) = watch.next().await {
                let mut followed = followed.borrow_mut();
                if let Err(error) = followed.take(answer, sees_all) {
                    followed.fault = Some(format!("{error:#}"));
                    return;
                }
            }
        }));
        Ok(())
    }

    /// Lets go of the stream.
    pub fn pause(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Says what was wrong.
    ///
    /// # Errors
    /// If something was.
    pub fn check(&self) -> anyhow::Result<()> {
        match &self.followed.borrow().fault {
            Some(fault) => bail!("watch of {}: {fault}", self.start.escape_ascii()),
            None => Ok(()),
        }
    }

    /// Puts back what was taken too early.
    pub fn give_back(&self, steps: Vec<Step>) {
        self.followed.borrow_mut().steps.splice(0..0, steps);
    }

    /// Takes what has come so far.
    pub fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.followed.borrow_mut().steps)
    }
}

impl Followed {
    fn take(&mut self, answer: WatchResponse, sees_all: bool) -> anyhow::Result<()> {
        ensure!(
            !answer.canceled,
            "canceled at {}: {:?}, compacted {}",
            self.last,
            answer.cancel_reason,
            answer.compact_revision
        );
        let header = revision_of(answer.header.as_ref());
        if answer.events.is_empty() {
            if !answer.created {
                ensure!(
                    header >= self.last,
                    "progress goes back from {} to {header}",
                    self.last
                );
                ensure!(
                    !sees_all || header == self.last,
                    "progress says {header}, but only changes up to {} have come",
                    self.last
                );
                self.last = header;
            }
            return Ok(());
        }
        for step in steps(answer)? {
            let revision = step.revision;
            ensure!(revision > self.last, "{revision} comes after {}", self.last);
            ensure!(
                !sees_all || revision == self.last + 1,
                "{revision} comes right after {}",
                self.last
            );
            self.last = revision;
            self.steps.push(step);
        }
        ensure!(self.last <= header, "{} at header {header}", self.last);
        Ok(())
    }
}

/// The events of an answer, by revision.
fn steps(answer: WatchResponse) -> anyhow::Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for event in answer.events {
        let event = Event::decode(event.0).context("an event")?;
        let deletes = event.r#type == i32::from(EventType::Delete);
        let kv = event.kv.context("an event without a key")?;
        let (revision, change) = (kv.mod_revision, Change { kv, deletes });
        match steps.last_mut() {
            Some(last) if last.revision == revision => last.changes.push(change),
            _ => steps.push(Step {
                revision,
                changes: vec![change],
                received: Instant::now(),
            }),
        }
    }
    Ok(steps)
}

/// All changes from a revision to another, read by a watch of its own.
///
/// # Errors
/// What the server says.
pub async fn changes_between(client: &Client, from: i64, to: i64) -> anyhow::Result<Vec<Change>> {
    let request = WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision: from,
        ..WatchCreateRequest::default()
    };
    let mut changes = Vec::new();
    let mut watch: Watch = client.watch(request).await?;
    let mut last = from - 1;
    while last < to {
        let answer = watch.next().await?;
        ensure!(!answer.canceled, "canceled: {:?}", answer.cancel_reason);
        for step in steps(answer)? {
            last = step.revision;
            if last <= to {
                changes.extend(step.changes);
            }
        }
    }
    Ok(changes)
}
