//! Maintenance and cluster, and the proper errors of what is not there.

use etcd_client::{AlarmAction, AlarmType};
use tonic::Code;

use crate::server::{Server, check_error};

#[tokio::test]
async fn status_hash_defragment_alarms() {
    let server = Server::start();
    let mut client = server.client().await;
    for i in 0..10 {
        client.put("a", i.to_string(), None).await.unwrap();
    }
    let status = client.status().await.unwrap();
    let member = status.header().unwrap().member_id();
    assert_eq!(status.leader(), member);
    assert!(status.version().starts_with("3.6."));
    assert!(status.db_size() > 0 && status.raft_used_db_size() <= status.db_size());
    assert!(status.raft_applied_index() > 0 && status.raft_term() > 0);
    assert!(status.errors().is_empty() && !status.is_learner());

    let hash = client.hash_kv(5).await.unwrap();
    assert_eq!(hash.hash_revision(), 5);
    assert_eq!(client.hash_kv(5).await.unwrap().hash(), hash.hash());
    assert_ne!(client.hash_kv(6).await.unwrap().hash(), hash.hash());
    client.hash().await.unwrap();
    client.defragment().await.unwrap();
    assert_eq!(client.hash_kv(5).await.unwrap().hash(), hash.hash());

    let mut alarm = async |action, kind| client.alarm(action, kind, None).await.unwrap();
    assert!(
        alarm(AlarmAction::Get, AlarmType::None)
            .await
            .alarms()
            .is_empty()
    );
    let raised = alarm(AlarmAction::Activate, AlarmType::Nospace).await;
    assert_eq!(raised.alarms().len(), 1);
    let listed = alarm(AlarmAction::Get, AlarmType::None).await;
    assert_eq!(listed.alarms()[0].alarm(), AlarmType::Nospace);
    check_error(
        client.put("b", "", None).await,
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded",
    );
    client.delete("a", None).await.unwrap();
    client
        .alarm(AlarmAction::Deactivate, AlarmType::Nospace, None)
        .await
        .unwrap();
    client.put("b", "", None).await.unwrap();
}

#[tokio::test]
async fn members_are_one_that_clients_can_reach() {
    let server = Server::start();
    let mut client = server.client().await;
    let list = client.member_list().await.unwrap();
    let [member] = list.members() else {
        panic!("{list:?}");
    };
    assert_eq!(member.id(), list.header().unwrap().member_id());
    assert!(!member.name().is_empty() && !member.is_learner());
    assert_eq!(member.client_urls(), [server.url()]);
    check_error(
        client.member_remove(1).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    check_error(
        client.member_add(["http://127.0.0.1:1"], None).await,
        Code::Unimplemented,
        "etcdserver: adding members is not supported by this server",
    );
    check_error(
        client.move_leader(1).await,
        Code::FailedPrecondition,
        "etcdserver: bad leader transferee",
    );
    check_error(
        client.auth_enable().await,
        Code::FailedPrecondition,
        "etcdserver: root user does not exist",
    );
    check_error(
        client.lock("l", None).await,
        Code::Unimplemented,
        "etcdserver: the Lock service is not supported by this server",
    );
}
