//! A member without a store behind it: a map, and what a test puts in its mouth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use kine2_etcd_api::{
    Identity, LeaseInfo, Member, MemberStatus, MetricsText, RequestError, StoreHash, WatchStream,
};
use kine2_mvcc::{
    Alarm, Answer, Applied, Command, DeleteAnswer, KeyRange, KeyValue, LeaseGrant, OpAnswer,
    PutAnswer, RangeAnswer, RangeQuery, Record, Refusal, Revision, TxnAnswer, TxnOp, WatchMessage,
    WatchRequest,
};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

pub(crate) const CLUSTER: u64 = 0xc1;
pub(crate) const MEMBER: u64 = 0xa1;
pub(crate) const TERM: u64 = 7;

#[derive(Clone, Debug)]
pub(crate) struct Double(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    identity: Identity,
    records: Mutex<BTreeMap<Bytes, Record>>,
    revision: AtomicI64,
    primary: AtomicU64,
    alarms: Mutex<Vec<Alarm>>,
    commands: Mutex<Vec<Command>>,
    queries: Mutex<Vec<RangeQuery>>,
    hubs: Mutex<Vec<DoubleWatch>>,
}

impl Double {
    pub(crate) fn new() -> Self {
        let identity = Identity {
            cluster_id: CLUSTER,
            member_id: MEMBER,
            name: "double".into(),
            peer_urls: vec!["http://127.0.0.1:2380".into()],
            client_urls: vec!["http://127.0.0.1:2379".into()],
        };
        Self(Arc::new(Inner {
            identity,
            records: Mutex::default(),
            revision: AtomicI64::new(1),
            primary: AtomicU64::new(MEMBER),
            alarms: Mutex::default(),
            commands: Mutex::default(),
            queries: Mutex::default(),
            hubs: Mutex::default(),
        }))
    }

    pub(crate) fn put(&self, key: &str, value: &[u8]) {
        let revision = self.0.revision.fetch_add(1, Ordering::Relaxed) + 1;
        let record = KeyValue {
            key: key.as_bytes(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            value,
            lease: 0,
        };
        self.0
            .records
            .lock()
            .insert(Bytes::copy_from_slice(key.as_bytes()), record.to_record());
    }

    pub(crate) fn lose_primary(&self) {
        self.0.primary.store(0, Ordering::Relaxed);
    }

    pub(crate) fn raise(&self, alarm: Alarm) {
        self.0.alarms.lock().push(alarm);
    }

    pub(crate) fn take_queries(&self) -> Vec<RangeQuery> {
        std::mem::take(&mut self.0.queries.lock())
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut self.0.commands.lock())
    }

    /// The other end of the next watch stream.
    pub(crate) fn next_watch(&self) -> Hub {
        let (calls_in, calls) = mpsc::unbounded_channel();
        let (messages, messages_out) = mpsc::unbounded_channel();
        let taken = Arc::new(AtomicUsize::new(0));
        let watch = DoubleWatch {
            calls: calls_in,
            messages: messages_out,
            taken: Arc::clone(&taken),
        };
        self.0.hubs.lock().push(watch);
        Hub {
            calls,
            messages,
            taken,
        }
    }

    fn now(&self) -> Revision {
        Revision(self.0.revision.load(Ordering::Relaxed))
    }

    fn find(&self, range: &KeyRange) -> Vec<Record> {
        let records = self.0.records.lock();
        let found = records.iter().filter(|(key, _)| range.contains(key));
        found.map(|(_, record)| record.clone()).collect()
    }

    fn read(&self, query: &RangeQuery) -> RangeAnswer {
        let mut records = self.find(&query.range);
        let mut count = i64::try_from(records.len()).unwrap();
        if query.count_only {
            return RangeAnswer {
                count,
                ..RangeAnswer::default()
            };
        }
        let limit = usize::try_from(query.limit).unwrap();
        let more = limit > 0 && records.len() > limit;
        if limit > 0 {
            records.truncate(limit);
        }
        if query.uncounted {
            count = i64::try_from(records.len()).unwrap();
        }
        RangeAnswer {
            records,
            more,
            count,
        }
    }

    fn run(&self, op: &TxnOp) -> OpAnswer {
        match op {
            TxnOp::Range(query) => OpAnswer::Range(self.now(), self.read(query)),
            TxnOp::Put(put) => {
                self.put(std::str::from_utf8(&put.key).unwrap(), &put.value);
                OpAnswer::Put(self.now(), PutAnswer::default())
            }
            TxnOp::Delete(delete) => {
                let prevs = self.find(&delete.range);
                self.0
                    .records
                    .lock()
                    .retain(|key, _| !delete.range.contains(key));
                let deleted = i64::try_from(prevs.len()).unwrap();
                OpAnswer::Delete(self.now(), DeleteAnswer { deleted, prevs })
            }
            TxnOp::Txn(txn) => {
                let ops = txn.success.iter().map(|op| self.run(op)).collect();
                OpAnswer::Txn(TxnAnswer {
                    succeeded: true,
                    ops,
                })
            }
        }
    }
}

impl Member for Double {
    type Watch = DoubleWatch;

    fn identity(&self) -> &Identity {
        &self.0.identity
    }

