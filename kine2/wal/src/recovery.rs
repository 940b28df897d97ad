//! Opening a log after a crash: what is there, what of it counts, and what must not count later.
//!
//! All reading and judging comes before the first write: a log that is refused is left as it is. The
//! rules and why they hold are in `docs/wal-format.md`, section "Recovery".

use kine2_mutation::{Mutation, mutated};
use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::error::WalError;
use crate::index::Index;
use crate::limits::{DATA_START, MAX_BATCH_BYTES, PAGE_BYTES, WalOptions};
use crate::position::Position;
use crate::prepare::{Supply, sync_dir};
use crate::record::{FLAG_RESET, Kind, Malformed};
use crate::replay::{Replay, once_durable};
use crate::scan::{Window, in_memory, remnants_of_unused};
use crate::segment::{
    FIRST_SEQUENCE, FileName, PREPARE_NAME, Segment, SegmentFile, VERSION, recycle_name,
    segment_name,
};

/// What [`Wal::open`](crate::Wal::open) found. All of it is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The log begins after this position; its index is 0 in a new log.
    ///
    /// A state that needs entries at or before it cannot be rebuilt from this log.
    pub base: Position,
    /// Position of the last entry, the base when there is none.
    ///
    /// The log cannot know that its newest segments were deleted, or its disk set back to an old image:
    /// a state or a peer that is further than this knows.
    pub last: Position,
    /// The newest hard state.
    pub hard_state: Option<Bytes>,
    /// A batch that was never acknowledged, cut from the end.
    pub torn_tail: Option<TornTail>,
}

/// A batch that a crash left unfinished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Name of the segment.
    pub file: String,
    /// Where the good records end.
    pub offset: u64,
    /// Bytes cut, as far as they can be told from what was there before.
    pub bytes: u64,
}

/// A log ready to go on.
#[derive(Debug)]
pub(crate) struct Recovered<F> {
    /// Empty only for a new log.
    pub(crate) segments: VecDeque<Segment<F>>,
    pub(crate) supply: Supply<F>,
    pub(crate) index: Index,
    pub(crate) hard_state: Option<Bytes>,
    /// Where the next record goes in the last segment.
    pub(crate) end: u64,
    pub(crate) marked: bool,
    /// Sequence and length of segments from before the last reset.
    pub(crate) obsolete: Vec<(u64, u64)>,
    torn_tail: Option<TornTail>,
}

impl<F> Recovered<F> {
    pub(crate) fn report(&self) -> Recovery {
        Recovery {
            base: self.index.base(),
            last: self.index.last(),
            hard_state: self.hard_state.clone(),
            torn_tail: self.torn_tail.clone(),
        }
    }
}

pub(crate) fn recover<D: Disk>(
    disk: &D,
    options: &WalOptions,
) -> Result<Recovered<D::File>, WalError> {
    let listing = Listing::read(disk)?;
    let Chosen {
        used,
        mut unused,
        obsolete,
    } = choose(disk, &listing.segments)?;
    let fresh = used.is_empty();
    let mut replay = Replay::default();
    for file in used {
        replay.segment(file)?;
    }
    let torn_tail = replay.judge_tail(unused.as_ref())?;

    // From here on files change.
    if listing.prepare {
        disk.remove(PREPARE_NAME)
            .map_err(WalError::io("remove", PREPARE_NAME))?;
    }
    if unused.as_ref().is_some_and(|unused| {
        unused.file.bytes != options.segment_bytes || unused.file.version != VERSION
    }) {
        let name = unused
            .take()
            .map(|unused| unused.file.name)
            .expect("it was just seen");
        disk.remove(&name).map_err(WalError::io("remove", &name))?;
    }
    let pool = recyclable(disk, options, &listing.recycle, fresh)?;
    // Names this process sees may not be durable yet: an earlier one may have been killed, or have
    // failed, before it flushed them.
    sync_dir(disk)?;
    if let (Some(segment), Some(tail)) = (replay.segments.back(), &replay.tail) {
        settle(&segment.file, tail.last_batch, tail.end)?;
    }
    if let Some(unused) = &unused {
        settle(&unused.file, DATA_START, DATA_START)?;
    }
    Ok(Recovered {
        segments: replay.segments,
        supply: Supply::new(options.clone(), unused.map(|unused| unused.file), pool),
        index: replay.index,
        hard_state: replay.hard_state,
        end: replay.tail.as_ref().map_or(DATA_START, |tail| tail.end),
        marked: replay.tail.is_some_and(|tail| tail.marked),
        obsolete,
        torn_tail,
    })
}

/// The files of the directory, sorted.
#[derive(Debug, Default)]
struct Listing {
    segments: BTreeSet<u64>,
    recycle: BTreeSet<u64>,
    prepare: bool,
}

impl Listing {
    fn read<D: Disk>(disk: &D) -> Result<Self, WalError> {
        let mut listing = Self::default();
        for name in disk.list().map_err(WalError::io("list", "the directory"))? {
            match FileName::parse(&name) {
                Some(FileName::Segment(sequence)) => drop(listing.segments.insert(sequence)),
                Some(FileName::Recycle(sequence)) => drop(listing.recycle.insert(sequence)),
                Some(FileName::Prepare) => listing.prepare = true,
                None => return Err(WalError::ForeignFile { file: name }),
            }
        }
        Ok(listing)
    }
}

