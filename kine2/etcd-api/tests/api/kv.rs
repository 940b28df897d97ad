//! KV over the wire.

use bytes::Bytes;
use kine2_mvcc::{Command, Operand, RangeEnd, Relation, SortBy, TxnOp};
use kine2_proto::decoded::KeyValue;
use kine2_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use kine2_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use kine2_proto::etcdserverpb::request_op::Request as Op;
use kine2_proto::etcdserverpb::response_op::Response as OpResponse;
use kine2_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse,
};
use prost::Message;
use tonic::{Code, Status};

use crate::client::{Client, Running, in_time};
use crate::double::{CLUSTER, MEMBER, TERM};

const RANGE: &str = "/etcdserverpb.KV/Range";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: CLUSTER,
        member_id: MEMBER,
        revision,
        raft_term: TERM,
    })
}

fn all() -> RangeRequest {
    RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..RangeRequest::default()
    }
}

fn put(key: &'static str, value: impl Into<Bytes>) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

fn keys(response: &RangeResponse) -> Vec<String> {
    let key = |wire: &Bytes| KeyValue::decode(wire.clone()).unwrap().key;
    response
        .kvs
        .iter()
        .map(|kv| String::from_utf8(key(&kv.0).into()).unwrap())
        .collect()
}

fn check_error<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn s3_answers_carry_the_header_and_records_arrive_as_they_are_stored() {
    let server = Running::start();
    let client = server.client().await;
    let answer: PutResponse = client.call(PUT, put("k", "v")).await.unwrap();
    assert_eq!(answer.header, header(2));

    let get = RangeRequest {
        key: "k".into(),
        ..RangeRequest::default()
    };
    let answer: RangeResponse = client.call(RANGE, get).await.unwrap();
    assert_eq!(
        (answer.header, answer.count, answer.more),
        (header(2), 1, false)
    );
    let kv = KeyValue::decode(answer.kvs[0].0.clone()).unwrap();
    assert_eq!(
        (&kv.key[..], &kv.value[..], kv.mod_revision),
        (&b"k"[..], &b"v"[..], 2)
    );

    let delete = DeleteRangeRequest {
        key: "k".into(),
        prev_kv: true,
        ..Default::default()
    };
    let answer: DeleteRangeResponse = client.call(DELETE, delete).await.unwrap();
    assert_eq!((answer.deleted, answer.prev_kvs.len()), (1, 1));

    let answer: CompactionResponse = client
        .call(
            COMPACT,
            CompactionRequest {
                revision: 2,
                physical: true,
            },
        )
        .await
        .unwrap();
    assert_eq!(answer.header, header(2));
}

#[tokio::test]
async fn s4_operations_of_a_transaction_carry_a_revision_only() {
    let server = Running::start();
    let client = server.client().await;
    let op = |op| RequestOp { request: Some(op) };
    let nested = TxnRequest {
        success: vec![op(Op::RequestPut(put("b", "2")))],
        ..Default::default()
    };
    let txn = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Mod.into(),
            key: "a".into(),
            range_end: "c".into(),
            // Of another kind than the target: counts as 0.
            target_union: Some(TargetUnion::Version(5)),
        }],
        success: vec![
            op(Op::RequestPut(put("a", "1"))),
            op(Op::RequestTxn(nested)),
        ],
        failure: vec![op(Op::RequestRange(all()))],
    };
    let answer: TxnResponse = client.call(TXN, txn).await.unwrap();
    assert_eq!((answer.header, answer.succeeded), (header(3), true));
    let [put, nested] = &answer.responses[..] else {
        panic!("{answer:?}")
    };
    let Some(OpResponse::ResponsePut(put)) = &put.response else {
        panic!("{put:?}")
    };
    assert_eq!(
        put.header,
        Some(ResponseHeader {
            revision: 2,
            ..Default::default()
        })
    );
    let Some(OpResponse::ResponseTxn(nested)) = &nested.response else {
        panic!("{nested:?}")
    };
    assert_eq!(nested.header, Some(ResponseHeader::default()));

    let [Command::Txn(txn)] = &server.member.take_commands()[..] else {
        panic!("one command")
    };
    assert_eq!(txn.compares[0].operand, Operand::Mod(0));
    assert_eq!(txn.compares[0].relation, Relation::Greater);
    assert!(
        matches!(&txn.failure[..], [TxnOp::Range(query)] if query.range.end == RangeEnd::Unbounded)
    );
}

