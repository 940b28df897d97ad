//! The state file: everything the witness must not forget, one record after the other.
//!
//! Records are appended and flushed; when most of the file is outdated it is written anew beside
//! and takes the old one's place. After a crash the file may end within a record that nobody was
//! told of: it is cut off. Anything else that is wrong is damage: who served from it might have
//! forgotten an answer it gave, so it is refused (docs/witness.md, "The state file").

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use kine2_trust::{AuthorityError, self_signed};
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

use crate::record::{Identity, Record, RecordError, RecordKey};

const FILE: &str = "witness.state";
const LOCK: &str = "lock";
const MAGIC: &[u8; 8] = b"K2WITNES";
/// Version of the layout that is written; the only one that is read.
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 12;
/// Of a record's head: length, sum of the head, sum of the body.
const HEAD_BYTES: usize = 12;
/// Bytes of a record's body at most.
const BODY_BYTES_MAX: usize = 1 << 20;
/// The file is not written anew below this size.
const REWRITE_BYTES_MIN: usize = 1 << 20;
/// It is, when it has this many times the bytes that count.
const REWRITE_RATIO: usize = 4;

/// Why the store cannot be opened or written.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    #[error("{0:?}: {1}")]
    Io(PathBuf, io::Error),
    #[error("another kine2-witness uses {0:?}")]
    InUse(PathBuf),
    #[error("{0:?} holds no witness yet: start `kine2-witness serve` first")]
    Empty(PathBuf),
    #[error(
        "{path:?} is damaged at byte {at}: {what}. A witness must not serve from a store that may \
         have forgotten something: move the directory away, start a new witness in its place, and \
         put it in with `kine2 witness replace` on one node of each cluster"
    )]
    Damaged {
        path: PathBuf,
        at: usize,
        what: String,
    },
    #[error("{0:?} was written by version {1} of the layout; {VERSION} is accepted")]
    Version(PathBuf, u32),
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
}

/// The open state file.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    file: File,
    /// Bytes of the file; the next record goes there.
    end: usize,
    /// Sum of the last record, which the next one continues.
    chain: u32,
    /// Newest record of each key, encoded.
    live: BTreeMap<RecordKey, Bytes>,
    live_bytes: usize,
    _lock: File,
}

impl Store {
    /// Opens the store in this directory, or makes a new one, which is a new witness.
    ///
    /// # Errors
    /// If it is in use, damaged, or a file cannot be read or written.
    pub(crate) fn open(
        dir: &Path,
        now: SystemTime,
    ) -> Result<(Self, Identity, Vec<Record>), StoreError> {
        let in_dir = |error: io::Error| StoreError::Io(dir.to_owned(), error);
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(in_dir)?;
        let lock = lock(dir)?;
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (certificate, key) = self_signed(now)?;
                let key = Bytes::copy_from_slice(key.secret_pkcs8_der());
                let identity = Record::Identity(Identity { certificate, key });
                let live = BTreeMap::from([(RecordKey::Identity, identity.encode())]);
                write_anew(dir, &live)?;
                fs::read(&path).map_err(|error| StoreError::Io(path.clone(), error))?
            }
            Err(error) => return Err(StoreError::Io(path, error)),
        };
        let Parsed {
            mut records,
            end,
            chain,
        } = parse(&bytes).map_err(|fault| fault.in_file(&path))?;
        let io = |error| StoreError::Io(path.clone(), error);
        let file = OpenOptions::new().write(true).open(&path).map_err(io)?;
        if end < bytes.len() {
            let torn = bytes.len() - end;
            tracing::warn!(torn, "the last record was not finished and is cut off");
            let end = u64::try_from(end).expect("a file's size");
            file.set_len(end)
                .and_then(|()| file.sync_all())
                .map_err(io)?;
        }
        let Some(Record::Identity(identity)) = records.first().cloned() else {
            unreachable!("the parser refuses another first record");
        };
        records.remove(0);
        let live: BTreeMap<_, _> = [Record::Identity(identity.clone())]
            .iter()
            .chain(&records)
            .map(|record| (record.key(), record.encode()))
            .collect();
        let store = Self {
            dir: dir.to_owned(),
            file,
            end,
            chain,
            live_bytes: live.values().map(|body| HEAD_BYTES + body.len()).sum(),
            live,
            _lock: lock,
        };
        Ok((store, identity, newest(records)))
    }

    /// Makes all of them durable, with one flush.
    ///
    /// # Errors
    /// If it cannot be written; nothing may be written after that.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let mut out = BytesMut::new();
        for record in records {
            let body = record.encode();
            self.chain = put(&mut out, self.chain, &body);
            self.live_bytes += HEAD_BYTES + body.len();
            if let Some(old) = self.live.insert(record.key(), body) {
                self.live_bytes -= HEAD_BYTES + old.len();
            }
        }
        if self.end + out.len() > REWRITE_BYTES_MIN.max(REWRITE_RATIO * self.live_bytes) {
            return self.rewrite();
        }
        let at = u64::try_from(self.end).expect("a file's size");
        self.file
            .write_all_at(&out, at)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| StoreError::Io(self.dir.join(FILE), error))?;
        self.end += out.len();
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), StoreError> {
        (self.file, self.end, self.chain) = write_anew(&self.dir, &self.live)?;
        Ok(())
    }
}

