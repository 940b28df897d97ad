//! Calls with one message each way, without the machinery of streams: the message is read out of
//! the very bytes HTTP/2 received, and the answer is one piece of the size it needs.
//!
//! The texts and codes of errors are those of the general way through tonic.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use prost::Message;
use tonic::Status;

/// Before each message: whether it is compressed, and its length, big-endian.
const MESSAGE_HEAD_BYTES: usize = 5;

/// Receives the request, which is not compressed and has at most `bytes_max` bytes.
pub(crate) async fn receive<Q, B>(mut body: B, bytes_max: usize) -> Result<Q, Status>
where
    Q: Message + Default,
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let mut received = Received::default();
    while !body.is_end_stream() {
        let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await else {
            break;
        };
        let frame = frame.map_err(|error| Status::from_error(Box::new(error)))?;
        if let Ok(data) = frame.into_data() {
            received.push(data, bytes_max)?;
        }
    }
    Q::decode(received.message()?)
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

/// An answer as it is sent. One whose length four bytes do not tell cannot be.
pub(crate) fn message(answer: &impl Message) -> Result<Bytes, Status> {
    let len = answer.encoded_len();
    let told = u32::try_from(len).map_err(|_| {
        Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({len} vs. {})",
            u32::MAX
        ))
    })?;
    let mut out = BytesMut::with_capacity(MESSAGE_HEAD_BYTES + len);
    out.put_u8(0);
    out.put_u32(told);
    answer.encode_raw(&mut out);
    Ok(out.freeze())
}

/// What came of a request so far. A request that came in one piece is not copied.
#[derive(Debug, Default)]
struct Received {
    piece: Bytes,
    /// Used instead of the piece when there are several.
    joined: BytesMut,
}

impl Received {
    fn push(&mut self, data: Bytes, bytes_max: usize) -> Result<(), Status> {
        if self.joined.is_empty() && self.piece.is_empty() {
            self.piece = data;
        } else {
            if self.joined.is_empty() {
                let len = message_len(&self.piece)?.unwrap_or_default().min(bytes_max);
                self.joined
                    .reserve(MESSAGE_HEAD_BYTES + len.max(self.piece.len() + data.len()));
                self.joined.put_slice(&std::mem::take(&mut self.piece));
            }
            self.joined.put_slice(&data);
        }
        let held = self.held();
        let Some(len) = message_len(held)? else {
            return Ok(());
        };
        if len > bytes_max {
            return Err(Status::out_of_range(format!(
                "Error, decoded message length too large: found {len} bytes, the limit is: \
                 {bytes_max} bytes"
            )));
        }
        if held.len() > MESSAGE_HEAD_BYTES + len {
            return Err(Status::internal("a call with one request has more of them"));
        }
        Ok(())
    }

    fn held(&self) -> &[u8] {
        if self.joined.is_empty() {
            &self.piece
        } else {
            &self.joined
        }
    }

    /// The message, without its head.
    fn message(self) -> Result<Bytes, Status> {
        let mut whole = if self.joined.is_empty() {
            self.piece
        } else {
            self.joined.freeze()
        };
        if whole.is_empty() {
            return Err(Status::internal("Missing request message."));
        }
        match message_len(&whole)? {
            Some(len) if whole.len() == MESSAGE_HEAD_BYTES + len => {
                whole.advance(MESSAGE_HEAD_BYTES);
                Ok(whole)
            }
            _ => Err(Status::internal("Unexpected EOF decoding stream.")),
        }
    }
}

/// Length of the message that begins here; none before its head is whole.
fn message_len(held: &[u8]) -> Result<Option<usize>, Status> {
    let Some((&[compressed, a, b, c, d], _)) = held.split_first_chunk() else {
        return Ok(None);
    };
    if compressed != 0 {
        return Err(Status::internal(
            "protocol error: received message with compressed-flag but no grpc-encoding was \
             specified",
        ));
    }
    let len = u32::from_be_bytes([a, b, c, d]);
    Ok(Some(usize::try_from(len).expect("32 bits")))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use kine2_proto::etcdserverpb::PutRequest;
    use tonic::Code;

    use super::*;

    const BYTES_MAX: usize = 4_000;

    /// A request that arrives in pieces.
    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    async fn receive_pieces(wire: &[u8], piece_bytes: usize) -> Result<PutRequest, Status> {
        let pieces = wire.chunks(piece_bytes).map(Bytes::copy_from_slice);
        receive(Pieces(pieces.collect()), BYTES_MAX).await
    }

    fn request() -> PutRequest {
        PutRequest {
            key: "key".into(),
            value: vec![7; 3_000].into(),
            ..PutRequest::default()
        }
    }

    #[tokio::test]
    async fn a_request_is_the_same_in_one_piece_and_in_many() {
        let wire = message(&request()).unwrap();
        for piece_bytes in [1, 4, 5, 6, 1_000, wire.len()] {
            let received = receive_pieces(&wire, piece_bytes).await;
            assert_eq!(received.unwrap(), request(), "pieces of {piece_bytes}");
        }
    }

    #[tokio::test]
    async fn what_is_not_one_whole_message_is_refused() {
        let wire = message(&request()).unwrap();
        let code = async |wire: &[u8]| receive_pieces(wire, 700).await.unwrap_err().code();
        assert_eq!(code(&[]).await, Code::Internal);
        for cut in [1, 4, 5, 800, wire.len() - 1] {
            assert_eq!(code(&wire[..cut]).await, Code::Internal, "cut at {cut}");
        }
        assert_eq!(code(&[&wire[..], &wire[..]].concat()).await, Code::Internal);
        assert_eq!(code(&[1, 0, 0, 0, 0]).await, Code::Internal);
        assert_eq!(code(&[0, 0, 0, 0, 1, 0xff]).await, Code::Internal);
        // Known to be too large before its bytes have come.
        assert_eq!(code(&[0, 0, 1, 0, 0]).await, Code::OutOfRange);
    }
}
