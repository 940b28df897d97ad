//! A whole state as a stream of bytes that no engine shapes: for another engine, a peer, a
//! snapshot. The format is in docs/state-format.md.
//!
//! Chunk by chunk, each with a checksum that goes on from the one before, so that a chunk that is
//! missing, doubled or out of order is noticed like a flipped bit.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kine2_mvcc::wire::{Reader, put_bytes};
use kine2_mvcc::{
    Backend, BackendError, Change, ChangeId, Held, KeyRange, LogPosition, Record, Revision,
    StateBatch,
};
use thiserror::Error;

/// Bytes a chunk may have; a reader refuses more. A record or cell must fit.
pub const CHUNK_BYTES_MAX: usize = 32 << 20;

/// Bytes after which a chunk is closed.
const CHUNK_BYTES: usize = 1 << 20;

const MAGIC: &[u8; 12] = b"kine2-state\n";
const VERSION: u32 = 1;

const HEAD: u8 = 1;
const CELLS: u8 = 2;
const CHANGES: u8 = 3;
const END: u8 = 4;

/// Why a state was not carried over.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The stream could not be read or written.
    #[error("state stream: {0}")]
    Io(#[from] io::Error),
    /// It is not what an export wrote.
    #[error("state stream is damaged: {0}")]
    Damaged(String),
    /// It was written by a newer program.
    #[error("state stream has version {found}, this program reads up to {known}")]
    Version {
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// An import needs an empty backend.
    #[error("the state to import into is not empty")]
    NotEmpty,
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Writes all that `backend` holds to `out`. Nothing may be applied to it meanwhile.
///
/// # Errors
/// If the backend cannot be read or the stream cannot be written.
pub fn export(backend: &dyn Backend, out: &mut impl Write) -> Result<(), StreamError> {
    let held = backend.held()?;
    let mut writer = ChunkWriter::begin(out)?;
    let mut chunk = BytesMut::new();
    chunk.put_u64_le(held.applied.epoch);
    chunk.put_u32_le(held.applied.run);
    chunk.put_u64_le(held.applied.index);
    chunk.put_i64_le(held.revision.0);
    writer.chunk(HEAD, &mut chunk)?;

    for (name, value) in &held.cells {
        put_bytes(&mut chunk, name);
        put_bytes(&mut chunk, value);
        writer.chunk_if_full(CELLS, &mut chunk)?;
    }
    writer.chunk_if_any(CELLS, &mut chunk)?;

    let everything = KeyRange::from_wire(Bytes::from_static(b"\0"), Bytes::from_static(b"\0"));
    let mut changes = 0u64;
    let mut from = Some(Revision(0));
    while let Some(start) = from {
        let page = backend.history(&everything, start, Revision(i64::MAX), CHUNK_BYTES)?;
        for change in page.changes {
            chunk.put_slice(&change.id.to_bytes());
            put_bytes(&mut chunk, change.record.as_bytes());
            writer.chunk_if_full(CHANGES, &mut chunk)?;
            changes += 1;
        }
        from = page.next;
    }
    writer.chunk_if_any(CHANGES, &mut chunk)?;

    chunk.put_u64_le(u64::try_from(held.cells.len()).expect("64 bits"));
    chunk.put_u64_le(changes);
    writer.chunk(END, &mut chunk)?;
    Ok(out.flush()?)
}

/// Reads what an export wrote into an empty backend and makes it durable. Stops behind the
/// stream's end. After an error the backend holds a part and is to be destroyed.
///
/// # Errors
/// If the stream is damaged or ends early, or the backend fails or is not empty.
pub fn import(backend: &dyn Backend, input: impl Read) -> Result<(), StreamError> {
    if !is_empty(backend)? {
        return Err(StreamError::NotEmpty);
    }
    let mut reader = ChunkReader::begin(input)?;
    let (HEAD, chunk) = reader.chunk()? else {
        return Err(damaged("it does not begin with its head"));
    };
    let (applied, revision) = parse_head(&chunk).ok_or_else(|| damaged("its head"))?;
    let mut cells = BTreeMap::new();
    let (mut changes, mut last) = (0u64, ChangeId::default());
    loop {
        let (kind, chunk) = reader.chunk()?;
        match kind {
            CELLS if changes == 0 => {
                parse_cells(&chunk, &mut cells).ok_or_else(|| damaged("cells do not parse"))?;
            }
            CHANGES => {
                let parsed = parse_changes(&chunk, &mut last, revision);
                let parsed = parsed.ok_or_else(|| damaged("changes do not parse"))?;
                changes += u64::try_from(parsed.len()).expect("64 bits");
                // Until all is there the state's revision is below its records: a state that is
                // opened in between counts as damaged.
                backend.apply(&StateBatch {
                    revision: Revision::FRESH,
                    changes: parsed,
                    ..StateBatch::default()
                })?;
            }
            END => {
                let counts = parse_counts(&chunk).ok_or_else(|| damaged("its end"))?;
                if counts != (u64::try_from(cells.len()).expect("64 bits"), changes) {
                    return Err(damaged("chunks are missing"));
                }
                break;
            }
            kind => return Err(damaged(&format!("a chunk of kind {kind} in its place"))),
        }
    }
    backend.apply(&StateBatch {
        applied,
        revision,
        cells,
        ..StateBatch::default()
    })?;
    backend.checkpoint()?;
    Ok(())
}

fn is_empty(backend: &dyn Backend) -> Result<bool, BackendError> {
    let fresh = Held {
        revision: Revision::FRESH,
        ..Held::default()
    };
    let mut any = false;
    backend.metas(&mut |_| any = true)?;
    Ok(!any && backend.held()? == fresh)
}

fn parse_head(mut chunk: &[u8]) -> Option<(LogPosition, Revision)> {
    let applied = LogPosition {
        epoch: chunk.try_get_u64_le().ok()?,
        run: chunk.try_get_u32_le().ok()?,
        index: chunk.try_get_u64_le().ok()?,
    };
    let revision = Revision(chunk.try_get_i64_le().ok()?);
    // Ranges of revisions are half-open: the last number there is can be no change's.
    let is_sound = (Revision::FRESH.0..i64::MAX).contains(&revision.0);
    (chunk.is_empty() && is_sound).then_some((applied, revision))
}

fn parse_cells(chunk: &[u8], cells: &mut BTreeMap<Bytes, Option<Bytes>>) -> Option<()> {
    let mut reader = Reader::new(chunk);
    while !reader.is_empty() {
        let (name, value) = (reader.owned()?, reader.owned()?);
        if cells.insert(name, Some(value)).is_some() {
            return None;
        }
    }
    Some(())
}

/// Changes above `last` and up to `revision` whose records say the same as their ids.
fn parse_changes(chunk: &[u8], last: &mut ChangeId, revision: Revision) -> Option<Vec<Change>> {
    let mut reader = Reader::new(chunk);
    let mut changes = Vec::new();
    while !reader.is_empty() {
        let id = ChangeId::from_bytes(&reader.array::<{ ChangeId::LEN }>()?)?;
        let record = Record::parse(reader.owned()?)?;
        let fields = record.view();
        let sound = id > *last
            && id.main <= revision
            && fields.mod_revision == id.main.0
            && (0..=id.main.0).contains(&fields.create_revision);
        if !sound {
            return None;
        }
        *last = id;
        changes.push(Change { id, record });
    }
    Some(changes)
}

fn parse_counts(mut chunk: &[u8]) -> Option<(u64, u64)> {
    let counts = (chunk.try_get_u64_le().ok()?, chunk.try_get_u64_le().ok()?);
    chunk.is_empty().then_some(counts)
}

fn damaged(what: &str) -> StreamError {
    StreamError::Damaged(what.to_owned())
}

#[derive(Debug)]
pub(crate) struct ChunkWriter<'w, W> {
    out: &'w mut W,
    crc: u32,
}

impl<'w, W: Write> ChunkWriter<'w, W> {
    pub(crate) fn begin(out: &'w mut W) -> Result<Self, StreamError> {
        let version = VERSION.to_le_bytes();
        out.write_all(MAGIC)?;
        out.write_all(&version)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(MAGIC), &version);
        Ok(Self { out, crc })
    }

    fn chunk_if_full(&mut self, kind: u8, chunk: &mut BytesMut) -> Result<(), StreamError> {
        if chunk.len() >= CHUNK_BYTES {
            self.chunk(kind, chunk)?;
        }
        Ok(())
    }

    fn chunk_if_any(&mut self, kind: u8, chunk: &mut BytesMut) -> Result<(), StreamError> {
        if !chunk.is_empty() {
            self.chunk(kind, chunk)?;
        }
        Ok(())
    }

    /// Writes a chunk and empties it.
    pub(crate) fn chunk(&mut self, kind: u8, chunk: &mut BytesMut) -> Result<(), StreamError> {
        if chunk.len() > CHUNK_BYTES_MAX {
            let what = format!("a chunk of {} bytes is too long", chunk.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what).into());
        }
        let mut header = [kind; 5];
        let len = u32::try_from(chunk.len()).expect("below CHUNK_BYTES_MAX");
        header[1..].copy_from_slice(&len.to_le_bytes());
        self.crc = chunk_crc(self.crc, header, chunk);
        self.out.write_all(&header)?;
        self.out.write_all(chunk)?;
        self.out.write_all(&self.crc.to_le_bytes())?;
        chunk.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct ChunkReader<R> {
    input: R,
    crc: u32,
}

impl<R: Read> ChunkReader<R> {
    fn begin(mut input: R) -> Result<Self, StreamError> {
        let (mut magic, mut version) = ([0; MAGIC.len()], [0; 4]);
        read_exact(&mut input, &mut magic)?;
        if magic != *MAGIC {
            return Err(damaged("it is not a kine2 state"));
        }
        read_exact(&mut input, &mut version)?;
        let found = u32::from_le_bytes(version);
        if found != VERSION {
            return Err(StreamError::Version {
                found,
                known: VERSION,
            });
        }
        let crc = crc32c::crc32c_append(crc32c::crc32c(&magic), &version);
        Ok(Self { input, crc })
    }

    /// The next chunk's kind and payload.
    fn chunk(&mut self) -> Result<(u8, Vec<u8>), StreamError> {
        let (mut header, mut crc) = ([0; 5], [0; 4]);
        read_exact(&mut self.input, &mut header)?;
        let [kind, len @ ..] = header;
        let len = u32::from_le_bytes(len);
        if usize::try_from(len).map_or(true, |len| len > CHUNK_BYTES_MAX) {
            return Err(damaged(&format!("a chunk of {len} bytes")));
        }
        // Grows with what comes, so that a false length costs no memory.
        let mut chunk = Vec::new();
        let read = (&mut self.input)
            .take(u64::from(len))
            .read_to_end(&mut chunk)?;
        read_exact(&mut self.input, &mut crc)?;
        self.crc = chunk_crc(self.crc, header, &chunk);
        if u32::try_from(read) != Ok(len) || self.crc != u32::from_le_bytes(crc) {
            return Err(damaged("a chunk fails its checksum"));
        }
        Ok((kind, chunk))
    }
}

fn chunk_crc(before: u32, header: [u8; 5], chunk: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(before, &header), chunk)
}

fn read_exact(input: &mut impl Read, out: &mut [u8]) -> Result<(), StreamError> {
    input.read_exact(out).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it ends early"),
        _ => StreamError::Io(error),
    })
}
