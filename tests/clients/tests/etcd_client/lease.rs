//! Leases and keeping them alive.

use std::time::{Duration, Instant};

use etcd_client::{LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions};
use tonic::Code;

use crate::server::{Server, check_error, in_time};

#[tokio::test]
async fn a_lease_is_granted_listed_and_revoked_with_its_keys() {
    let server = Server::start();
    let mut client = server.client().await;
    let granted = client.lease_grant(60, None).await.unwrap();
    assert!(granted.id() > 0 && granted.ttl() == 60);
    let options = LeaseGrantOptions::new().with_id(77);
    assert_eq!(
        client
            .lease_grant(60, Some(options.clone()))
            .await
            .unwrap()
            .id(),
        77
    );
    check_error(
        client.lease_grant(60, Some(options)).await,
        Code::FailedPrecondition,
        "etcdserver: lease already exists",
    );
    let on_lease = || Some(PutOptions::new().with_lease(77));
    client.put("b", "", on_lease()).await.unwrap();
    client.put("a", "", on_lease()).await.unwrap();
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let left = client.lease_time_to_live(77, Some(options)).await.unwrap();
    assert_eq!(left.granted_ttl(), 60);
    assert!((50..=60).contains(&left.ttl()));
    let mut keys = left.keys().to_vec();
    keys.sort();
    assert_eq!(keys, [b"a", b"b"]);
    assert_eq!(client.leases().await.unwrap().leases().len(), 2);

    let before = client
        .get("a", None)
        .await
        .unwrap()
        .header()
        .unwrap()
        .revision();
    client.lease_revoke(77).await.unwrap();
    let after = client.get("a", None).await.unwrap();
    assert_eq!(
        (after.count(), after.header().unwrap().revision()),
        (0, before + 1)
    );
    assert_eq!(client.lease_time_to_live(77, None).await.unwrap().ttl(), -1);
    let gone = "etcdserver: requested lease not found";
    check_error(client.lease_revoke(77).await, Code::NotFound, gone);
    check_error(client.put("a", "", on_lease()).await, Code::NotFound, gone);
}

#[tokio::test]
async fn a_lease_lives_while_it_is_kept_alive_and_not_longer() {
    let server = Server::start();
    let mut client = server.client().await;
    let lease = client.lease_grant(2, None).await.unwrap().id();
    client
        .put("a", "", Some(PutOptions::new().with_lease(lease)))
        .await
        .unwrap();
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        keeper.keep_alive().await.unwrap();
        let answer = in_time(answers.message()).await.unwrap().unwrap();
        assert_eq!((answer.id(), answer.ttl()), (lease, 2));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(client.get("a", None).await.unwrap().count(), 1);
    let last = Instant::now();
    while client.get("a", None).await.unwrap().count() == 1 {
        assert!(last.elapsed() < Duration::from_secs(10), "it does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        last.elapsed() > Duration::from_millis(1500),
        "it ended early"
    );
    keeper.keep_alive().await.unwrap();
    assert_eq!(in_time(answers.message()).await.unwrap().unwrap().ttl(), 0);
}
