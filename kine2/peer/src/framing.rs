//! Messages on a byte stream: each its length (u32, little endian), then its bytes.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of the longest message: a frame's entries may have 1 MiB, or one that is longer by itself.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes that are asked of a stream at once.
const READ_BYTES: usize = 64 << 10;

/// Why no message could be read.
#[derive(Debug, Error)]
pub enum FramingError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It ended within a message.
    #[error("the connection ended within a message")]
    Torn,
    /// The message is longer than is accepted.
    #[error("a message of {0} bytes; at most {1} are accepted")]
    Long(usize, usize),
    /// The bytes are no such message.
    #[error("a message that is not understood: {0}")]
    Message(#[from] prost::DecodeError),
}

/// Appends a message to what is to be sent.
///
/// # Panics
/// If the message has 4 GiB or more.
pub fn put(out: &mut BytesMut, message: &impl Message) {
    let length = message.encoded_len();
    out.reserve(4 + length);
    out.put_u32_le(u32::try_from(length).expect("messages are bounded"));
    message.encode_raw(out);
}

/// Appends a message that is bytes already.
///
/// # Panics
/// If it has 4 GiB or more.
pub fn put_bytes(out: &mut BytesMut, message: &[u8]) {
    out.reserve(4 + message.len());
    out.put_u32_le(u32::try_from(message.len()).expect("messages are bounded"));
    out.put_slice(message);
}

/// Takes messages off a stream.
#[derive(Debug)]
pub struct MessageReader<R> {
    stream: R,
    buffer: BytesMut,
    bytes_max: usize,
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// A reader of messages of at most `bytes_max` bytes.
    pub fn new(stream: R, bytes_max: usize) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            bytes_max,
        }
    }

    /// A reader that begins with bytes that were read already.
    pub fn with_rest(stream: R, rest: BytesMut, bytes_max: usize) -> Self {
        Self {
            stream,
            buffer: rest,
            bytes_max,
        }
    }

    /// The bytes of the next message; `None` where the stream ends. Cancel-safe.
    ///
    /// # Errors
    /// If the stream fails, ends within a message, or the message is too long.
    pub async fn next_bytes(&mut self) -> Result<Option<Bytes>, FramingError> {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
                if length > self.bytes_max {
                    return Err(FramingError::Long(length, self.bytes_max));
                }
                if self.buffer.len() >= 4 + length {
                    let mut message = self.buffer.split_to(4 + length);
                    return Ok(Some(message.split_off(4).freeze()));
                }
                self.buffer.reserve(4 + length - self.buffer.len());
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.len() {
                    0 => Ok(None),
                    _ => Err(FramingError::Torn),
                };
            }
        }
    }

    /// The next message; `None` where the stream ends. Cancel-safe.
    ///
    /// # Errors
    /// As [`next_bytes`](Self::next_bytes), and if the bytes are no such message.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, FramingError> {
        Ok(match self.next_bytes().await? {
            Some(bytes) => Some(M::decode(bytes)?),
            None => None,
        })
    }

    /// The stream, to write to it.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Accepts messages of so many bytes from now on.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: usize) -> Self {
        Self { bytes_max, ..self }
    }

    /// The stream, and what was read of it already.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.stream, self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use kine2_proto::kine2::Greeting;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    fn greeting(version: u32) -> Greeting {
        Greeting {
            version,
            ..Greeting::default()
        }
    }

    #[test]
    fn messages_come_out_as_they_were_put_in() {
        let mut out = BytesMut::new();
        for version in [1, 0, 300] {
            put(&mut out, &greeting(version));
        }
        let mut reader = MessageReader::new(&out[..], 100);
        for version in [1, 0, 300] {
            let read = block_on(reader.next::<Greeting>()).unwrap().unwrap();
            assert_eq!(read, greeting(version));
        }
        assert!(block_on(reader.next::<Greeting>()).unwrap().is_none());
    }

    #[test]
    fn what_is_torn_or_too_long_is_refused() {
        let mut out = BytesMut::new();
        put(&mut out, &greeting(300));
        for cut in 1..out.len() {
            let mut reader = MessageReader::new(&out[..cut], 100);
            let read = block_on(reader.next::<Greeting>());
            assert!(matches!(read, Err(FramingError::Torn)), "{cut}: {read:?}");
        }
        let mut reader = MessageReader::new(&out[..], 2);
        let read = block_on(reader.next::<Greeting>());
        assert!(matches!(read, Err(FramingError::Long(3, 2))), "{read:?}");
    }
}
