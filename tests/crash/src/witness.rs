//! Everything outside the server that remembers: what clients were told, what watches got, and the
//! model of both; and the comparison of a restarted server with it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use kine2_proto::decoded::KeyValue;
use prost::Message;
use tonic::Code;

use crate::client::{Client, everything_at, soon};
use crate::follower::{Follower, changes_between};
use crate::history::History;
use crate::load::{Load, Shape};
use crate::model::{Change, Model, Step};
use crate::rng::Rng;

/// How long a watch may take to come up to date.
const FOLLOW_MAX: Duration = Duration::from_secs(20);
const FOLLOW_POLL: Duration = Duration::from_millis(2);
/// Leases whose keys are compared after each restart.
const LEASES_COMPARED: usize = 60;

/// What is known of a store.
#[derive(Debug)]
pub struct Witness {
    history: Rc<RefCell<History>>,
    model: Model,
    /// The first follows everything.
    followers: Rc<RefCell<Vec<Follower>>>,
    /// Of each other follower, what it must get.
    expected: Vec<Vec<Step>>,
    /// Who the server said it is: cluster and member.
    identity: Option<(u64, u64)>,
}

impl Default for Witness {
    fn default() -> Self {
        let followers = vec![
            Follower::new(b"\0", b"\0"),
            Follower::new(b"/k/", b"/k0"),
            Follower::new(b"/l/", b"/l0"),
            Follower::new(b"/k/0000", b"/k/0020"),
        ];
        Self {
            history: Rc::default(),
            model: Model::default(),
            expected: vec![Vec::new(); followers.len()],
            identity: None,
            followers: Rc::new(RefCell::new(followers)),
        }
    }
}

impl Witness {
    /// Has clients load a server that was checked.
    #[must_use]
    pub fn load(&self, client: &Client, shape: Shape, rng: &mut Rng) -> Load {
        let followers = Rc::clone(&self.followers);
        let followed = move || {
            let followers = followers.borrow();
            followers.iter().map(Follower::last).min().unwrap_or(1)
        };
        Load::start(client, &self.history, shape, rng, followed)
    }

    /// Acknowledged and unknown writes so far, and the revision.
    #[must_use]
    pub fn figures(&self) -> (u64, u64, i64) {
        let history = self.history.borrow();
        (history.acknowledged, history.unknown, self.model.revision)
    }

    /// Leaves the streams of a server that is gone.
    pub fn pause(&self) {
        for follower in self.followers.borrow_mut().iter_mut() {
            follower.pause();
        }
    }

    /// Compares a server that was just started, and that nobody writes to, with what it must hold.
    /// Watches go on from where they were.
    ///
    /// # Errors
    /// What is not as it must be.
    pub async fn check(&mut self, client: &Client, rng: &mut Rng) -> anyhow::Result<()> {
        let revision = soon("read the revision", client.revision()).await?;
        let seen = self.history.borrow().revision_seen;
        let followed = self.followers.borrow()[0].last();
        ensure!(
            revision >= seen.max(followed),
            "the revision is {revision}, but clients were told {seen} and watches {followed}"
        );
        let answer = soon("hash", client.hash(0)).await?;
        let header = answer.header.context("a header")?;
        let identity = (header.cluster_id, header.member_id);
        let known = *self.identity.get_or_insert(identity);
        ensure!(identity == known, "it is {identity:x?}, was {known:x?}");
        for follower in self.followers.borrow_mut().iter_mut() {
            follower.resume(client)?;
        }
        let compacted = self.check_compaction(client, revision).await?;
        let revision = self.follow(revision).await?;
        self.check_lost(revision)?;
        self.check_followers(revision).await?;
        if compacted > self.model.compacted {
            self.model.compact(compacted);
        }
        self.check_hash(client).await?;
        self.check_content(client, revision).await?;
        if compacted > 0 && compacted < revision {
            let low = u64::try_from(compacted)?;
            let past = rng.within(low..u64::try_from(revision)?);
            self.check_content(client, i64::try_from(past)?).await?;
        }
        self.check_changes(client, revision).await?;
        self.check_leases(client).await
    }

