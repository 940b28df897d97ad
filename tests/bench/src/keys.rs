//! The keys of a store as the clients know them, and values for them.

use std::rc::Rc;

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::grpc::Connection;
use crate::protobuf::Fields;
use crate::requests::{self, Method};

/// Bytes of a value.
pub(crate) const VALUE_BYTES: usize = 1024;
/// Clients that put the first keys there.
const PRELOAD_CLIENTS: usize = 128;

/// What the keys begin with that are read, listed, updated and watched.
pub(crate) const PREFIX: &[u8] = b"/registry/configmaps/";
/// The end of that range.
pub(crate) const PREFIX_END: &[u8] = b"/registry/configmaps0";

/// A key of [`PREFIX`], 60 bytes as a namespace and a name make them. Keys sort as their numbers.
pub(crate) fn key(number: usize) -> Vec<u8> {
    format!("/registry/configmaps/bench-namespace/configmap-{number:013}").into_bytes()
}

/// A key outside of [`PREFIX`] that was not used before if the number was not.
pub(crate) fn new_key(number: usize) -> Vec<u8> {
    format!("/registry/events/bench-namespace/a-fresh-event.{number:013}").into_bytes()
}

/// The number in a key.
pub(crate) fn number_in(key: &[u8]) -> Option<usize> {
    let digits = key.get(key.len().checked_sub(13)?..)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// xorshift64 (Marsaglia 2003). The same numbers in each run, so that servers get the same work.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).expect("below a usize")
    }
}

/// Values that do not compress: slices of random bytes.
#[derive(Clone, Debug)]
pub(crate) struct Values(Rc<[u8]>);

impl Values {
    pub(crate) fn new() -> Self {
        let mut random = Random::new(0);
        let byte = |_| u8::try_from(random.below(256)).expect("a byte");
        Self((0..64 * VALUE_BYTES).map(byte).collect())
    }

    pub(crate) fn any(&self, random: &mut Random) -> &[u8] {
        let start = random.below(self.0.len() - VALUE_BYTES);
        &self.0[start..start + VALUE_BYTES]
    }
}

/// What the clients know of one server's store: it is theirs alone.
#[derive(Debug)]
pub(crate) struct Store {
    /// The revision of each key, by the number of the key.
    pub(crate) revisions: Vec<i64>,
    /// Numbers given out for [`new_key`].
    pub(crate) new_keys: usize,
    pub(crate) values: Values,
}

impl Store {
    /// Puts `count` keys into an empty server.
    pub(crate) async fn preload(
        address: &str,
        count: usize,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let connections = Connection::open_many(address, connections).await?;
        let values = Values::new();
        let mut tasks = JoinSet::new();
        for client in 0..PRELOAD_CLIENTS {
            let connection = connections[client % connections.len()].clone();
            let values = values.clone();
            tasks.spawn_local(async move {
                let mut random = Random::new(client);
                let mut revisions = Vec::new();
                for number in (client..count).step_by(PRELOAD_CLIENTS) {
                    let request = requests::create(&key(number), values.any(&mut random), 0);
                    let answer = connection.call(Method::Txn, request).await?;
                    revisions.push((number, written_revision(&answer)?));
                }
                anyhow::Ok(revisions)
            });
        }
        let mut revisions = vec![0; count];
        while let Some(done) = tasks.join_next().await {
            for (number, revision) in done?.context("preload")? {
                revisions[number] = revision;
            }
        }
        Ok(Self {
            revisions,
            new_keys: 0,
            values,
        })
    }

    pub(crate) fn next_new_key(&mut self) -> Vec<u8> {
        self.new_keys += 1;
        new_key(self.new_keys)
    }
}

/// The revision a Txn wrote; that it wrote nothing is an error.
pub(crate) fn written_revision(answer: &Bytes) -> anyhow::Result<i64> {
    let answer = Fields(answer);
    anyhow::ensure!(answer.int(2) == 1, "a compare failed that had to hold");
    Ok(answer.message(1).int(3))
}
