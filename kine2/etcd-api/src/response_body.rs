//! Bodies of answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use crate::kv::LargeAnswer;
use crate::rpc::{Rpc, RpcCounters};

/// The body of an answer of either kind.
#[derive(Debug)]
pub(crate) struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Grpc {
        body: tonic::body::Body,
        call: CountedCall,
        /// Held until the body is written.
        _large: Option<LargeAnswer>,
    },
}

impl ResponseBody {
    pub(crate) const fn empty() -> Self {
        Self(Kind::Whole(None))
    }

    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    pub(crate) const fn grpc(
        body: tonic::body::Body,
        rpc: Rpc,
        counters: Arc<RpcCounters>,
        large: Option<LargeAnswer>,
    ) -> Self {
        let call = CountedCall {
            rpc,
            counters,
            counted: false,
        };
        Self(Kind::Grpc {
            body,
            call,
            _large: large,
        })
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
            Kind::Grpc { body, call, .. } => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                if let Some(Ok(frame)) = &frame
                    && let Some(trailers) = frame.trailers_ref()
                {
                    call.ended(trailers);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Grpc { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(None) => SizeHint::with_exact(0),
            Kind::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Grpc { body, .. } => body.size_hint(),
        }
    }
}

/// A call that is counted once, when it ends: with its code, or as cancelled when the client goes
/// away before.
#[derive(Debug)]
struct CountedCall {
    rpc: Rpc,
    counters: Arc<RpcCounters>,
    counted: bool,
}

impl CountedCall {
    fn ended(&mut self, trailers: &HeaderMap) {
        let code = trailers.get("grpc-status");
        let code = code.map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
        self.count(code);
    }

    fn count(&mut self, code: Code) {
        self.counters.count(self.rpc, code);
        self.counted = true;
    }
}

impl Drop for CountedCall {
    fn drop(&mut self) {
        if !self.counted {
            self.count(Code::Cancelled);
        }
    }
}