    /// Compacted: what was acknowledged at least, what was asked for at most, and never less.
    async fn check_compaction(&self, client: &Client, revision: i64) -> anyhow::Result<i64> {
        let answer = soon("hash", client.hash(revision)).await?;
        let compacted = answer.compact_revision;
        let (acknowledged, asked) = {
            let mut history = self.history.borrow_mut();
            let told = (history.compacted, history.compaction_asked);
            history.compacted = history.compacted.max(compacted);
            told
        };
        let low = acknowledged.max(self.model.compacted);
        ensure!(
            (low..=asked.max(low)).contains(&compacted) || (compacted == -1 && low <= 0),
            "compacted is {compacted}; {acknowledged} was acknowledged, {asked} asked for, {} seen",
            self.model.compacted
        );
        if compacted > 1 {
            let below = client.range(everything_at(compacted - 1)).await;
            let code = below.as_ref().err().map(tonic::Status::code);
            ensure!(
                code == Some(Code::OutOfRange),
                "a read below compacted {compacted} gave {below:?}"
            );
        }
        Ok(compacted)
    }

    /// Takes in all up to the revision the server tells, and what came meanwhile.
    async fn follow(&mut self, revision: i64) -> anyhow::Result<i64> {
        let begun = Instant::now();
        while self.followers.borrow()[0].last() < revision {
            self.followers.borrow()[0].check()?;
            ensure!(
                begun.elapsed() < FOLLOW_MAX,
                "the watch of everything stays at {} of {revision}",
                self.followers.borrow()[0].last()
            );
            tokio::time::sleep(FOLLOW_POLL).await;
        }
        let steps = self.followers.borrow()[0].take();
        let mut history = self.history.borrow_mut();
        let mut reads = std::mem::take(&mut history.reads);
        reads.sort_by_key(|read| read.at);
        let mut reads = reads.into_iter().peekable();
        while let Some(read) = reads.next_if(|read| read.at <= self.model.revision) {
            if read.at == self.model.revision {
                self.model.check_read(&read)?;
            }
        }
        for step in steps {
            self.model.apply(&step, &mut history)?;
            while let Some(read) = reads.next_if(|read| read.at == step.revision) {
                self.model.check_read(&read)?;
            }
            for (follower, expected) in self.followers.borrow().iter().zip(&mut self.expected) {
                let sees = |change: &&Change| follower.sees(&change.kv.key);
                let changes: Vec<Change> = step.changes.iter().filter(sees).cloned().collect();
                if !changes.is_empty() && !follower.sees_all() {
                    expected.push(Step { changes, ..step });
                }
            }
        }
        Ok(self.model.revision)
    }

    /// Every acknowledged write was found; the others will never come.
    fn check_lost(&self, revision: i64) -> anyhow::Result<()> {
        let mut history = self.history.borrow_mut();
        let acknowledged = |write: &crate::history::Write| write.revision.is_some();
        let lost = history.writes.iter().find(|(_, write)| acknowledged(write));
        if let Some((id, write)) = lost {
            bail!("write {id} was acknowledged and is lost at revision {revision}: {write:?}");
        }
        history.writes.clear();
        Ok(())
    }

    /// The other watches get what they must, no less and no more.
    async fn check_followers(&mut self, revision: i64) -> anyhow::Result<()> {
        let followers = Rc::clone(&self.followers);
        for number in 1..self.expected.len() {
            let mut got: Vec<Step> = Vec::new();
            let begun = Instant::now();
            let expected = std::mem::take(&mut self.expected[number]);
            let last = expected.last().map_or(0, |step| step.revision);
            loop {
                let (reached, steps) = {
                    let follower = &followers.borrow()[number];
                    follower.check()?;
                    (follower.last(), follower.take())
                };
                got.extend(steps);
                if reached >= last {
                    break;
                }
                ensure!(
                    begun.elapsed() < FOLLOW_MAX,
                    "watch {number} stays at {reached} of {last}"
                );
                tokio::time::sleep(FOLLOW_POLL).await;
            }
            // A lease that expires right now makes a newer step: it is for the next time.
            let newer = got.partition_point(|step| step.revision <= revision);
            let newer = got.split_off(newer);
            let revisions = |steps: &[Step]| steps.iter().map(|s| s.revision).collect::<Vec<_>>();
            ensure!(
                revisions(&got) == revisions(&expected),
                "watch {number} got {:?}, expected {:?}",
                revisions(&got),
                revisions(&expected)
            );
            for (got, expected) in got.iter().zip(&expected) {
                ensure!(
                    got.changes == expected.changes,
                    "watch {number} got something else at {}",
                    got.revision
                );
            }
            followers.borrow()[number].give_back(newer);
        }
        Ok(())
    }