    fn term(&self) -> u64 {
        TERM
    }

    fn revision(&self) -> Revision {
        self.now()
    }

    async fn propose(&self, command: Command) -> Result<Applied, RequestError> {
        self.0.commands.lock().push(command.clone());
        let answer = match command {
            Command::Noop => Answer::Nothing,
            Command::Put(put) => match self.run(&TxnOp::Put(put)) {
                OpAnswer::Put(_, answer) => Answer::Put(answer),
                _ => unreachable!(),
            },
            Command::Delete(delete) => match self.run(&TxnOp::Delete(delete)) {
                OpAnswer::Delete(_, answer) => Answer::Delete(answer),
                _ => unreachable!(),
            },
            Command::Txn(txn) => match self.run(&TxnOp::Txn(txn)) {
                OpAnswer::Txn(answer) => Answer::Txn(answer),
                _ => unreachable!(),
            },
            Command::Compact(compact) if compact.revision > self.now().0 => {
                return Err(Refusal::FutureRevision.into());
            }
            Command::Compact(_) => Answer::Compacted,
            Command::LeaseGrant(grant) => {
                let id = if grant.id == 0 { 99 } else { grant.id };
                Answer::LeaseGranted(LeaseGrant { id, ..grant })
            }
            Command::LeaseRevoke { .. } => return Err(Refusal::LeaseNotFound.into()),
            Command::Alarm(_) => Answer::Alarms(self.alarms()),
        };
        Ok(Applied {
            revision: self.now(),
            answer,
        })
    }

    async fn range(
        &self,
        query: &RangeQuery,
        _serializable: bool,
    ) -> Result<(Revision, RangeAnswer), RequestError> {
        self.0.queries.lock().push(query.clone());
        if query.revision > self.now().0 {
            return Err(Refusal::FutureRevision.into());
        }
        Ok((self.now(), self.read(query)))
    }

    /// Leases up to 100 live, for as many seconds as their id says.
    async fn keep_alive(&self, lease: i64) -> Result<(Revision, i64), RequestError> {
        Ok((self.now(), if lease <= 100 { lease } else { 0 }))
    }

    async fn time_to_live(
        &self,
        lease: i64,
        with_keys: bool,
    ) -> Result<Option<LeaseInfo>, RequestError> {
        Ok((lease <= 100).then(|| LeaseInfo {
            revision: self.now(),
            remaining_seconds: lease - 1,
            granted_seconds: lease,
            keys: if with_keys {
                vec![Bytes::from_static(b"k")]
            } else {
                vec![]
            },
        }))
    }

    async fn leases(&self) -> Result<Vec<i64>, RequestError> {
        Ok(vec![3, 5])
    }

    async fn hash(&self, revision: Revision) -> Result<StoreHash, RequestError> {
        let at = if revision.0 == 0 {
            self.now()
        } else {
            revision
        };
        Ok(StoreHash {
            hash: 42,
            current: self.now(),
            at,
            compacted: Revision(-1),
        })
    }

    async fn defragment(&self) -> Result<(), RequestError> {
        Ok(())
    }

    fn status(&self) -> MemberStatus {
        MemberStatus {
            revision: self.now(),
            primary: self.0.primary.load(Ordering::Relaxed),
            log_index: 12,
            applied_index: 11,
            db_size: 2000,
            db_size_in_use: 1000,
            quota: 1 << 31,
        }
    }

    fn alarms(&self) -> Vec<Alarm> {
        self.0.alarms.lock().clone()
    }

    fn members(&self) -> Vec<Identity> {
        vec![self.0.identity.clone()]
    }

    fn watch(&self) -> DoubleWatch {
        self.0.hubs.lock().pop().unwrap_or_else(|| {
            self.next_watch();
            self.watch()
        })
    }

    fn metrics(&self, out: &mut MetricsText) {
        out.counter("etcd_mvcc_put_total", "Puts.", 5);
    }
}

/// What a watch stream was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HubCall {
    Create(WatchRequest),
    Cancel(i64),
    Progress,
}

/// What a test has of a watch stream.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) calls: UnboundedReceiver<HubCall>,
    pub(crate) messages: UnboundedSender<Result<Vec<WatchMessage>, RequestError>>,
    /// Batches of messages that the stream has taken.
    pub(crate) taken: Arc<AtomicUsize>,
}

#[derive(Debug)]
pub(crate) struct DoubleWatch {
    calls: UnboundedSender<HubCall>,
    messages: UnboundedReceiver<Result<Vec<WatchMessage>, RequestError>>,
    taken: Arc<AtomicUsize>,
}

impl WatchStream for DoubleWatch {
    fn create(&mut self, request: WatchRequest) {
        let _ = self.calls.send(HubCall::Create(request));
    }

    fn cancel(&mut self, id: i64) {
        let _ = self.calls.send(HubCall::Cancel(id));
    }

    fn request_progress(&mut self) {
        let _ = self.calls.send(HubCall::Progress);
    }

    async fn next(&mut self) -> Result<Vec<WatchMessage>, RequestError> {
        match self.messages.recv().await {
            Some(messages) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                messages
            }
            None => std::future::pending().await,
        }
    }
}
