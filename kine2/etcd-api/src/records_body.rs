//! A long `RangeResponse` that is encoded as it is sent.
//!
//! The records are shared with the store; only the piece that is on its way is copied, so many
//! clients that list at once do not hold a copy each.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kine2_proto::etcdserverpb::{RangeResponse, ResponseHeader};
use kine2_proto::mvccpb::KeyValue;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::answer_budget::AnswerShare;
use crate::range::RangeEnd;

/// Bytes of a piece, unless a single record is larger.
const PIECE_BYTES: usize = 256 << 10;
/// Before each message of gRPC: whether it is compressed, and its length.
const MESSAGE_HEAD_BYTES: usize = 5;
/// Tag of `RangeResponse.kvs`.
const KVS: u8 = 2 << 3 | 2;

/// The records and what is left to send of them. Travels beside an empty answer, as an extension
/// of the response; never cloned, though extensions ask for it.
#[derive(Clone, Debug)]
pub(crate) struct RecordsBody {
    head: Option<Bytes>,
    kvs: std::vec::IntoIter<KeyValue>,
    /// `None` once sent.
    tail: Option<Bytes>,
    _share: Arc<AnswerShare>,
}

impl RecordsBody {
    /// The answer must fit the four bytes that tell its length.
    pub(crate) fn new(
        header: Option<ResponseHeader>,
        kvs: Vec<KeyValue>,
        end: RangeEnd,
        share: AnswerShare,
    ) -> Self {
        let first = RangeResponse {
            header,
            ..RangeResponse::default()
        };
        let last = RangeResponse {
            more: end.more,
            count: end.count,
            ..RangeResponse::default()
        };
        let records: usize = kvs.iter().map(field_len).sum();
        let bytes = first.encoded_len() + records + last.encoded_len();
        let mut head = BytesMut::with_capacity(MESSAGE_HEAD_BYTES + first.encoded_len());
        head.put_u8(0);
        head.put_u32(u32::try_from(bytes).expect("checked against the largest message"));
        first.encode_raw(&mut head);
        Self {
            head: Some(head.freeze()),
            kvs: kvs.into_iter(),
            tail: Some(last.encode_to_vec().into()),
            _share: Arc::new(share),
        }
    }

    /// The next piece; `None` after the last.
    pub(crate) fn next_piece(&mut self) -> Option<Bytes> {
        let tail = self.tail.as_ref()?;
        let head = self.head.take().unwrap_or_default();
        let mut bytes = head.len();
        let mut count = 0;
        for kv in self.kvs.as_slice() {
            bytes += field_len(kv);
            count += 1;
            if bytes >= PIECE_BYTES {
                break;
            }
        }
        let is_last = count == self.kvs.len();
        let mut piece = BytesMut::with_capacity(bytes + tail.len());
        piece.put_slice(&head);
        for KeyValue(record) in self.kvs.by_ref().take(count) {
            piece.put_u8(KVS);
            encode_varint(record.len() as u64, &mut piece);
            piece.put_slice(&record);
        }
        if is_last {
            piece.put_slice(&self.tail.take().expect("not yet sent"));
        }
        Some(piece.freeze())
    }
}

fn field_len(KeyValue(record): &KeyValue) -> usize {
    1 + encoded_len_varint(record.len() as u64) + record.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer_budget::AnswerBudget;
    use kine2_mvcc::Revision;

    #[test]
    fn the_pieces_are_the_message() {
        let header = Some(ResponseHeader {
            revision: 9,
            ..ResponseHeader::default()
        });
        let end = RangeEnd {
            revision: Revision(9),
            more: true,
            count: 300,
        };
        for (records, bytes) in [(0, 0), (1, 3), (1000, 1000), (3, PIECE_BYTES), (256, 1024)] {
            let kvs = vec![KeyValue(vec![b'r'; bytes].into()); records];
            let whole = RangeResponse {
                header,
                kvs: kvs.clone(),
                more: true,
                count: 300,
            };
            let share = AnswerBudget::new().share();
            let mut body = RecordsBody::new(header, kvs, end, share);
            let pieces: Vec<Bytes> = std::iter::from_fn(|| body.next_piece()).collect();
            assert!(
                pieces
                    .iter()
                    .all(|piece| piece.len() < 2 * PIECE_BYTES + 100)
            );
            let sent = pieces.concat();
            assert_eq!(
                sent[..5],
                [
                    &[0][..],
                    &u32::to_be_bytes(u32::try_from(whole.encoded_len()).unwrap())
                ]
                .concat()
            );
            assert_eq!(
                sent[5..],
                whole.encode_to_vec(),
                "{records} records of {bytes}"
            );
        }
    }
}
