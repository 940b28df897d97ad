//! Keys and values, transactions, compaction.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse,
};
use tonic::Code;

use crate::server::{Server, check_error, in_time};

#[tokio::test]
async fn put_get_delete_with_their_options() {
    let server = Server::start();
    let mut client = server.client().await;
    let first = client.put("a", "1", None).await.unwrap();
    assert_eq!(first.header().unwrap().revision(), 2);
    let options = PutOptions::new().with_prev_key();
    let second = client.put("a", "2", Some(options)).await.unwrap();
    assert_eq!(second.prev_key().unwrap().value(), b"1");
    for (key, value) in [("b/2", "x"), ("b/1", "y"), ("b/3", ""), ("c", "z")] {
        client.put(key, value, None).await.unwrap();
    }

    let got = client.get("a", None).await.unwrap();
    let kv = &got.kvs()[0];
    assert_eq!(
        (
            kv.value(),
            kv.create_revision(),
            kv.mod_revision(),
            kv.version(),
            kv.lease()
        ),
        (&b"2"[..], 2, 3, 2, 0)
    );
    let old = client
        .get("a", Some(GetOptions::new().with_revision(2)))
        .await
        .unwrap();
    assert_eq!(
        (old.kvs()[0].value(), old.header().unwrap().revision()),
        (&b"1"[..], 7)
    );

    let options = GetOptions::new()
        .with_prefix()
        .with_limit(2)
        .with_keys_only();
    let page = client.get("b/", Some(options)).await.unwrap();
    assert_eq!((page.kvs().len(), page.count(), page.more()), (2, 3, true));
    assert!(page.kvs().iter().all(|kv| kv.value().is_empty()));
    let options = GetOptions::new()
        .with_prefix()
        .with_sort(SortTarget::Mod, SortOrder::Descend);
    let sorted = client.get("b/", Some(options)).await.unwrap();
    let keys: Vec<_> = sorted
        .kvs()
        .iter()
        .map(|kv| kv.key_str().unwrap())
        .collect();
    assert_eq!(keys, ["b/3", "b/1", "b/2"]);
    let options = GetOptions::new().with_all_keys().with_count_only();
    assert_eq!(client.get("", Some(options)).await.unwrap().count(), 5);
    let options = GetOptions::new().with_from_key().with_serializable();
    assert_eq!(client.get("b/3", Some(options)).await.unwrap().count(), 2);

    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = client.delete("b/", Some(options)).await.unwrap();
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (3, 3));
    assert_eq!(deleted.prev_kvs()[0].key(), b"b/1");
    assert_eq!(client.delete("b/1", None).await.unwrap().deleted(), 0);
    check_error(
        client.put("", "x", None).await,
        Code::InvalidArgument,
        "etcdserver: key is not provided",
    );
}

#[tokio::test]
async fn a_large_range_as_a_stream_is_the_same_as_at_once() {
    let server = Server::start();
    let mut client = server.client().await;
    for i in 0..100 {
        client
            .put(format!("k{i:03}"), vec![b'x'; 40_000], None)
            .await
            .unwrap();
    }
    let options = || Some(GetOptions::new().with_prefix());
    let mut stream = client.kv_client().get_stream("k", options()).await.unwrap();
    let (mut keys, mut messages, mut count) = (Vec::new(), 0, 0);
    while let Some(mut message) = in_time(stream.message()).await.unwrap() {
        messages += 1;
        count = message.count();
        keys.extend(message.take_kvs().iter().map(|kv| kv.key().to_vec()));
    }
    let mut whole = client.get("k", options()).await.unwrap();
    let expected: Vec<_> = whole
        .take_kvs()
        .iter()
        .map(|kv| kv.key().to_vec())
        .collect();
    assert_eq!(keys, expected);
    assert_eq!(count, 100);
    assert!(messages > 1, "4 MB came in one message");
}

#[tokio::test]
async fn transactions_compare_branch_and_nest() {
    let server = Server::start();
    let mut client = server.client().await;
    client.put("a", "1", None).await.unwrap();
    let txn = Txn::new()
        .when([
            Compare::value("a", CompareOp::Equal, "1"),
            Compare::mod_revision("a", CompareOp::Less, 3),
            Compare::version("absent", CompareOp::Equal, 0),
            Compare::lease("a", CompareOp::Equal, 0),
        ])
        .and_then([
            TxnOp::put("a", "2", None),
            TxnOp::get("a", None),
            TxnOp::txn(
                Txn::new()
                    .when([Compare::create_revision("a", CompareOp::Greater, 100)])
                    .and_then([TxnOp::put("never", "", None)])
                    .or_else([TxnOp::put("nested", "yes", None)]),
            ),
            TxnOp::delete("absent", None),
        ])
        .or_else([TxnOp::get("b", None)]);
    let done = client.txn(txn.clone()).await.unwrap();
    assert!(done.succeeded());
    assert_eq!(done.header().unwrap().revision(), 3);
    let answers = done.op_responses();
    let [
        TxnOpResponse::Put(_),
        TxnOpResponse::Get(got),
        TxnOpResponse::Txn(nested),
        TxnOpResponse::Delete(deleted),
    ] = &answers[..]
    else {
        panic!("{answers:?}");
    };
    assert_eq!(got.kvs()[0].value(), b"2");
    assert!(!nested.succeeded());
    assert_eq!(deleted.deleted(), 0);
    assert_eq!(
        client.get("nested", None).await.unwrap().kvs()[0].mod_revision(),
        3
    );

    let again = client.txn(txn).await.unwrap();
    assert!(!again.succeeded() && matches!(again.op_responses()[..], [TxnOpResponse::Get(_)]));
    let twice = Txn::new().and_then([TxnOp::put("t", "1", None), TxnOp::put("t", "2", None)]);
    check_error(
        client.txn(twice).await,
        Code::InvalidArgument,
        "etcdserver: duplicate key given in txn request",
    );
}

#[tokio::test]
async fn what_is_compacted_is_gone_and_what_was_answered_survives_a_kill() {
    let mut server = Server::start();
    let mut client = server.client().await;
    for i in 0..20 {
        client.put("a", i.to_string(), None).await.unwrap();
    }
    client.compact(15, None).await.unwrap();
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    check_error(client.get("a", at(14)).await, Code::OutOfRange, compacted);
    check_error(client.compact(15, None).await, Code::OutOfRange, compacted);
    check_error(
        client.get("a", at(22)).await,
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
    server.kill_and_start();
    let mut client = server.client().await;
    assert_eq!(
        client.get("a", at(15)).await.unwrap().kvs()[0].value(),
        b"13"
    );
    let newest = client.get("a", None).await.unwrap();
    assert_eq!(
        (newest.kvs()[0].value(), newest.kvs()[0].version()),
        (&b"19"[..], 20)
    );
    assert_eq!(newest.header().unwrap().revision(), 21);
    check_error(client.get("a", at(14)).await, Code::OutOfRange, compacted);
}
