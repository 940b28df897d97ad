//! Messages that stay in wire form: whoever makes one vouches for its bytes.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, encode_key, skip_field};
use prost::{DecodeError, Message};

macro_rules! encoded_message {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub Bytes);

        impl Message for $name {
            fn encode_raw(&self, out: &mut impl BufMut) {
                out.put_slice(&self.0);
            }

            fn encoded_len(&self) -> usize {
                self.0.len()
            }

            /// Adds the field to those kept. Only readers of answers come here: it may copy.
            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                input: &mut impl Buf,
                context: DecodeContext,
            ) -> Result<(), DecodeError> {
                self.0 = append_field(&self.0, tag, wire_type, input, context)?;
                Ok(())
            }

            fn clear(&mut self) {
                self.0.clear();
            }
        }
    };
}

encoded_message! {
    /// A `mvccpb.KeyValue` in wire form.
    KeyValue
}

encoded_message! {
    /// A `mvccpb.Event` in wire form.
    Event
}

fn append_field(
    kept: &Bytes,
    tag: u32,
    wire_type: WireType,
    input: &mut impl Buf,
    context: DecodeContext,
) -> Result<Bytes, DecodeError> {
    let mut wire = Vec::from(&kept[..]);
    encode_key(tag, wire_type, &mut wire);
    let mut recorder = Recorder {
        input,
        into: &mut wire,
    };
    skip_field(wire_type, tag, &mut recorder, context)?;
    Ok(wire.into())
}

/// Reads on from `input` and keeps a copy of what was read.
struct Recorder<'a, B> {
    input: &'a mut B,
    into: &'a mut Vec<u8>,
}

impl<B: Buf> Buf for Recorder<'_, B> {
    fn remaining(&self) -> usize {
        self.input.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.input.chunk()
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let chunk = self.input.chunk();
            let step = chunk.len().min(count);
            self.into.extend_from_slice(&chunk[..step]);
            self.input.advance(step);
            count -= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decoded;
    use crate::etcdserverpb::RangeResponse;

    #[test]
    fn a_message_passes_unchanged_through_an_answer_and_back() {
        let kv = decoded::KeyValue {
            key: Bytes::from_static(b"k"),
            create_revision: 2,
            mod_revision: 300,
            version: -1,
            value: Bytes::from(vec![7; 300]),
            lease: i64::MAX,
        };
        let encoded = KeyValue(kv.encode_to_vec().into());
        let answer = RangeResponse {
            kvs: vec![encoded.clone(); 2],
            count: 2,
            ..Default::default()
        };
        let wire = answer.encode_to_vec();
        assert_eq!(wire.len(), answer.encoded_len());
        let back = RangeResponse::decode(&wire[..]).unwrap();
        assert_eq!(back, answer);
        assert_eq!(decoded::KeyValue::decode(&back.kvs[1].0[..]).unwrap(), kv);
    }

    #[test]
    fn bytes_cut_short_are_refused() {
        let answer = RangeResponse {
            kvs: vec![KeyValue(Bytes::from_static(b"\x0a\x01k\x18\x03"))],
            ..Default::default()
        };
        let wire = answer.encode_to_vec();
        for cut in 1..wire.len() {
            assert!(RangeResponse::decode(&wire[..cut]).is_err(), "cut at {cut}");
        }
    }
}