    async fn check_hash(&self, client: &Client) -> anyhow::Result<()> {
        let answer = soon("hash", client.hash(self.model.revision)).await?;
        let expected = self.model.hash();
        ensure!(
            answer.hash == expected && answer.hash_revision == self.model.revision,
            "the hash at {} compacted {} is {:x}, computed {expected:x}",
            answer.hash_revision,
            answer.compact_revision,
            answer.hash
        );
        Ok(())
    }

    async fn check_content(&self, client: &Client, revision: i64) -> anyhow::Result<()> {
        let answer = soon("read everything", client.range(everything_at(revision))).await?;
        let found = answer.kvs.iter().map(|kv| KeyValue::decode(&kv.0[..]));
        let found: Vec<KeyValue> = found.collect::<Result<_, _>>().context("decode a record")?;
        let expected = self.model.content(revision);
        let differs = found
            .iter()
            .zip(&expected)
            .find(|(found, expected)| found != *expected);
        if let Some((found, expected)) = differs {
            bail!("at {revision} there is {found:?}, expected {expected:?}");
        }
        ensure!(
            found.len() == expected.len() && answer.count == i64::try_from(expected.len())?,
            "at {revision} there are {} keys, counted {}, expected {}",
            found.len(),
            answer.count,
            expected.len()
        );
        Ok(())
    }

    /// What is kept of history reads as it did when it was made.
    async fn check_changes(&self, client: &Client, revision: i64) -> anyhow::Result<()> {
        let from = self.model.compacted.max(1);
        let expected = self.model.changes_after(from);
        let reading = changes_between(client, from + 1, revision);
        let found = soon("read the history", reading).await?;
        let differs = found
            .iter()
            .zip(&expected)
            .find(|(found, expected)| found != *expected);
        if let Some((found, expected)) = differs {
            bail!("the history has {found:?}, had {expected:?}");
        }
        ensure!(
            found.len() == expected.len(),
            "the history after {from} has {} changes, had {}",
            found.len(),
            expected.len()
        );
        Ok(())
    }

    async fn check_leases(&self, client: &Client) -> anyhow::Result<()> {
        let answer = soon("list the leases", client.leases()).await?;
        let found: BTreeSet<i64> = answer.leases.iter().map(|lease| lease.id).collect();
        for (id, ttl) in self
            .settle_leases(&found)?
            .into_iter()
            .rev()
            .take(LEASES_COMPARED)
        {
            let answer = soon("ask for a lease", client.time_to_live(id)).await?;
            let keys: BTreeSet<&Bytes> = answer.keys.iter().collect();
            ensure!(
                keys == self.model.attached(id).collect(),
                "lease {id} has keys {keys:?}, expected {:?}",
                self.model.attached(id).collect::<Vec<_>>()
            );
            ensure!(
                answer.granted_ttl == ttl && answer.ttl > 0 && answer.ttl <= ttl + 60,
                "lease {id} has {} of {} seconds, granted {ttl}",
                answer.ttl,
                answer.granted_ttl
            );
        }
        Ok(())
    }

    /// Compares the leases that are there with those that must be; what was in doubt is known then.
    /// Answers those that last, with their TTL.
    fn settle_leases(&self, found: &BTreeSet<i64>) -> anyhow::Result<Vec<(i64, i64)>> {
        let mut history = self.history.borrow_mut();
        if let Some(id) = found.iter().find(|id| !history.leases.contains_key(id)) {
            bail!("lease {id} is there, nobody asked for it");
        }
        for (id, lease) in &history.leases {
            let there = found.contains(id);
            ensure!(
                lease.is_doubtful() || there == lease.revoked.is_none(),
                "lease {id} is there: {there}; it is {lease:?}"
            );
        }
        // A start settles what was in doubt.
        let model = &self.model;
        history
            .leases
            .retain(|id, _| found.contains(id) || model.attached(*id).next().is_some());
        for lease in history.leases.values_mut() {
            lease.granted = true;
            lease.revoked = None;
        }
        let lasting = history
            .leases
            .iter()
            .filter(|(_, lease)| !lease.may_expire());
        Ok(lasting.map(|(id, lease)| (*id, lease.ttl)).collect())
    }
}
