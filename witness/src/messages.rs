//! Messages on a connection: each its length (u32, little endian), then its bytes. Buffers are as
//! small as what goes through them, for there are thousands of silent connections.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use kine2_peer::wire::{WireError, call_from_wire, word_to_wire};
use kine2_proto::kine2::witness_down::Message as Down;
use kine2_proto::kine2::witness_up::Message as Up;
use kine2_proto::kine2::{WitnessDown, WitnessHello, WitnessUp};
use kine2_replication::{WitnessCall, WitnessWord};
use prost::Message;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::limits::MESSAGE_BYTES_MAX;

/// Bytes that are asked of a stream at once.
const READ_BYTES: usize = 512;
/// A buffer that grew beyond this is given back when it is empty.
const BUFFER_BYTES_KEPT: usize = 2048;
const LENGTH_BYTES: usize = 4;

/// Why no message could be read.
#[derive(Debug, Error)]
pub(crate) enum MessageError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection ended within a message")]
    Torn,
    #[error("a message of {0} bytes; at most {MESSAGE_BYTES_MAX} are accepted")]
    Long(usize),
    #[error("a message that is not understood: {0}")]
    Encoding(#[from] prost::DecodeError),
    #[error("a call that is not understood: {0}")]
    Call(#[from] WireError),
    #[error("a message without content")]
    Nothing,
}

/// What a node says in its session.
#[derive(Debug)]
pub(crate) enum Said {
    Call(WitnessCall),
    KeepAlive(u64),
}

impl Said {
    pub(crate) fn read(bytes: Bytes) -> Result<Self, MessageError> {
        match WitnessUp::decode(bytes)?.message {
            Some(Up::Call(call)) => Ok(Self::Call(call_from_wire(call)?)),
            Some(Up::KeepAlive(number)) => Ok(Self::KeepAlive(number)),
            None => Err(MessageError::Nothing),
        }
    }
}

pub(crate) fn word(word: &WitnessWord) -> Bytes {
    down(Down::Word(word_to_wire(word)))
}

pub(crate) fn keep_alive(number: u64) -> Bytes {
    down(Down::KeepAlive(number))
}

pub(crate) fn bye(why: &str) -> Bytes {
    down(Down::Bye(why.to_owned()))
}

fn down(message: Down) -> Bytes {
    let message = Some(message);
    framed(&WitnessDown { message })
}

/// The message with its length.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(LENGTH_BYTES + length);
    out.put_u32_le(u32::try_from(length).expect("what the witness says is short"));
    message.encode_raw(&mut out);
    out.freeze()
}

/// Takes messages off a stream.
#[derive(Debug, Default)]
pub(crate) struct MessageReader {
    buffer: BytesMut,
}

impl MessageReader {
    /// The bytes of the next message; `None` where the stream ends. Cancel-safe.
    pub(crate) async fn next(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Bytes>, MessageError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_BYTES_KEPT {
                self.buffer = BytesMut::new();
            }
            self.buffer.reserve(READ_BYTES);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(MessageError::Torn),
                };
            }
        }
    }

    fn take(&mut self) -> Result<Option<Bytes>, MessageError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(MessageError::Long(length));
        }
        let whole = LENGTH_BYTES + length;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        // A copy, so that the buffer is not kept alive by what was made of the message.
        let message = Bytes::copy_from_slice(&self.buffer[LENGTH_BYTES..whole]);
        bytes::Buf::advance(&mut self.buffer, whole);
        Ok(Some(message))
    }
}

/// Reads what a connection may send.
pub(crate) fn fuzz(data: &[u8]) {
    let _ = WitnessHello::decode(data);
    let _ = Said::read(Bytes::copy_from_slice(data));
    let mut reader = MessageReader {
        buffer: BytesMut::from(data),
    };
    while let Ok(Some(message)) = reader.take() {
        let _ = Said::read(message);
    }
}
