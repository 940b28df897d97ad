//! Clients that write, read, lease and compact at once until the server is gone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use kine2_proto::decoded::KeyValue;
use kine2_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use kine2_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op,
};
use prost::Message;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::client::{Client, get, revision_of};
use crate::history::{Effect, History, Lease, Read};
use crate::rng::Rng;

/// Keys that clients contend for.
const SHARED_KEYS: u64 = 300;
/// Keys that are deleted without a transaction.
const PLAIN_KEYS: u64 = 40;
/// Leases a client holds at most.
const LEASES_MAX: usize = 6;
/// Reads noted at most between two restarts; each is compared with the model.
const READS_MAX: usize = 20_000;

/// What the load is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clients that write.
    pub clients: u64,
    /// Bytes of the largest values.
    pub value_bytes_max: u64,
    /// Whether history is compacted and the state defragmented.
    pub compacts: bool,
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    tasks: Vec<JoinHandle<()>>,
    stopping: Rc<Cell<bool>>,
}

impl Load {
    /// Starts clients on a server. `followed` tells up to where everybody has followed: compaction
    /// does not go beyond.
    pub fn start(
        client: &Client,
        history: &Rc<RefCell<History>>,
        shape: Shape,
        rng: &mut Rng,
        followed: impl Fn() -> i64 + 'static,
    ) -> Self {
        let stopping = Rc::new(Cell::new(false));
        let mut tasks = Vec::new();
        let held: Vec<i64> = history.borrow().leases.keys().copied().collect();
        for number in 0..shape.clients {
            // Leases that outlived a crash are used and given up like new ones.
            let share = held.iter().zip((0..shape.clients).cycle());
            let leases = share.filter(|(_, to)| *to == number).map(|(id, _)| *id);
            let worker = Worker {
                number,
                client: client.clone(),
                history: Rc::clone(history),
                rng: rng.fork(),
                shape,
                known: BTreeMap::new(),
                leases: leases.collect(),
            };
            let stopping = Rc::clone(&stopping);
            tasks.push(tokio::task::spawn_local(worker.run(stopping)));
        }
        if shape.compacts {
            let janitor = Janitor {
                client: client.clone(),
                history: Rc::clone(history),
                rng: rng.fork(),
                followed: Box::new(followed),
            };
            tasks.push(tokio::task::spawn_local(janitor.run(Rc::clone(&stopping))));
        }
        Self { tasks, stopping }
    }

    /// Waits until each client has its answer, or knows that it gets none.
    pub async fn finish(self) {
        self.stopping.set(true);
        for task in self.tasks {
            // It ends with an answer or an error of its connection.
            drop(task.await);
        }
    }
}

/// The server was not there any more: whether the call did something is unknown.
struct Gone;

fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::ResourceExhausted
    )
}

struct Worker {
    number: u64,
    client: Client,
    history: Rc<RefCell<History>>,
    rng: Rng,
    shape: Shape,
    /// Revisions of keys as this client knows them.
    known: BTreeMap<Bytes, i64>,
    leases: Vec<i64>,
}