#[tokio::test]
async fn s7_s11_s14_wrong_requests_get_etcds_words() {
    let server = Running::start();
    let client = server.client().await;
    let invalid = Code::InvalidArgument;
    let no_key = RangeRequest::default();
    check_error(
        client.call::<_, RangeResponse>(RANGE, no_key).await,
        invalid,
        "etcdserver: key is not provided",
    );
    let sort = RangeRequest {
        sort_target: 9,
        ..all()
    };
    check_error(
        client.call::<_, RangeResponse>(RANGE, sort).await,
        invalid,
        "etcdserver: invalid sort option",
    );
    let flags = PutRequest {
        ignore_value: true,
        ..put("k", "v")
    };
    check_error(
        client.call::<_, PutResponse>(PUT, flags).await,
        invalid,
        "etcdserver: value is provided",
    );
    let future = RangeRequest {
        revision: 9,
        ..all()
    };
    let text = "etcdserver: mvcc: required revision is a future revision";
    check_error(
        client.call::<_, RangeResponse>(RANGE, future).await,
        Code::OutOfRange,
        text,
    );
    let empty_op = TxnRequest {
        success: vec![RequestOp::default()],
        ..Default::default()
    };
    check_error(
        client.call::<_, TxnResponse>(TXN, empty_op).await,
        invalid,
        "etcdserver: key not found",
    );
    let unknown = Compare {
        key: "k".into(),
        target: 77,
        ..Compare::default()
    };
    let unknown = TxnRequest {
        compare: vec![unknown],
        ..Default::default()
    };
    check_error(
        client.call::<_, TxnResponse>(TXN, unknown).await,
        invalid,
        "etcdserver: unknown compare target or result",
    );
    check_error(
        client
            .call::<_, PutResponse>("/etcdserverpb.KV/Nope", put("k", "v"))
            .await,
        Code::Unimplemented,
        "unknown method Nope for service etcdserverpb.KV",
    );
    check_error(
        client
            .call::<_, PutResponse>("/etcdserverpb.K/Put", put("k", "v"))
            .await,
        Code::Unimplemented,
        "unknown service etcdserverpb.K",
    );
}

#[tokio::test]
async fn writes_of_one_and_a_half_mebibytes_are_too_large_and_of_two_are_not_received() {
    let server = Running::start();
    let client = server.client().await;
    let value = |bytes: usize| put("k", vec![b'x'; bytes]);
    let limit = 1_572_864;
    client
        .call::<_, PutResponse>(PUT, value(limit - 100))
        .await
        .unwrap();
    check_error(
        client.call::<_, PutResponse>(PUT, value(limit)).await,
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    let request = value(2 << 20);
    let text = format!(
        "grpc: received message larger than max ({} vs. 2097152)",
        request.encoded_len()
    );
    check_error(
        client.call::<_, PutResponse>(PUT, request).await,
        Code::ResourceExhausted,
        &text,
    );
    // The connection goes on.
    client.call::<_, PutResponse>(PUT, value(1)).await.unwrap();
}

/// Key `i` of those that `fill` puts.
fn key(i: usize) -> String {
    format!("k{i:05}")
}

fn fill(server: &Running, count: usize, value_bytes: usize) {
    for i in 0..count {
        server.member.put(&key(i), &vec![b'v'; value_bytes]);
    }
}

#[tokio::test]
async fn s9_a_long_list_is_read_in_slices_of_one_revision() {
    let server = Running::start();
    let client = server.client().await;
    fill(&server, 3000, 1000);
    let answer: RangeResponse = client.call(RANGE, all()).await.unwrap();
    assert_eq!(answer.header, header(3001));
    assert_eq!((answer.count, answer.more), (3000, false));
    assert_eq!(keys(&answer), (0..3000).map(key).collect::<Vec<_>>());
    let queries = server.member.take_queries();
    assert!(queries.len() > 2, "{} slices", queries.len());
    assert_eq!(queries[0].revision, 0);
    assert!(
        queries[1..]
            .iter()
            .all(|query| query.revision == 3001 && query.limit > 0)
    );

    let limited = RangeRequest {
        limit: 2000,
        ..all()
    };
    let answer: RangeResponse = client.call(RANGE, limited).await.unwrap();
    assert_eq!(
        (answer.kvs.len(), answer.count, answer.more),
        (2000, 3000, true)
    );
    let limited = RangeRequest {
        limit: 3000,
        ..all()
    };
    let answer: RangeResponse = client.call(RANGE, limited).await.unwrap();
    assert_eq!(
        (answer.kvs.len(), answer.count, answer.more),
        (3000, 3000, false)
    );

    server.member.take_queries();
    let page = RangeRequest {
        limit: 500,
        ..all()
    };
    client.call::<_, RangeResponse>(RANGE, page).await.unwrap();
    let sorted = RangeRequest {
        sort_target: SortTarget::Value.into(),
        ..all()
    };
    client
        .call::<_, RangeResponse>(RANGE, sorted)
        .await
        .unwrap();
    let queries = server.member.take_queries();
    let [page, sorted] = &queries[..] else {
        panic!("a page and a sorted range are read at once")
    };
    assert_eq!((page.limit, page.sort), (500, None));
    let sort = sorted.sort.unwrap();
    assert_eq!((sort.by, sort.descending), (SortBy::Value, false));
}

async fn stream(client: &Client, request: RangeRequest) -> Result<Vec<RangeResponse>, Status> {
    let mut stream = client.server_stream(RANGE_STREAM, request).await?;
    let mut chunks = Vec::new();
    while let Some(RangeStreamResponse { range_response }) = in_time(stream.message()).await? {
        chunks.push(range_response.unwrap());
    }
    Ok(chunks)
}

#[tokio::test]
async fn s57_s58_a_stream_comes_in_chunks_and_only_the_last_tells_of_the_whole() {
    let server = Running::start();
    let client = server.client().await;
    let empty = stream(&client, all()).await.unwrap();
    assert_eq!(
        empty,
        [RangeResponse {
            header: header(1),
            ..Default::default()
        }]
    );

    fill(&server, 1000, 2000);
    let chunks = stream(&client, all()).await.unwrap();
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.len() > 2);
    // The first come small and early.
    assert!(others[0].kvs.len() < others[1].kvs.len() && others[0].kvs.len() < 20);
    assert!(
        others
            .iter()
            .all(|chunk| chunk.header.is_none() && chunk.count == 0 && !chunk.more)
    );
    assert_eq!(
        (last.header, last.count, last.more),
        (header(1001), 1000, false)
    );
    let found: Vec<String> = chunks.iter().flat_map(keys).collect();
    assert_eq!(found, (0..1000).map(key).collect::<Vec<_>>());
    let queries = server.member.take_queries();
    assert!(queries[2..].iter().all(|query| query.revision == 1001));

    let limited = stream(&client, RangeRequest { limit: 20, ..all() })
        .await
        .unwrap();
    assert_eq!(
        limited.iter().map(|chunk| chunk.kvs.len()).sum::<usize>(),
        20
    );
    assert_eq!(
        (limited.last().unwrap().count, limited.last().unwrap().more),
        (1000, true)
    );
    let count = stream(
        &client,
        RangeRequest {
            count_only: true,
            ..all()
        },
    )
    .await
    .unwrap();
    assert_eq!(
        count,
        [RangeResponse {
            header: header(1001),
            count: 1000,
            ..Default::default()
        }]
    );
    let by_key = RangeRequest {
        sort_order: SortOrder::Ascend.into(),
        ..all()
    };
    assert!(stream(&client, by_key).await.is_ok());
}

