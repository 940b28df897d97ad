//! The KV service (`etcd` sections 2.2–2.5, 2.10).

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use kine2_mvcc::{Answer, Command, Compact, RangeQuery};
use kine2_proto::etcdserverpb::kv_server::Kv;
use kine2_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use kine2_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, ResponseHeader, TxnRequest,
    TxnResponse,
};
use kine2_proto::mvccpb::KeyValue;
use tonic::{Code, Request, Response, Status};

use crate::answer_budget::{AnswerShare, LARGE_ANSWER_BYTES};
use crate::checks::{check_delete, check_put, check_range, check_txn};
use crate::convert;
use crate::member::{Member, RequestError};
use crate::range::{ANSWER_SLICES, RangeEnd, STREAM_SLICES, SlicedRange, overtaken};
use crate::records_body::RecordsBody;
use crate::service::{Service, wrong_answer};

/// Largest message sent (`etcd` section 4).
const SENT_BYTES_MAX: usize = 0x7fff_ffff;
/// A message's length is told in four bytes; beside the records there is less than as much again.
const _: () = assert!(2 * SENT_BYTES_MAX <= 0xffff_ffff);
/// How often a long range starts anew because a compaction overtook it.
const RANGE_ATTEMPTS_MAX: usize = 3;

#[tonic::async_trait]
impl<M: Member> Kv for Service<M> {
    type RangeStreamStream =
        Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send>>;

    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        self.answer_range(request.into_inner()).await
    }

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        check_range(&request)?;
        check_streamable(&request)?;
        let share = self.answers.admit().await?;
        let serializable = request.serializable;
        let query = RangeQuery {
            sort: None,
            ..convert::range_query(request)
        };
        let chunks = RangeChunks {
            service: self.clone(),
            share,
            range: Some(SlicedRange::new(query, serializable, STREAM_SLICES)),
        };
        Ok(Response::new(Box::pin(unfold(chunks, RangeChunks::step))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.answer_put(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check_delete(&request)?;
        self.check_size(&request)?;
        let applied = self
            .member
            .propose(Command::Delete(convert::delete(request)))
            .await?;
        let Answer::Delete(answer) = applied.answer else {
            wrong_answer()
        };
        let header = self.header(applied.revision);
        Ok(Response::new(convert::delete_response(header, answer)))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.answer_txn(request.into_inner())
            .await
            .map(Response::new)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let CompactionRequest { revision, physical } = request.into_inner();
        let command = Command::Compact(Compact { revision, physical });
        let applied = self.member.propose(command).await?;
        let header = self.header(applied.revision);
        Ok(Response::new(CompactionResponse { header }))
    }
}

/// The frequent calls; [`Dispatch`](crate::dispatch::Dispatch) comes here without tonic.
impl<M: Member> Service<M> {
    /// Answers a Range. A long answer comes beside an empty one, as a [`RecordsBody`].
    pub(crate) async fn answer_range(
        &self,
        request: RangeRequest,
    ) -> Result<Response<RangeResponse>, Status> {
        check_range(&request)?;
        let serializable = request.serializable;
        let query = convert::range_query(request);
        if SlicedRange::is_small(&query) {
            let (revision, answer) = self.member.range(&query, serializable).await?;
            let header = self.header(revision);
            return Ok(Response::new(convert::range_response(header, answer)));
        }
        if !self.answers.has_room()
            && let Some(response) = Box::pin(self.read_short_range(&query, serializable)).await?
        {
            return Ok(response);
        }
        for _ in 1..RANGE_ATTEMPTS_MAX {
            let share = self.answers.admit().await?;
            match Box::pin(self.read_range(&query, serializable, share)).await {
                Err(ReadFailure::Overtaken) => {}
                Err(ReadFailure::Failed(status)) => return Err(status),
                Ok(response) => return Ok(response),
            }
        }
        // Compactions come too fast: read it in one go.
        let (revision, answer) = self.member.range(&query, serializable).await?;
        let header = self.header(revision);
        Ok(Response::new(convert::range_response(header, answer)))
    }

    pub(crate) async fn answer_put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        check_put(&request)?;
        self.check_size(&request)?;
        let applied = self
            .member
            .propose(Command::Put(convert::put(request)))
            .await?;
        let Answer::Put(answer) = applied.answer else {
            wrong_answer()
        };
        let header = self.header(applied.revision);
        Ok(convert::put_response(header, answer))
    }

    pub(crate) async fn answer_txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        check_txn(&request, self.limits.txn_ops_max)?;
        self.check_size(&request)?;
        let applied = self
            .member
            .propose(Command::Txn(convert::txn(request)))
            .await?;
        let Answer::Txn(answer) = applied.answer else {
            wrong_answer()
        };
        let header = self.header(applied.revision);
        Ok(convert::txn_response(header, answer))
    }
}

