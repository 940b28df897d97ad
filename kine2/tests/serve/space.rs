//! Space: what compaction frees is used again, and Defragment gives it back.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::server::{Client, Server, run};

const KEYS: usize = 1_000;
/// Updates between two compactions.
const ROUND: usize = 5_000;
/// Updates under way at once.
const BATCH: usize = 50;

fn rounds() -> usize {
    std::env::var("KINE2_SPACE_ROUNDS").map_or(3, |n| n.parse().unwrap())
}

/// Answers the newest revision.
async fn update(client: &Client) -> i64 {
    let mut last = 0;
    for batch in 0..ROUND / BATCH {
        let puts = (0..BATCH).map(|n| {
            let n = batch * BATCH + n;
            client.put(format!("/registry/pods/{:05}", n % KEYS), vec![b'v'; 1024])
        });
        last = try_join_all(puts).await.unwrap().into_iter().max().unwrap();
    }
    last
}

/// Longest a read and a write took, one after the other, while `work` went on.
async fn longest_during(client: &Client, work: impl Future<Output = ()>) -> Duration {
    let longest = Cell::new(Duration::ZERO);
    let probes = async {
        loop {
            let begun = Instant::now();
            client.get("/registry/probe").await.unwrap();
            let value = vec![b'p'];
            client.put("/registry/probe".into(), value).await.unwrap();
            longest.set(longest.get().max(begun.elapsed()));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = work => longest.get(),
        () = probes => unreachable!("probes go on"),
    }
}

/// Bytes of the file and in use, once the engine has caught up.
async fn sizes(client: &Client) -> (i64, i64) {
    let mut before = (0, 0);
    loop {
        let status = client.status().await.unwrap();
        let now = (status.db_size, status.db_size_in_use);
        if now == before {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[test]
fn updates_and_compactions_do_not_let_the_state_grow() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("data")).unwrap();
    run(async {
        let client = server.client().await;
        let mut after_rounds = Vec::new();
        for round in 0..rounds() {
            let last = update(&client).await;
            let compaction = async { client.compact(last).await.unwrap() };
            let longest = longest_during(&client, compaction).await;
            let (file, used) = sizes(&client).await;
            println!("round {round}: file {file}, in use {used}; get and put up to {longest:?}");
            after_rounds.push((file, used));
        }
        let live = i64::try_from(KEYS * 1_100).unwrap();
        let (first_file, _) = after_rounds[0];
        for (file, used) in &after_rounds {
            assert!(*used < 2 * live, "{used} in use for {live} live");
            assert!(*file < 3 * first_file, "{file} after {first_file}");
        }
        let defragmentation = async { client.defragment().await.unwrap() };
        let longest = longest_during(&client, defragmentation).await;
        let (file, used) = sizes(&client).await;
        println!("defragmented: file {file}, in use {used}; get and put up to {longest:?}");
        assert!(file < 4 * live, "{file} for {live} live");
        assert_eq!(client.keys().await.unwrap(), KEYS + 1);
    });
    server.stop();
}