/// Who the witness in this directory is, whether it runs or not.
///
/// # Errors
/// If there is none.
pub(crate) fn identity(dir: &Path) -> Result<Identity, StoreError> {
    let path = dir.join(FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Empty(dir.to_owned()));
        }
        read => read.map_err(|error| StoreError::Io(path.clone(), error))?,
    };
    match first(&bytes).map_err(|fault| fault.in_file(&path))? {
        Record::Identity(identity) => Ok(identity),
        _ => unreachable!("the parser refuses another first record"),
    }
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(0o600);
    let file = options
        .open(&path)
        .map_err(|error| StoreError::Io(path, error))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| StoreError::InUse(dir.to_owned()))?;
    Ok(file)
}

/// Puts a file with these records in the place of the one there is.
fn write_anew(
    dir: &Path,
    live: &BTreeMap<RecordKey, Bytes>,
) -> Result<(File, usize, u32), StoreError> {
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    let mut chain = crc32c::crc32c(&out);
    for body in live.values() {
        chain = put(&mut out, chain, body);
    }
    let path = dir.join(FILE);
    let fresh = dir.join("witness.new");
    let io = |error| StoreError::Io(fresh.clone(), error);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o600);
    let file = options.open(&fresh).map_err(io)?;
    file.write_all_at(&out, 0)
        .and_then(|()| file.sync_all())
        .map_err(io)?;
    fs::rename(&fresh, &path)
        .and_then(|()| File::open(dir)?.sync_all())
        .map_err(io)?;
    Ok((file, out.len(), chain))
}

/// Appends a record, and gives the sum that the next one continues.
fn put(out: &mut BytesMut, chain: u32, body: &[u8]) -> u32 {
    let length = u32::try_from(body.len()).expect("records are small");
    let head_sum = crc32c::crc32c_append(chain, &length.to_le_bytes());
    let body_sum = crc32c::crc32c_append(head_sum, body);
    out.put_u32_le(length);
    out.put_u32_le(head_sum);
    out.put_u32_le(body_sum);
    out.put_slice(body);
    body_sum
}

#[derive(Debug)]
struct Parsed {
    records: Vec<Record>,
    /// Where the last whole record ends.
    end: usize,
    chain: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Damaged { at: usize, what: String },
    Version(u32),
}

impl Fault {
    fn at(at: usize, what: impl Into<String>) -> Self {
        Self::Damaged {
            at,
            what: what.into(),
        }
    }

    fn in_file(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Damaged { at, what } => StoreError::Damaged { path, at, what },
            Self::Version(version) => StoreError::Version(path, version),
        }
    }
}

/// What comes next in the file.
enum Next<'b> {
    Body(&'b [u8], u32),
    /// The file ends here, or within a record that was being written.
    End,
}