/// The segments that count.
#[derive(Debug)]
struct Chosen<F> {
    /// Those with records, in order, from the last reset on.
    used: VecDeque<SegmentFile<F>>,
    unused: Option<Unused<F>>,
    obsolete: Vec<(u64, u64)>,
}

/// The segment behind the last one with a base.
#[derive(Debug)]
pub(crate) struct Unused<F> {
    pub(crate) file: SegmentFile<F>,
    /// End of the last good record: its first batch was torn.
    pub(crate) torn_end: Option<u64>,
}

/// Opens the segments from the newest back to the last reset.
fn choose<D: Disk>(disk: &D, sequences: &BTreeSet<u64>) -> Result<Chosen<D::File>, WalError> {
    let mut chosen = Chosen {
        used: VecDeque::new(),
        unused: None,
        obsolete: Vec::new(),
    };
    let mut newer = None;
    let mut newest_first = sequences.iter().rev().copied();
    for sequence in newest_first.by_ref() {
        if newer.is_some_and(|newer| newer != sequence + 1) {
            return Err(missing(sequence + 1));
        }
        let file = SegmentFile::open(disk, sequence)?;
        let first = Window::new(&file)
            .record(DATA_START)?
            .map(|(header, _)| header);
        match first {
            Ok(header) if header.kind == Kind::Base as u8 => {
                chosen.used.push_front(file);
                if header.flags & FLAG_RESET != 0 {
                    break;
                }
            }
            Ok(_) => {
                return Err(file.damaged(DATA_START, "a segment that does not begin with a base"));
            }
            Err(malformed) if newer.is_none() => chosen.unused = Some(unused(file, malformed)?),
            Err(malformed) => return Err(file.damaged(DATA_START, malformed.to_string())),
        }
        newer = Some(sequence);
    }
    if let (true, Some(unused)) = (chosen.used.is_empty(), &chosen.unused)
        && unused.file.sequence != FIRST_SEQUENCE
    {
        return Err(missing(unused.file.sequence - 1));
    }
    for sequence in newest_first {
        let name = segment_name(sequence);
        let file = disk.open(&name).map_err(WalError::io("open", &name))?;
        chosen.obsolete.push((
            sequence,
            file.size().map_err(WalError::io("measure", &name))?,
        ));
    }
    Ok(chosen)
}

fn missing(sequence: u64) -> WalError {
    WalError::damaged(
        &segment_name(sequence),
        0,
        "the segment is missing, a later one is there",
    )
}

/// Judges the newest segment when its first record is bad.
fn unused<F: DiskFile>(file: SegmentFile<F>, malformed: Malformed) -> Result<Unused<F>, WalError> {
    let remnants = remnants_of_unused(&file)?;
    match remnants.proof {
        Some(proof) => Err(file.damaged(DATA_START, once_durable(malformed, &file.name, proof))),
        None => Ok(Unused {
            file,
            torn_end: remnants.end,
        }),
    }
}

/// Makes the end of the log firm: good records up to `end` for sure durable, and behind them nothing
/// that could ever be taken for a record.
///
/// The last batch is written again, as it is: it may be in the kernel's memory only, and if an earlier
/// flush failed the kernel does not write it any more, though it still shows it.
fn settle<F: DiskFile>(file: &SegmentFile<F>, last_batch: u64, end: u64) -> Result<(), WalError> {
    if mutated(Mutation::LogNoSettle) {
        return Ok(());
    }
    let mut window = Window::new(file);
    // Whatever was torn began at or before `end`, and was one batch.
    let reach = (end + MAX_BATCH_BYTES)
        .next_multiple_of(PAGE_BYTES)
        .min(file.bytes);
    let zero_end = if window.is_zero(end, reach)? {
        end
    } else {
        reach
    };
    let batch = window
        .bytes(last_batch, end - last_batch)?
        .expect("records lie in the segment");
    let mut bytes = vec![0; in_memory(zero_end - last_batch)];
    bytes[..batch.len()].copy_from_slice(batch);
    if bytes.is_empty() {
        return Ok(());
    }
    file.write(&bytes, last_batch)?;
    file.sync()
}

/// The files that can be used again; the others are removed.
fn recyclable<D: Disk>(
    disk: &D,
    options: &WalOptions,
    recycle: &BTreeSet<u64>,
    fresh: bool,
) -> Result<VecDeque<u64>, WalError> {
    let mut pool = VecDeque::new();
    for sequence in recycle {
        let name = recycle_name(*sequence);
        let file = disk.open(&name).map_err(WalError::io("open", &name))?;
        let size = file.size().map_err(WalError::io("measure", &name))?;
        // A new log counts from 1 again: with the same seed it would draw ids these files may hold.
        if !fresh && size == options.segment_bytes && pool.len() < options.recycle_max {
            pool.push_back(*sequence);
        } else {
            disk.remove(&name).map_err(WalError::io("remove", &name))?;
        }
    }
    Ok(pool)
}