#[tokio::test]
async fn s57_a_stream_has_no_other_order_and_no_filters() {
    let server = Running::start();
    let client = server.client().await;
    let descending = RangeRequest {
        sort_order: SortOrder::Descend.into(),
        ..all()
    };
    let text = "RangeStream does not support custom sort orders";
    check_error(stream(&client, descending).await, Code::Unimplemented, text);
    let filtered = RangeRequest {
        max_mod_revision: 1,
        ..all()
    };
    let text = "RangeStream does not support revision filters";
    check_error(stream(&client, filtered).await, Code::Unimplemented, text);
    let future = RangeRequest {
        revision: 5,
        ..all()
    };
    let text = "etcdserver: mvcc: required revision is a future revision";
    check_error(stream(&client, future).await, Code::OutOfRange, text);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_counted_until_its_client_goes() {
    let server = Running::start();
    let client = server.client().await;
    // More than a client takes before it reads.
    fill(&server, 1000, 20_000);
    // As a stream, so that reading can be put off.
    let unread = client
        .server_stream::<_, RangeResponse>(RANGE, all())
        .await
        .unwrap();
    let in_flight = async || {
        let (_, metrics) = crate::http::get(&server.client_url, "/metrics").await;
        let name = "kine2_large_answers_in_flight_bytes ";
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        value.parse::<u64>().unwrap()
    };
    assert!(in_flight().await > 20_000_000);
    drop(unread);
    in_time(async {
        while in_flight().await > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn lists_do_not_wait_for_long_ones_that_others_do_not_read() {
    let server = Running::start();
    let client = server.client().await;
    fill(&server, 1000, 20_000);
    let mut unread = Vec::new();
    for _ in 0..4 {
        let list = client.server_stream::<_, RangeResponse>(RANGE, all());
        unread.push(list.await.unwrap());
    }
    let other = server.client().await;
    let short = RangeRequest { limit: 2, ..all() };
    let answer: RangeResponse = other.call(RANGE, short).await.unwrap();
    assert_eq!(
        (answer.kvs.len(), answer.count, answer.more),
        (2, 1000, true)
    );
    let long: RangeResponse = other.call(RANGE, all()).await.unwrap();
    assert_eq!(long.kvs.len(), 1000);
    let text = "etcdserver: too many requests";
    let again = client.call::<_, RangeResponse>(RANGE, all()).await;
    check_error(again, Code::ResourceExhausted, text);
}
