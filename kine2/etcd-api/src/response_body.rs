//! Bodies of answers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use crate::records_body::RecordsBody;
use crate::rpc::CountedCall;

/// The body of an answer of either kind.
#[derive(Debug)]
pub(crate) struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Grpc(tonic::body::Body, CountedCall),
    Records(RecordsBody, CountedCall),
    /// An answer of one message.
    Message(Option<Bytes>, CountedCall),
}

impl ResponseBody {
    pub(crate) const fn empty() -> Self {
        Self(Kind::Whole(None))
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    pub(crate) const fn grpc(body: tonic::body::Body, call: CountedCall) -> Self {
        Self(Kind::Grpc(body, call))
    }

    pub(crate) const fn records(records: RecordsBody, call: CountedCall) -> Self {
        Self(Kind::Records(records, call))
    }

    pub(crate) const fn message(message: Bytes, call: CountedCall) -> Self {
        Self(Kind::Message(Some(message), call))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut self.0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Records(records, call) => Poll::Ready(match records.next_piece() {
                Some(piece) => Some(Ok(Frame::data(piece))),
                None => end(call).map(Ok),
            }),
            Kind::Message(message, call) => Poll::Ready(match message.take() {
                Some(message) => Some(Ok(Frame::data(message))),
                None => end(call).map(Ok),
            }),
            Kind::Grpc(body, call) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                if let Some(Ok(frame)) = &frame
                    && let Some(trailers) = frame.trailers_ref()
                {
                    let code = trailers.get("grpc-status");
                    call.count(
                        code.map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes())),
                    );
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Grpc(body, _) => body.is_end_stream(),
            Kind::Records(_, call) | Kind::Message(_, call) => call.is_counted(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(None) => SizeHint::with_exact(0),
            Kind::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Grpc(body, _) => body.size_hint(),
            Kind::Records(..) | Kind::Message(..) => SizeHint::default(),
        }
    }
}

/// The trailers of a call that went well; `None` after them.
fn end(call: &mut CountedCall) -> Option<Frame<Bytes>> {
    if call.is_counted() {
        return None;
    }
    call.count(Code::Ok);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Some(Frame::trailers(trailers))
}
