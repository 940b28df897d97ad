//! Clients that watch: they go on at the other node, or at the same, where their stream ended.

use kine2_mvcc::{CancelCause, StreamId, WatchUpdate};
use kine2_replication::State;

use crate::due::Due;
use crate::history::{Changes, History, Key};
use crate::network::up_to;
use crate::plan::ms;
use crate::speech;
use crate::watching::Watch;
use crate::world::World;

/// All watches.
#[derive(Debug, Default)]
pub struct Watches(Vec<Watcher>);

#[derive(Debug)]
struct Watcher {
    watch: Watch,
    /// The machine and the stream it is on.
    on: Option<(usize, StreamId)>,
    /// It had a stream before.
    resumes: bool,
}

impl Watches {
    /// What they were told.
    pub fn all(&self) -> impl Iterator<Item = &Watch> {
        self.0.iter().map(|watcher| &watcher.watch)
    }

    /// Adds to a history what watches told.
    ///
    /// # Panics
    /// When two were told different things.
    pub fn add_to(&self, history: &mut History) {
        for watch in self.all() {
            let set = watch.told.iter().filter_map(|told| told.became);
            let glimpsed = set.map(|seen| (seen.value, seen.modified));
            history.glimpsed.extend(glimpsed);
        }
        for watch in self.all().filter(|watch| watch.key.is_none()) {
            let mut revisions: std::collections::BTreeMap<i64, Changes> =
                std::collections::BTreeMap::new();
            for told in &watch.told {
                let changes = revisions.entry(told.revision).or_default();
                changes.insert(told.key, told.became);
            }
            for (revision, changes) in revisions {
                let known = history
                    .watched
                    .entry(revision)
                    .or_insert_with(|| changes.clone());
                assert_eq!(
                    *known, changes,
                    "two watches were told different things: changes of revision {revision}"
                );
            }
        }
    }
}

impl World {
    /// Watches of all keys, and of one, from a revision on.
    pub fn add_watches(&mut self, start: i64) {
        for key in [None, None, Some(1)] {
            self.add_watch(key, start);
        }
    }

    /// Nobody watches any more.
    pub(crate) fn forget_watches(&mut self) {
        for n in 0..2 {
            self.end_watches_of(n);
        }
        self.watches = Watches::default();
        self.queue.retain(|_, due| !matches!(due, Due::Watch(_)));
    }

    /// A watch from a revision on.
    pub fn add_watch(&mut self, key: Option<Key>, start: i64) {
        let i = self.watches.0.len();
        self.watches.0.push(Watcher {
            watch: Watch::new(key, start),
            on: None,
            resumes: false,
        });
        self.push(ms(20), Due::Watch(i));
    }

    pub(crate) fn on_watch_due(&mut self, i: usize) {
        let again = ms(20) + up_to(ms(600), &mut self.rng);
        self.push(again, Due::Watch(i));
        let n = self.rng.pick(2);
        let watcher = &mut self.watches.0[i];
        if let Some((n, stream)) = watcher.on {
            let is_frozen = self.machines[n].frozen_until > self.now;
            if let Some(process) = self.machines[n].process.as_mut().filter(|_| !is_frozen) {
                process.node.request_progress(stream);
                self.poll_watches(n);
            }
            return;
        }
        let machine = &mut self.machines[n];
        let clock = machine.clock(self.now);
        if machine.frozen_until > self.now {
            return;
        }
        // A node that waits serves by the word of a primary it hears. One that was overruled by
        // force, and does not know it yet, would tell what is not so any more.
        let overruled = self.was_forced;
        let Some(process) = &mut machine.process else {
            return;
        };
        match process.node.unit().status().state {
            State::Stop => return,
            State::Wait(_) if overruled => return,
            State::Prim | State::Second | State::Alone | State::Wait(_) => {}
        }
        let from = watcher.watch.resumes_at();
        let stream = process.watch(clock, watcher.watch.key, from);
        watcher.on = Some((n, stream));
        let line = format!(
            "watch {i} goes on at {} from revision {from}",
            machine.me.name
        );
        self.story.tell(self.now, line);
        if std::mem::replace(&mut watcher.resumes, true) {
            self.coverage.mark("watch: resumed");
        }
        self.poll_watches(n);
    }

    /// The streams at a node ended.
    pub(crate) fn end_watches_of(&mut self, n: usize) {
        for watcher in &mut self.watches.0 {
            if let Some((at, stream)) = watcher.on
                && at == n
            {
                watcher.on = None;
                self.coverage.mark("S3: watches ended with the service");
                if let Some(process) = &mut self.machines[n].process {
                    process.node.close_stream(stream);
                }
            }
        }
    }

    /// Takes what the streams of a node have to say.
    ///
    /// # Panics
    /// When that cannot be right.
    pub(crate) fn poll_watches(&mut self, n: usize) {
        let Some(process) = &mut self.machines[n].process else {
            return;
        };
        for watcher in &mut self.watches.0 {
            let Some((_, stream)) = watcher.on.filter(|(at, _)| *at == n) else {
                continue;
            };
            for message in process.poll(stream) {
                match message.update {
                    WatchUpdate::Created => {}
                    WatchUpdate::Events { events, .. } => {
                        let told = speech::told(&events);
                        let taken = watcher.watch.on_events(&told);
                        taken.unwrap_or_else(|what| panic!("a watch, told again: {what}"));
                    }
                    WatchUpdate::Progress => {
                        self.coverage.mark("watch: progress");
                        watcher.watch.on_progress(message.revision.0);
                    }
                    WatchUpdate::Refused(CancelCause::Compacted(compacted))
                    | WatchUpdate::Canceled(CancelCause::Compacted(compacted)) => {
                        self.coverage.mark("watch: ended by a compaction");
                        let asked = self.clients.compactions.on_refused(compacted.0);
                        let ended = asked.and_then(|()| watcher.watch.on_compacted(compacted.0));
                        ended.unwrap_or_else(|what| panic!("a watch, ended: {what}"));
                        process.node.close_stream(stream);
                        watcher.on = None;
                        let line = format!("a watch ends: all before {compacted} is forgotten");
                        self.story.tell(self.now, line);
                        // What else the stream says is not of this watch.
                        break;
                    }
                    WatchUpdate::Refused(cause) | WatchUpdate::Canceled(cause) => {
                        panic!("watch: ended by {cause:?}");
                    }
                }
            }
        }
    }
}
