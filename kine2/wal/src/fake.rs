//! A disk in memory that loses power, for tests and for the simulator of a cluster.
//!
//! What this process sees and what the medium holds are kept apart, for the bytes of each file by
//! sectors of 512 bytes and for the names of the directory. [`FakeDisk::crash`] leaves what a power
//! cut may leave: of each sector any version written since the last flush, of the names any part of
//! the changes since the directory was flushed. Everything follows from the seeds given; nothing
//! depends on time. Zeros take no memory, so segments of any size are cheap, and images share their
//! pages.

mod faults;
mod inode;
mod survival;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::{Disk, DiskFile};
use crate::fake::faults::Faults;
use crate::fake::inode::Inode;
use crate::fake::survival::{Dice, Survival};

pub use crate::fake::faults::Operation;

/// A disk in memory. A clone is the same disk; [`fork`](Self::fork) makes another one.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

/// All that a disk holds at one moment, as after a clean shutdown.
#[derive(Clone, Debug)]
pub struct Image {
    names: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    live: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    /// What makes `live` of `durable`, in order.
    unsynced: Vec<NameChange>,
    /// Files opened before the last crash are void.
    generation: u64,
    counts: BTreeMap<Operation, u64>,
    written_bytes: u64,
    faults: Faults,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

impl FakeDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk with this content.
    #[must_use]
    pub fn from_image(image: &Image) -> Self {
        let disk = Self::new();
        disk.restore(image);
        disk
    }

    /// Another disk in the same state, with what is not flushed and what is planned. Files that are open
    /// stay files of this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            state: Arc::new(Mutex::new(self.lock().clone())),
        }
    }

    /// Cuts the power and starts again: what was not flushed survives in part, as the seed says. Open
    /// files become void, planned faults are forgotten.
    pub fn crash(&self, seed: u64) {
        let mut state = self.lock();
        let mut dice = Dice(seed);
        let keep = Survival::draw(&mut dice);
        let changes = std::mem::take(&mut state.unsynced);
        let count = changes.len() as u64;
        for (at, change) in changes.into_iter().enumerate() {
            if keep.draw_change(&mut dice, at as u64, count) {
                change.apply(&mut state.durable);
            }
        }
        state.live = state.durable.clone();
        for inode in state.inodes.values_mut() {
            let keep = Survival::draw(&mut dice);
            inode.crash(keep, &mut dice);
        }
        state.generation += 1;
        state.faults = Faults::default();
        state.drop_unnamed();
    }

    /// The `nth` operation of this kind from now on (1 is the next) fails, once.
    ///
    /// A failed flush is as on Linux: what it was to write may be lost though it is still shown, and a
    /// later flush that succeeds does not bring it back.
    pub fn fail_nth(&self, operation: Operation, nth: u64, kind: io::ErrorKind) {
        assert!(nth > 0, "the next operation is the first");
        self.lock().faults.errors.insert(operation, (nth - 1, kind));
    }

    /// The `nth` write from now on writes only its first `bytes` and fails, once.
    pub fn short_nth_write(&self, nth: u64, bytes: usize) {
        assert!(nth > 0, "the next write is the first");
        self.lock().faults.short_write = Some((nth - 1, bytes));
    }

    /// All files together may have this many bytes; what would exceed it fails with `StorageFull`
    /// after what still fits.
    pub fn limit_bytes(&self, capacity_bytes: Option<u64>) {
        self.lock().faults.capacity_bytes = capacity_bytes;
    }

    /// After `changes` more operations that change something, every operation fails until
    /// [`crash`](Self::crash). A flush that is cut off flushes nothing for sure.
    pub fn cut_power_after(&self, changes: u64) {
        self.lock().faults.changes_left = Some(changes);
    }

    /// How often this was asked for since the disk was made.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.lock().counts.get(&operation).copied().unwrap_or(0)
    }

    /// How many operations that change something were asked for.
    #[must_use]
    pub fn changes(&self) -> u64 {
        let state = self.lock();
        let changes = state
            .counts
            .iter()
            .filter(|(operation, _)| operation.is_change());
        changes.map(|(_, count)| count).sum()
    }

    /// Bytes written since the disk was made.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.lock().written_bytes
    }

    /// What this process sees now, to be restored later; shares the pages.
    #[must_use]
    pub fn snapshot(&self) -> Image {
        let state = self.lock();
        let mut inodes = state.inodes.clone();
        inodes.values_mut().for_each(Inode::make_firm);
        Image {
            names: state.live.clone(),
            inodes,
        }
    }

    /// Sets the disk to an image, as a virtual machine that goes back to an old snapshot. Open files
    /// become void.
    pub fn restore(&self, image: &Image) {
        let mut state = self.lock();
        state.live = image.names.clone();
        state.durable = image.names.clone();
        state.unsynced.clear();
        state.inodes = image.inodes.clone();
        state.next_inode = image.inodes.keys().last().map_or(0, |last| last + 1);
        state.generation += 1;
        state.faults = Faults::default();
        state.drop_unnamed();
    }

    /// The bytes of a file.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn bytes_of(&self, name: &str) -> Vec<u8> {
        let state = self.lock();
        let inode = &state.inodes[state.live.get(name).expect("the file exists")];
        let mut bytes = vec![0; usize::try_from(inode.size()).expect("a fake file fits memory")];
        inode.read(&mut bytes, 0);
        bytes
    }

    /// Gives a file these bytes, durably; makes it when it is missing.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.lock();
        let mut inode = Inode::default();
        inode.write(bytes, 0);
        inode.make_firm();
        let number = state.add(inode);
        state.live.insert(name.to_owned(), number);
        state.durable.insert(name.to_owned(), number);
    }

    /// Takes a file away, durably.
    pub fn delete(&self, name: &str) {
        let mut state = self.lock();
        state.live.remove(name);
        state.durable.remove(name);
    }

    /// Turns one bit of a file over, on the medium too.
    ///
    /// # Panics
    /// When there is no such file or it is shorter.
    pub fn flip_bit(&self, name: &str, byte: u64, bit: u8) {
        let mut state = self.lock();
        let number = *state.live.get(name).expect("the file exists");
        let inode = state.inodes.get_mut(&number).expect("names lead to files");
        assert!(byte < inode.size(), "the file has that byte");
        inode.flip_bit(byte, bit);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no user of the disk panics inside of it")
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut state = self.lock();
        state.begin(Operation::List)?;
        Ok(state.live.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<FakeFile> {
        let mut state = self.lock();
        state.begin(Operation::Create)?;
        if state.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.add(Inode::default());
        state.change_names(NameChange::Create(name.to_owned(), inode));
        Ok(FakeFile {
            disk: self.clone(),
            inode,
            generation: state.generation,
        })
    }

    fn open(&self, name: &str) -> io::Result<FakeFile> {
        let mut state = self.lock();
        state.begin(Operation::Open)?;
        let inode = *state.live.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FakeFile {
            disk: self.clone(),
            inode,
            generation: state.generation,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::Rename)?;
        if !state.live.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::Remove)?;
        if !state.live.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.begin(Operation::SyncDir)?;
        state.durable = state.live.clone();
        state.unsynced.clear();
        state.drop_unnamed();
        Ok(())
    }
}