/// Why a range was not read to its end.
enum ReadFailure {
    /// The store forgot the revision it had chosen.
    Overtaken,
    Failed(Status),
}

impl<M: Member> Service<M> {
    /// The answer if it is a short one: it need not wait until others have read their long ones.
    async fn read_short_range(
        &self,
        query: &RangeQuery,
        serializable: bool,
    ) -> Result<Option<Response<RangeResponse>>, Status> {
        let mut range = SlicedRange::new(query.clone(), serializable, ANSWER_SLICES);
        let slice = range.next(&self.member).await?;
        let Some(end) = slice.end.filter(|_| slice.bytes < LARGE_ANSWER_BYTES) else {
            return Ok(None);
        };
        let header = self.header(end.revision);
        let kvs = convert::key_values(slice.records);
        Ok(Some(Response::new(whole_response(header, kvs, &end))))
    }

    async fn read_range(
        &self,
        query: &RangeQuery,
        serializable: bool,
        mut share: AnswerShare,
    ) -> Result<Response<RangeResponse>, ReadFailure> {
        let mut range = SlicedRange::new(query.clone(), serializable, ANSWER_SLICES);
        let mut kvs = Vec::new();
        loop {
            let slice = range.next(&self.member).await.map_err(|error| {
                if overtaken(query, &error) {
                    ReadFailure::Overtaken
                } else {
                    ReadFailure::Failed(error.into())
                }
            })?;
            share.grow(slice.bytes);
            if share.bytes() > SENT_BYTES_MAX {
                return Err(ReadFailure::Failed(too_large_to_send(share.bytes())));
            }
            let Some(end) = slice.end else {
                kvs.extend(convert::key_values(slice.records));
                // Let the others in.
                tokio::task::yield_now().await;
                continue;
            };
            if kvs.is_empty() {
                kvs = convert::key_values(slice.records);
            } else {
                kvs.extend(convert::key_values(slice.records));
            }
            let header = self.header(end.revision);
            return Ok(range_response(header, kvs, end, share));
        }
    }
}

/// A long answer goes beside an empty one, to be encoded while it is sent.
fn range_response(
    header: Option<ResponseHeader>,
    kvs: Vec<KeyValue>,
    end: RangeEnd,
    share: AnswerShare,
) -> Response<RangeResponse> {
    if share.bytes() < LARGE_ANSWER_BYTES {
        return Response::new(whole_response(header, kvs, &end));
    }
    let mut response = Response::new(RangeResponse::default());
    let body = RecordsBody::new(header, kvs, end, share);
    response.extensions_mut().insert(body);
    response
}

fn whole_response(
    header: Option<ResponseHeader>,
    kvs: Vec<KeyValue>,
    end: &RangeEnd,
) -> RangeResponse {
    RangeResponse {
        header,
        kvs,
        more: end.more,
        count: end.count,
    }
}

fn too_large_to_send(bytes: usize) -> Status {
    let text =
        format!("grpc: trying to send message larger than max ({bytes} vs. {SENT_BYTES_MAX})");
    Status::new(Code::ResourceExhausted, text)
}

/// Chunks come in key order and count all of the range (`etcd S57`). As in etcd, a target without
/// an order is no order here.
fn check_streamable(request: &RangeRequest) -> Result<(), Status> {
    let order = request.sort_order();
    let by_key = order == SortOrder::Ascend && request.sort_target() == SortTarget::Key;
    if order != SortOrder::None && !by_key {
        return Err(Status::unimplemented(
            "RangeStream does not support custom sort orders",
        ));
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds != [0; 4] {
        return Err(Status::unimplemented(
            "RangeStream does not support revision filters",
        ));
    }
    Ok(())
}

/// A range on its way in chunks; the next one is read when the client has room for it.
struct RangeChunks<M> {
    service: Service<M>,
    /// Of the chunk that was read last.
    share: AnswerShare,
    /// `None` after the last chunk.
    range: Option<SlicedRange>,
}

impl<M: Member> RangeChunks<M> {
    async fn step(mut self) -> Option<(Result<RangeStreamResponse, Status>, Self)> {
        let range = self.range.as_mut()?;
        self.share.empty();
        if self.service.stop.is_stopped() {
            self.range = None;
            return Some((Err(RequestError::Stopped.into()), self));
        }
        let slice = match range.next(&self.service.member).await {
            Ok(slice) => slice,
            Err(error) => {
                self.range = None;
                return Some((Err(error.into()), self));
            }
        };
        self.share.grow(slice.bytes);
        let kvs = convert::key_values(slice.records);
        let mut response = RangeResponse {
            kvs,
            ..RangeResponse::default()
        };
        if let Some(end) = slice.end {
            response.header = self.service.header(end.revision);
            response.more = end.more;
            response.count = end.count;
            self.range = None;
        }
        let range_response = Some(response);
        Some((Ok(RangeStreamResponse { range_response }), self))
    }
}
