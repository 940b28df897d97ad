//! The Watch service (`etcd` sections 2.6, 2.7).

use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use kine2_mvcc::{CancelCause, KeyRange, Revision, WatchMessage, WatchRequest, WatchUpdate};
use kine2_proto::etcdserverpb as pb;
use kine2_proto::etcdserverpb::watch_create_request::FilterType;
use kine2_proto::etcdserverpb::watch_request::RequestUnion;
use kine2_proto::etcdserverpb::watch_server::Watch;
use kine2_proto::mvccpb::Event;
use tonic::{Request, Response, Status, Streaming};

use crate::dispatch::REQUIRE_LEADER;
use crate::member::{Member, RequestError, WatchStream};
use crate::service::Service;

#[tonic::async_trait]
impl<M: Member> Watch for Service<M> {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let requires_leader = request.metadata().contains_key(REQUIRE_LEADER);
        let session = Box::new(Session {
            service: self.clone(),
            requires_leader,
            requests: Some(request.into_inner()),
            hub: self.member.watch(),
            messages: Vec::new().into_iter(),
            ended: false,
        });
        let responses = unfold(session, |mut session| async move {
            Some((session.next().await?, session))
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

/// One client's stream.
///
/// It is driven by the response's body: HTTP/2 asks for the next message when the client has room
/// for it, so what a slow client has not read stays in the hub, and nothing is queued here but
/// the messages taken last.
struct Session<M: Member> {
    service: Service<M>,
    requires_leader: bool,
    /// `None` once the client has closed its side, which does not end the stream (`etcd S33`).
    requests: Option<Streaming<pb::WatchRequest>>,
    hub: M::Watch,
    messages: std::vec::IntoIter<WatchMessage>,
    ended: bool,
}

/// What a session waited for.
enum Wake {
    Stopped,
    Request(Result<Option<pb::WatchRequest>, Status>),
    Messages(Result<Vec<WatchMessage>, RequestError>),
}

impl<M: Member> Session<M> {
    async fn next(&mut self) -> Option<Result<pb::WatchResponse, Status>> {
        if self.ended {
            return None;
        }
        loop {
            // All messages of a batch go out before anything else: fragments stay together
            // (`etcd L8`).
            if let Some(message) = self.messages.next() {
                return Some(Ok(self.response(message)));
            }
            let failure = match self.wait().await {
                Wake::Messages(Ok(messages)) => {
                    self.messages = messages.into_iter();
                    continue;
                }
                Wake::Request(Ok(Some(request))) => {
                    self.on_request(request);
                    continue;
                }
                Wake::Request(Ok(None)) => {
                    self.requests = None;
                    continue;
                }
                // The code that makes clients resume elsewhere (`etcd L4`).
                Wake::Stopped => RequestError::Stopped.into(),
                // etcd's client gives all watches of a stream up that ends for want of a leader: only
                // who asked for that is told so (`etcd S43`).
                Wake::Messages(Err(RequestError::NoLeader)) if !self.requires_leader => {
                    RequestError::Stopped.into()
                }
                Wake::Messages(Err(error)) => error.into(),
                Wake::Request(Err(status)) => status,
            };
            self.ended = true;
            return Some(Err(failure));
        }
    }

    async fn wait(&mut self) -> Wake {
        let Self {
            service,
            requests,
            hub,
            ..
        } = self;
        let mut stop = service.stop.clone();
        let request = async {
            match requests {
                Some(requests) => service.next_request(requests).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.stopped() => Wake::Stopped,
            request = request => Wake::Request(request),
            messages = hub.next() => Wake::Messages(messages),
        }
    }

    fn on_request(&mut self, request: pb::WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.hub.create(watch_request(create)),
            Some(RequestUnion::CancelRequest(cancel)) => self.hub.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.hub.request_progress(),
            // A kind of request that is newer than this server.
            None => {}
        }
    }

    fn response(&self, message: WatchMessage) -> pb::WatchResponse {
        let mut response = pb::WatchResponse {
            header: self.service.header(message.revision),
            watch_id: message.watch_id,
            ..pb::WatchResponse::default()
        };
        match message.update {
            WatchUpdate::Created => response.created = true,
            WatchUpdate::Refused(cause) => {
                response.created = true;
                cancel(&mut response, cause);
            }
            WatchUpdate::Canceled(cause) => cancel(&mut response, cause),
            WatchUpdate::Events { events, fragment } => {
                response.events = events.into_iter().map(Event).collect();
                response.fragment = fragment;
            }
            WatchUpdate::Progress => {}
        }
        response
    }
}

fn cancel(response: &mut pb::WatchResponse, cause: CancelCause) {
    response.canceled = true;
    let reason = match cause {
        CancelCause::Requested => "",
        CancelCause::Compacted(Revision(revision)) => {
            response.compact_revision = revision;
            ""
        }
        CancelCause::EmptyRange => "mvcc: watcher range is empty",
        CancelCause::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
        // Other than the reasons above, etcd's own text has the prefix here.
        CancelCause::NegativeStart => "etcdserver: mvcc: required revision has been compacted",
    };
    response.cancel_reason = reason.to_owned();
}

pub(crate) fn watch_request(create: pb::WatchCreateRequest) -> WatchRequest {
    let filters = |filter: FilterType| create.filters.contains(&i32::from(filter));
    let (no_put, no_delete) = (filters(FilterType::Noput), filters(FilterType::Nodelete));
    // No key is the first of all keys (`etcd S30`).
    let key = if create.key.is_empty() {
        Bytes::from_static(b"\0")
    } else {
        // The request's bytes are a part of the buffer it came in, and a watcher lives long.
        Bytes::copy_from_slice(&create.key)
    };
    let range_end = Bytes::copy_from_slice(&create.range_end);
    WatchRequest {
        id: create.watch_id,
        range: KeyRange::from_wire(key, range_end),
        start: create.start_revision,
        no_put,
        no_delete,
        prev_kv: create.prev_kv,
        progress_notify: create.progress_notify,
        fragment: create.fragment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_does_not_keep_the_buffer_that_its_request_came_in() {
        let buffer = Bytes::from(vec![b'k'; 8 << 10]);
        let request = watch_request(pb::WatchCreateRequest {
            key: buffer.slice(..3),
            range_end: buffer.slice(4..8),
            ..pb::WatchCreateRequest::default()
        });
        assert_eq!(&request.range.start[..], b"kkk");
        assert!(buffer.is_unique(), "{:?}", request.range);
    }
}
