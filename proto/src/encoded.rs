//! Messages that stay in wire form.
//!
//! The store keeps records and events as the bytes clients read. Taking them apart to fill a
//! struct and putting them together again would be most of the work of a list; so these two types
//! stand in for the generated ones and copy their bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, decode_varint, encode_key, encode_varint};

/// A `mvccpb.KeyValue` in wire form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue(pub Bytes);

/// A `mvccpb.Event` in wire form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event(pub Bytes);

impl From<Bytes> for KeyValue {
    fn from(encoded: Bytes) -> Self {
        Self(encoded)
    }
}

impl From<Bytes> for Event {
    fn from(encoded: Bytes) -> Self {
        Self(encoded)
    }
}

macro_rules! stays_encoded {
    ($message:ty) => {
        impl prost::Message for $message {
            fn encode_raw(&self, out: &mut impl BufMut) {
                out.put_slice(&self.0);
            }

            fn encoded_len(&self) -> usize {
                self.0.len()
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                input: &mut impl Buf,
                _context: DecodeContext,
            ) -> Result<(), DecodeError> {
                let mut out = BytesMut::from(&self.0[..]);
                copy_field(tag, wire_type, input, &mut out)?;
                self.0 = out.freeze();
                Ok(())
            }

            fn clear(&mut self) {
                self.0.clear();
            }
        }
    };
}

stays_encoded!(KeyValue);
stays_encoded!(Event);

/// Copies one field as it is; both messages have varints and length-delimited fields only.
fn copy_field(
    tag: u32,
    wire_type: WireType,
    input: &mut impl Buf,
    out: &mut BytesMut,
) -> Result<(), DecodeError> {
    encode_key(tag, wire_type, out);
    let number = decode_varint(input)?;
    encode_varint(number, out);
    match wire_type {
        WireType::Varint => Ok(()),
        WireType::LengthDelimited => {
            let len = usize::try_from(number).ok().filter(|len| *len <= input.remaining());
            // An honest varint above reads past the end only of a message cut short.
            let Some(len) = len else { return Err(truncated()) };
            out.put(input.copy_to_bytes(len));
            Ok(())
        }
        WireType::SixtyFourBit
        | WireType::StartGroup
        | WireType::EndGroup
        | WireType::ThirtyTwoBit => Err(truncated()),
    }
}

/// The error of a varint that never comes: the public way to make a `DecodeError`.
fn truncated() -> DecodeError {
    let empty: &[u8] = &[];
    decode_varint(&mut { empty }).expect_err("there is nothing to read")
}