impl Worker {
    async fn run(mut self, stopping: Rc<Cell<bool>>) {
        while !stopping.get() {
            let done = match self.rng.within(0..100) {
                0..62 => self.write().await,
                62..70 => self.delete_plain().await,
                70..82 => self.read().await,
                82..88 => self.grant().await,
                88..96 => self.attach().await,
                _ => self.revoke().await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn write(&mut self) -> Result<(), Gone> {
        let mut keys = BTreeMap::new();
        for _ in 0..self.rng.within(1..4) {
            let key = if self.rng.percent(8) {
                plain_key(self.rng.within(0..PLAIN_KEYS))
            } else {
                shared_key(self.rng.within(0..SHARED_KEYS))
            };
            let deletes = self.rng.percent(15);
            keys.insert(key, deletes);
        }
        let mut effects = Vec::new();
        for (key, deletes) in keys {
            effects.push(if deletes {
                Effect::Delete { key }
            } else {
                let (value, lease) = (self.value(), 0);
                Effect::Put { key, value, lease }
            });
        }
        self.transact(effects).await
    }

    fn value(&mut self) -> Bytes {
        let max = self.shape.value_bytes_max;
        let len = match self.rng.within(0..100) {
            0..70 => self.rng.within(0..max / 40 + 1),
            70..95 => self.rng.within(0..max / 6 + 1),
            _ => self.rng.within(0..max),
        };
        let mut value = Vec::new();
        while value.len() < usize::try_from(len).unwrap_or_default() {
            value.extend_from_slice(&self.rng.next().to_le_bytes());
        }
        value.into()
    }

    /// Makes the effects if their keys are as this client knows them, and leaves a marker.
    async fn transact(&mut self, mut effects: Vec<Effect>) -> Result<(), Gone> {
        let id = self.history.borrow_mut().next_id();
        let compares: Vec<(Bytes, i64)> = effects
            .iter()
            .map(|effect| {
                let key = effect.key().clone();
                let known = self.known.get(&key).copied().unwrap_or_default();
                (key, known)
            })
            .collect();
        let marker = Effect::Put {
            key: format!("/m/{}", self.number).into(),
            value: format!("{id} by client {}", self.number).into(),
            lease: 0,
        };
        let at = self.rng.within(0..effects.len() as u64 + 1);
        effects.insert(usize::try_from(at).unwrap_or_default(), marker);
        let request = TxnRequest {
            compare: compares.iter().map(compare).collect(),
            success: effects.iter().map(operation).collect(),
            failure: Vec::new(),
        };
        let mut keys: Vec<Bytes> = compares.iter().map(|(key, _)| key.clone()).collect();
        self.history
            .borrow_mut()
            .sent(id, compares, effects.clone());
        match self.client.txn(request).await {
            Ok(answer) if answer.succeeded => {
                let revision = revision_of(answer.header.as_ref());
                self.history.borrow_mut().done(id, revision);
                for effect in effects {
                    let now = match effect {
                        Effect::Put { .. } => revision,
                        Effect::Delete { .. } => 0,
                    };
                    self.known.insert(effect.key().clone(), now);
                }
                Ok(())
            }
            Ok(answer) => {
                let revision = revision_of(answer.header.as_ref());
                self.history.borrow_mut().see(revision);
                self.history.borrow_mut().without_effect(id);
                let at = self.rng.within(0..keys.len() as u64);
                let key = keys.swap_remove(usize::try_from(at).unwrap_or_default());
                for other in keys {
                    self.look(other).await?;
                }
                self.look(key).await
            }
            Err(status) if is_refusal(&status) => {
                self.history.borrow_mut().without_effect(id);
                Ok(())
            }
            Err(_) => Err(Gone),
        }
    }

    async fn delete_plain(&mut self) -> Result<(), Gone> {
        let key = plain_key(self.rng.within(0..PLAIN_KEYS));
        let effect = Effect::Delete { key: key.clone() };
        let id = self.history.borrow_mut().next_id();
        self.history.borrow_mut().sent(id, Vec::new(), vec![effect]);
        self.known.remove(&key);
        let answer = self.client.delete(key).await.map_err(|_| Gone)?;
        let revision = revision_of(answer.header.as_ref());
        let mut history = self.history.borrow_mut();
        history.see(revision);
        if answer.deleted == 0 {
            history.without_effect(id);
        } else {
            history.done(id, revision);
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Gone> {
        let key = shared_key(self.rng.within(0..SHARED_KEYS));
        self.look(key).await
    }

    /// Learns what a key is at.
    async fn look(&mut self, key: Bytes) -> Result<(), Gone> {
        let answer = self.client.range(get(&key)).await.map_err(|_| Gone)?;
        let at = revision_of(answer.header.as_ref());
        let found = answer
            .kvs
            .first()
            .and_then(|kv| KeyValue::decode(&kv.0[..]).ok())
            .map_or((0, 0), |kv| (kv.mod_revision, kv.version));
        let mut history = self.history.borrow_mut();
        history.see(at);
        if history.reads.len() < READS_MAX {
            let key = key.clone();
            history.reads.push(Read { at, key, found });
        }
        self.known.insert(key, found.0);
        Ok(())
    }

    async fn grant(&mut self) -> Result<(), Gone> {
        if self.leases.len() >= LEASES_MAX {
            return Ok(());
        }
        // Most outlive the test; some expire while it runs.
        let ttl = if self.rng.percent(15) { 2 } else { 86_400 };
        let id = i64::try_from(self.rng.next() >> 2).unwrap_or(1);
        let lease = Lease {
            ttl,
            granted: false,
            asked_at: Instant::now(),
            revoked: None,
        };
        self.history.borrow_mut().leases.insert(id, lease);
        let answer = self.client.grant(id, ttl).await.map_err(|_| Gone)?;
        let mut history = self.history.borrow_mut();
        history.see(revision_of(answer.header.as_ref()));
        if let Some(lease) = history.leases.get_mut(&id) {
            lease.granted = true;
        }
        self.leases.push(id);
        Ok(())
    }

    /// Hangs keys on a lease.
    async fn attach(&mut self) -> Result<(), Gone> {
        let Some(&lease) = self.leases.last() else {
            return self.grant().await;
        };
        let first = self.rng.within(0..6);
        let mut effects = Vec::new();
        for number in first..first + self.rng.within(1..4) {
            effects.push(Effect::Put {
                key: format!("/l/{}/{number}", self.number).into(),
                value: self.value(),
                lease,
            });
        }
        self.transact(effects).await
    }

    async fn revoke(&mut self) -> Result<(), Gone> {
        if self.leases.is_empty() {
            return Ok(());
        }
        let at = self.rng.within(0..self.leases.len() as u64);
        let id = self
            .leases
            .swap_remove(usize::try_from(at).unwrap_or_default());
        if let Some(lease) = self.history.borrow_mut().leases.get_mut(&id) {
            lease.revoked = Some(false);
        }
        match self.client.revoke(id).await {
            Ok(answer) => {
                let mut history = self.history.borrow_mut();
                history.see(revision_of(answer.header.as_ref()));
                if let Some(lease) = history.leases.get_mut(&id) {
                    lease.revoked = Some(true);
                }
                Ok(())
            }
            // It had expired.
            Err(status) if is_refusal(&status) => Ok(()),
            Err(_) => Err(Gone),
        }
    }
}

/// Compacts, and defragments now and then.
struct Janitor {
    client: Client,
    history: Rc<RefCell<History>>,
    rng: Rng,
    followed: Box<dyn Fn() -> i64>,
}

impl Janitor {
    async fn run(mut self, stopping: Rc<Cell<bool>>) {
        while !stopping.get() {
            tokio::time::sleep(self.rng.millis(5..150)).await;
            let done = if self.rng.percent(25) {
                self.client.defragment().await.map(drop).map_err(|_| Gone)
            } else {
                self.compact().await
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn compact(&mut self) -> Result<(), Gone> {
        let (from, to) = (self.history.borrow().compaction_asked, (self.followed)());
        if to <= from + 1 {
            return Ok(());
        }
        let reach = u64::try_from(to - from).unwrap_or(1);
        let target = from + i64::try_from(self.rng.within(1..reach + 1)).unwrap_or(1);
        self.history.borrow_mut().compaction_asked = target;
        let physical = self.rng.percent(30);
        let answer = self.client.compact(target, physical).await;
        let answer = answer.map_err(|_| Gone)?;
        let mut history = self.history.borrow_mut();
        history.see(revision_of(answer.header.as_ref()));
        history.compacted = target;
        Ok(())
    }
}

fn shared_key(number: u64) -> Bytes {
    format!("/k/{number:04}").into()
}

fn plain_key(number: u64) -> Bytes {
    format!("/d/{number:04}").into()
}

fn compare((key, revision): &(Bytes, i64)) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::ModRevision(*revision)),
    }
}

fn operation(effect: &Effect) -> RequestOp {
    let request = match effect.clone() {
        Effect::Put { key, value, lease } => request_op::Request::RequestPut(PutRequest {
            key,
            value,
            lease,
            ..PutRequest::default()
        }),
        Effect::Delete { key } => request_op::Request::RequestDeleteRange(DeleteRangeRequest {
            key,
            ..DeleteRangeRequest::default()
        }),
    };
    RequestOp {
        request: Some(request),
    }
}
