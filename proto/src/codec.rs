//! How messages become bytes and back.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What an answer's buffer starts with: enough for a header and a small record.
const ANSWER_BYTES: usize = 256;
/// Bytes of a stream's messages that are gathered before they are handed to HTTP/2.
const YIELD_BYTES: usize = 32 * 1024;

/// Protocol Buffers over gRPC with buffers of the very size needed: the encoder reserves the
/// encoded length, and the decoder's buffer grows with the first piece received.
#[derive(Debug)]
pub struct WireCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for WireCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E, D> Codec for WireCodec<E, D>
where
    E: Message + 'static,
    D: Message + Default + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = WireEncoder<E>;
    type Decoder = WireDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        WireEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        WireDecoder(PhantomData)
    }
}

/// Encoder of [`WireCodec`].
#[derive(Debug)]
pub struct WireEncoder<E>(PhantomData<E>);

impl<E: Message> Encoder for WireEncoder<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.encoded_len());
        item.encode_raw(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ANSWER_BYTES, YIELD_BYTES)
    }
}

/// Decoder of [`WireCodec`].
#[derive(Debug)]
pub struct WireDecoder<D>(PhantomData<D>);

impl<D: Message + Default> Decoder for WireDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, input: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // The text and the code are those of grpc-go, which etcd uses.
        D::decode(input).map(Some).map_err(|error| {
            Status::internal(format!("grpc: error unmarshalling request: {error}"))
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(0, YIELD_BYTES)
    }
}