/// A file of a [`FakeDisk`].
#[derive(Clone, Debug)]
pub struct FakeFile {
    disk: FakeDisk,
    inode: u64,
    generation: u64,
}

impl FakeFile {
    fn with<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut State, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.lock();
        if self.generation != state.generation || !state.inodes.contains_key(&self.inode) {
            return Err(io::Error::other(
                "the file was opened before the power was cut",
            ));
        }
        if let Err(error) = state.begin(operation) {
            if operation == Operation::Sync {
                state.inode(self.inode).fail_sync();
            }
            return Err(error);
        }
        work(&mut state, self.inode)
    }
}

impl DiskFile for FakeFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(Operation::Read, |state, inode| {
            let inode = state.inode(inode);
            if offset + buffer.len() as u64 > inode.size() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            inode.read(buffer, offset);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(Operation::Write, |state, inode| {
            let (count, error) = state.admit_write(inode, offset, bytes.len());
            state.inode(inode).write(&bytes[..count], offset);
            state.written_bytes += count as u64;
            error.map_or(Ok(()), |kind| Err(kind.into()))
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(Operation::Sync, |state, inode| {
            state.inode(inode).sync();
            Ok(())
        })
    }

    fn size(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        match state.inodes.get(&self.inode) {
            Some(inode) if self.generation == state.generation => Ok(inode.size()),
            _ => Err(io::Error::other(
                "the file was opened before the power was cut",
            )),
        }
    }
}

impl State {
    /// Counts an operation and fails it if that was planned.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        *self.counts.entry(operation).or_default() += 1;
        self.faults.begin(operation)
    }

    /// How many bytes of a write are written, and the error after them.
    fn admit_write(
        &mut self,
        inode: u64,
        offset: u64,
        count: usize,
    ) -> (usize, Option<io::ErrorKind>) {
        match &mut self.faults.short_write {
            Some((0, bytes)) => {
                let count = count.min(*bytes);
                self.faults.short_write = None;
                return (count, Some(io::ErrorKind::WriteZero));
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        if let Some(capacity) = self.faults.capacity_bytes {
            let others: u64 = self.inodes.values().map(Inode::size).sum();
            let size = self.inode(inode).size();
            let room = (capacity + size).saturating_sub(others).max(size);
            let fits = usize::try_from(room.saturating_sub(offset)).unwrap_or(usize::MAX);
            if fits < count {
                return (fits, Some(io::ErrorKind::StorageFull));
            }
        }
        (count, None)
    }

    fn add(&mut self, inode: Inode) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, inode);
        number
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("open files are kept")
    }

    fn change_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.live);
        self.unsynced.push(change);
    }

    /// Forgets the files that have no name any more.
    fn drop_unnamed(&mut self) {
        let (live, durable) = (&self.live, &self.durable);
        self.inodes.retain(|number, _| {
            live.values()
                .chain(durable.values())
                .any(|named| named == number)
        });
    }
}

impl NameChange {
    /// Does nothing when an earlier change that it needs did not survive.
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, inode) => {
                names.insert(name, inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
