//! Space: what compaction frees is used again, and Defragment gives it back.

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

async fn update_and_compact(client: &Client) {
    let mut last = 0;
    for batch in 0..ROUND / BATCH {
        let puts = (0..BATCH).map(|n| {
            let n = batch * BATCH + n;
            client.put(format!("/registry/pods/{:05}", n % KEYS), vec![b'v'; 1024])
        });
        last = try_join_all(puts).await.unwrap().into_iter().max().unwrap();
    }
    client.compact(last).await.unwrap();
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
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
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
            update_and_compact(&client).await;
            let (file, used) = sizes(&client).await;
            println!("round {round}: file {file}, in use {used}");
            after_rounds.push((file, used));
        }
        let live = i64::try_from(KEYS * 1_100).unwrap();
        let (first_file, _) = after_rounds[0];
        for (file, used) in &after_rounds {
            assert!(*used < 2 * live, "{used} in use for {live} live");
            assert!(*file < 3 * first_file, "{file} after {first_file}");
        }
        client.defragment().await.unwrap();
        let (file, used) = sizes(&client).await;
        println!("defragmented: file {file}, in use {used}");
        assert!(file < 4 * live, "{file} for {live} live");
        assert_eq!(
            client.all(0).await.unwrap().len() / 1024,
            KEYS * 1_060 / 1024
        );
    });
    server.stop();
}
