//! Reading records from a segment, one after the other, and looking for them behind a bad spot.

use crate::disk::DiskFile;
use crate::error::WalError;
use crate::limits::{DATA_START, PAGE, READ_BYTES};
use crate::record::{self, ALIGN_BYTES, HEADER_BYTES, Header, Malformed};
use crate::segment::SegmentFile;

/// A part of a segment in memory, that moves as it is asked for bytes.
#[derive(Debug)]
pub(crate) struct Window<'s, F> {
    segment: &'s SegmentFile<F>,
    start: u64,
    buffer: Vec<u8>,
}

impl<'s, F: DiskFile> Window<'s, F> {
    pub(crate) fn new(segment: &'s SegmentFile<F>) -> Self {
        Self {
            segment,
            start: 0,
            buffer: Vec::new(),
        }
    }

    /// The record at `offset`: its header and its payload, or why there is none.
    pub(crate) fn record(
        &mut self,
        offset: u64,
    ) -> Result<Result<(Header, &[u8]), Malformed>, WalError> {
        let salt = self.segment.salt;
        let Some(header) = self.bytes(offset, HEADER_BYTES as u64)? else {
            return Ok(Err(Malformed::NoRecord));
        };
        let header = header.try_into().expect("as many bytes as asked for");
        let header = match Header::parse(header, salt, offset) {
            Ok(header) if self.segment.may_hold(header.position.term) => header,
            Ok(_) => return Ok(Err(Malformed::Impossible)),
            Err(malformed) => return Ok(Err(malformed)),
        };
        let Some(record) = self.bytes(offset, header.record_bytes())? else {
            return Ok(Err(Malformed::TooLong));
        };
        let verified = record::verify(record, salt, offset);
        Ok(verified.map(|()| {
            (
                header,
                &record[HEADER_BYTES..HEADER_BYTES + header.payload_bytes],
            )
        }))
    }

    /// `count` bytes from `offset`; `None` when the segment ends before.
    pub(crate) fn bytes(&mut self, offset: u64, count: u64) -> Result<Option<&[u8]>, WalError> {
        if offset + count > self.segment.bytes {
            return Ok(None);
        }
        if offset < self.start || offset + count > self.start + self.buffer.len() as u64 {
            let length = count.max(READ_BYTES).min(self.segment.bytes - offset);
            if self.buffer.len() as u64 != length {
                self.buffer = vec![0; in_memory(length)];
            }
            self.start = offset;
            let read = self.segment.file.read_exact_at(&mut self.buffer, offset);
            read.map_err(WalError::io("read", &self.segment.name))?;
        }
        let at = in_memory(offset - self.start);
        Ok(Some(&self.buffer[at..at + in_memory(count)]))
    }

    /// What lies behind the end of the good records at `end`.
    pub(crate) fn remnants(&mut self, end: u64) -> Result<Remnants, WalError> {
        let mut remnants = Remnants {
            proof: None,
            end: None,
        };
        let mut offset = end;
        while let Some(candidate) = self.next_candidate(offset)? {
            offset = candidate + ALIGN_BYTES;
            if candidate == end {
                continue; // The bad spot itself.
            }
            if let Ok((header, _)) = self.record(candidate)? {
                offset = candidate + header.record_bytes();
                remnants.end = Some(offset);
                if header.synced > end {
                    remnants.proof = Some(candidate);
                    break;
                }
            }
        }
        Ok(remnants)
    }

    /// First place from `offset` on that has the segment's tag where a record would have it.
    fn next_candidate(&mut self, mut offset: u64) -> Result<Option<u64>, WalError> {
        // The tag is in the second word of a record.
        let tag = self.segment.salt.tag();
        let end = self.segment.bytes;
        while offset + HEADER_BYTES as u64 <= end {
            let first = offset + ALIGN_BYTES;
            // What is in memory already is looked at before more is read.
            let in_window = (self.start + self.buffer.len() as u64).saturating_sub(first);
            let in_window = if first < self.start { 0 } else { in_window };
            let count = if in_window == 0 {
                READ_BYTES.min(end - first)
            } else {
                in_window
            };
            let words = self.bytes(first, count)?.expect("the count was limited");
            let found = position_of_tag(words, tag);
            let words = words.len() as u64;
            match found {
                Some(at) => return Ok(Some(offset + at as u64 * ALIGN_BYTES)),
                None => offset += words,
            }
        }
        Ok(None)
    }

    /// Are all bytes in `[from, to)` zero?
    pub(crate) fn is_zero(&mut self, mut from: u64, to: u64) -> Result<bool, WalError> {
        while from < to {
            let count = READ_BYTES.min(to - from);
            let bytes = self
                .bytes(from, count)?
                .expect("the caller stays in the segment");
            if !bytes.chunks(PAGE).all(is_zero) {
                return Ok(false);
            }
            from += count;
        }
        Ok(true)
    }
}

/// Good records of a segment behind the end of those that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remnants {
    /// A record that was written after the end had been flushed: what is missing there was once
    /// durable.
    pub(crate) proof: Option<u64>,
    /// End of the last one found.
    pub(crate) end: Option<u64>,
}

impl Remnants {
    /// Does the segment hold any record of its own?
    pub(crate) fn any(&self) -> bool {
        self.end.is_some()
    }
}

/// All good records of a segment that was never used, or whose first batch is torn.
pub(crate) fn remnants_of_unused<F: DiskFile>(
    segment: &SegmentFile<F>,
) -> Result<Remnants, WalError> {
    Window::new(segment).remnants(DATA_START)
}

/// Which of the 8-byte words begins with the tag.
fn position_of_tag(words: &[u8], tag: u16) -> Option<usize> {
    // Most of what is scanned was never written.
    let pages = words.chunks(PAGE).enumerate();
    let mut pages = pages.filter(|(_, page)| !is_zero(page));
    pages.find_map(|(number, page)| {
        let at = page
            .chunks_exact(8)
            .position(|word| record::u16_at(word, 0) == tag)?;
        Some(number * (PAGE / 8) + at)
    })
}

/// Is this, a page at most, all zero?
fn is_zero(page: &[u8]) -> bool {
    *page == [0; PAGE][..page.len()]
}

/// A length that lies within a segment.
pub(crate) fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a segment has at most 1 GiB")
}
