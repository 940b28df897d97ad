//! What can go wrong, by what the caller can do about it.

use std::io;

use crate::limits::{MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, PAGE_BYTES};
use crate::position::LogIndex;

/// An error of the log.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The log says something that was never written. A single node does not start; a node of a pair
    /// takes a new part incarnation and resyncs (`repl I2`).
    #[error("log damaged: {file} at offset {offset}: {what}")]
    Damaged {
        /// Name of the segment within the log's directory.
        file: String,
        /// Byte offset of the first bad record.
        offset: u64,
        /// What was found there.
        what: String,
    },
    /// A newer program wrote this log.
    #[error("{file} has log format {version}, this program reads {supported}: use a newer program")]
    UnsupportedVersion {
        /// Name of the segment.
        file: String,
        /// Version it names.
        version: u32,
        /// Newest version this program reads.
        supported: u32,
    },
    /// A file in the log's directory is none of the log's.
    #[error("{file} does not belong into a log's directory: move it away")]
    ForeignFile {
        /// Its name.
        file: String,
    },
    /// The segment size cannot be used.
    #[error(
        "segment size {bytes}: give a multiple of {PAGE_BYTES} from {MIN_SEGMENT_BYTES} to \
         {MAX_SEGMENT_BYTES} bytes"
    )]
    InvalidSegmentBytes {
        /// The size asked for.
        bytes: u64,
    },
    /// Nothing was staged: the payload or the hard state is larger than the log takes.
    #[error("{bytes} bytes are too large for a log record, at most {max} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Largest size accepted.
        max: usize,
    },
    /// The log does not hold this index any more; the caller needs a snapshot.
    #[error("index {index} was cut from the log, which begins at {first}")]
    Cut {
        /// The index asked for.
        index: LogIndex,
        /// First index kept.
        first: LogIndex,
    },
    /// The log does not hold this index yet.
    #[error("index {index} is beyond the log, which ends at {last}")]
    Beyond {
        /// The index asked for.
        index: LogIndex,
        /// Last index held.
        last: LogIndex,
    },
    /// An earlier write or flush failed; nothing is done any more until the log is opened again
    /// (`repl I1`).
    #[error("the log refuses work after an earlier failure: {what}")]
    Failed {
        /// The first failure.
        what: String,
    },
    /// The disk failed. A failed write or flush is final: the `Wal` refuses further work.
    #[error("{operation} {file}: {source}")]
    Io {
        /// What was tried, a verb.
        operation: &'static str,
        /// On which file of the log's directory.
        file: String,
        /// The disk's answer.
        source: io::Error,
    },
}

impl WalError {
    /// For `map_err` after an operation of the disk.
    pub(crate) fn io(operation: &'static str, file: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            operation,
            file: file.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_owned(),
            offset,
            what: what.into(),
        }
    }

    /// The disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }
}