fn parse(bytes: &[u8]) -> Result<Parsed, Fault> {
    let mut chain = header(bytes)?;
    let mut end = HEADER_BYTES;
    let mut records = Vec::new();
    while let Next::Body(body, sum) = next(bytes, end, chain)? {
        let record = Record::decode(body).map_err(|error: RecordError| {
            Fault::at(end, format!("a record that is not understood: {error}"))
        })?;
        if (record.key() == RecordKey::Identity) != records.is_empty() {
            return Err(Fault::at(
                end,
                "the first record, and only that, says who it is",
            ));
        }
        records.push(record);
        end += HEAD_BYTES + body.len();
        chain = sum;
    }
    match records.is_empty() {
        // A new file takes its place when it is whole, so this was never written.
        true => Err(Fault::at(end, "it does not say which witness it is")),
        false => Ok(Parsed {
            records,
            end,
            chain,
        }),
    }
}

/// The first record: which witness it is. A running witness may be writing behind it.
fn first(bytes: &[u8]) -> Result<Record, Fault> {
    let chain = header(bytes)?;
    let whole = match next(bytes, HEADER_BYTES, chain)? {
        Next::Body(body, _) => HEADER_BYTES + HEAD_BYTES + body.len(),
        Next::End => HEADER_BYTES,
    };
    parse(&bytes[..whole]).map(|mut parsed| parsed.records.remove(0))
}

fn header(bytes: &[u8]) -> Result<u32, Fault> {
    let Some((header, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Fault::at(0, "it is too short for its header"));
    };
    let Some(version) = header.strip_prefix(MAGIC) else {
        return Err(Fault::at(0, "it is not a witness's state file"));
    };
    let version = u32::from_le_bytes(version.try_into().expect("the header's last four bytes"));
    match version {
        VERSION => Ok(crc32c::crc32c(header)),
        other => Err(Fault::Version(other)),
    }
}

fn next(bytes: &[u8], at: usize, chain: u32) -> Result<Next<'_>, Fault> {
    let rest = &bytes[at..];
    let Some((head, rest)) = rest.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(Next::End);
    };
    let field = |at: usize| {
        let bytes = head[at..at + 4].try_into().expect("four bytes of the head");
        u32::from_le_bytes(bytes)
    };
    let (length, head_sum, body_sum) = (field(0), field(4), field(8));
    if head_sum != crc32c::crc32c_append(chain, &length.to_le_bytes()) {
        // A file system may have made the file longer before its content was there.
        let empty = head.iter().chain(rest).all(|byte| *byte == 0);
        return match empty {
            true => Ok(Next::End),
            false => Err(Fault::at(at, "the head of a record has a wrong sum")),
        };
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > BODY_BYTES_MAX {
        return Err(Fault::at(at, format!("a record of {length} bytes")));
    }
    let Some((body, _)) = rest.split_at_checked(length) else {
        return Ok(Next::End);
    };
    match body_sum == crc32c::crc32c_append(head_sum, body) {
        true => Ok(Next::Body(body, body_sum)),
        false => Err(Fault::at(at, "a record has a wrong sum")),
    }
}

/// The newest record of each key.
fn newest(records: Vec<Record>) -> Vec<Record> {
    let by_key: BTreeMap<_, _> = records.into_iter().map(|one| (one.key(), one)).collect();
    by_key.into_values().collect()
}

/// Reads a state file; what is understood is understood again once written.
///
/// # Panics
/// When what is written of its records is read as others.
pub(crate) fn fuzz(data: &[u8]) {
    // The sums are made right, so that what is in the records is reached, too.
    let mut out = BytesMut::new();
    out.put_slice(MAGIC);
    out.put_u32_le(VERSION);
    let mut chain = crc32c::crc32c(&out);
    for body in data.split(|byte| *byte == b'|') {
        chain = put(&mut out, chain, body);
    }
    let _ = parse(&out);
    let _ = parse(data);
    if let Ok(record) = Record::decode(data) {
        let again = Record::decode(&record.encode());
        assert_eq!(again, Ok(record), "read, written and read again");
    }
}

#[cfg(test)]
mod tests;
