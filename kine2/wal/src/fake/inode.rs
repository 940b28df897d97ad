//! The bytes of one fake file, as seen and as they may survive.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::survival::{Dice, Survival};

const PAGE: usize = 4096;
const SECTOR: usize = 512;

type Page = [u8; PAGE];

/// The content of a sector; `None` when all of it is zero.
type Sector = Option<Arc<[u8; SECTOR]>>;

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    size: u64,
    durable_size: u64,
    /// As seen; a page that is missing is zero.
    pages: Arc<BTreeMap<u64, Arc<Page>>>,
    /// Sectors written since the last flush: what the medium held before, then all versions since.
    unsynced: BTreeMap<u64, Vec<Sector>>,
    /// Sectors a failed flush was to write and no write has touched since: any version may be there.
    doubtful: BTreeMap<u64, Vec<Sector>>,
}

impl Inode {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn read(&self, mut buffer: &mut [u8], mut offset: u64) {
        while !buffer.is_empty() {
            let (page, at) = split(offset, PAGE);
            let count = (PAGE - at).min(buffer.len());
            let (now, rest) = buffer.split_at_mut(count);
            match self.pages.get(&page) {
                Some(page) => now.copy_from_slice(&page[at..at + count]),
                None => now.fill(0),
            }
            buffer = rest;
            offset += count as u64;
        }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8], mut offset: u64) {
        if bytes.is_empty() {
            return;
        }
        self.size = self.size.max(offset + bytes.len() as u64);
        while !bytes.is_empty() {
            let (number, at) = split(offset, SECTOR);
            let count = (SECTOR - at).min(bytes.len());
            let (now, rest) = bytes.split_at(count);
            let before = self.sector(number);
            let mut after = before.as_deref().copied().unwrap_or([0; SECTOR]);
            after[at..at + count].copy_from_slice(now);
            let after = shared(&after);
            let versions = self.unsynced.entry(number).or_insert_with(|| {
                self.doubtful
                    .get(&number)
                    .cloned()
                    .unwrap_or_else(|| vec![before])
            });
            versions.push(after.clone());
            self.set_sector(number, &after);
            bytes = rest;
            offset += count as u64;
        }
    }

    /// Everything written is on the medium, but for what an earlier failed flush lost.
    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.unsynced).into_keys() {
            self.doubtful.remove(&sector);
        }
        self.durable_size = self.size;
    }

    /// What is not flushed now never will be, unless it is written again.
    pub(super) fn fail_sync(&mut self) {
        self.doubtful.append(&mut self.unsynced);
    }

    /// What is seen is what the medium holds.
    pub(super) fn make_firm(&mut self) {
        self.unsynced.clear();
        self.doubtful.clear();
        self.durable_size = self.size;
    }

    pub(super) fn crash(&mut self, keep: Survival, dice: &mut Dice) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let count = unsynced.len() as u64;
        for (at, (sector, versions)) in unsynced.iter().enumerate() {
            let survives = keep.draw_change(dice, at as u64, count);
            let newest = versions.len() as u64 - 1;
            // Mostly the newest version; an earlier one when it had been written back on the way.
            let version = match (survives, dice.below(4)) {
                (false, _) => 0,
                (true, 0) => 1 + dice.below(newest),
                (true, _) => newest,
            };
            self.set_sector(*sector, &chosen(versions, version));
        }
        for (sector, versions) in std::mem::take(&mut self.doubtful) {
            if !unsynced.contains_key(&sector) {
                let version = dice.below(versions.len() as u64);
                self.set_sector(sector, &chosen(&versions, version));
            }
        }
        let (low, high) = (
            self.size.min(self.durable_size),
            self.size.max(self.durable_size),
        );
        self.size = match dice.below(3) {
            0 => self.durable_size,
            1 => self.size,
            _ => low + dice.below(high - low + 1),
        };
        self.forget_beyond_size();
        self.durable_size = self.size;
    }

    pub(super) fn flip_bit(&mut self, byte: u64, bit: u8) {
        let (number, at) = split(byte, SECTOR);
        let mut sector = self
            .sector(number)
            .as_deref()
            .copied()
            .unwrap_or([0; SECTOR]);
        sector[at] ^= 1 << bit;
        self.set_sector(number, &shared(&sector));
    }

    fn forget_beyond_size(&mut self) {
        let (last, at) = split(self.size, PAGE);
        let pages = Arc::make_mut(&mut self.pages);
        pages.split_off(&(last + 1));
        if let Some(page) = pages.get_mut(&last) {
            Arc::make_mut(page)[at..].fill(0);
        }
    }

    fn sector(&self, number: u64) -> Sector {
        let (page, at) = split(number * SECTOR as u64, PAGE);
        shared(
            self.pages.get(&page)?[at..at + SECTOR]
                .try_into()
                .expect("a sector's bytes"),
        )
    }

    fn set_sector(&mut self, number: u64, sector: &Sector) {
        let (number, at) = split(number * SECTOR as u64, PAGE);
        if sector.is_none() && !self.pages.contains_key(&number) {
            return;
        }
        let pages = Arc::make_mut(&mut self.pages);
        let page = Arc::make_mut(pages.entry(number).or_insert_with(|| Arc::new([0; PAGE])));
        page[at..at + SECTOR].copy_from_slice(sector.as_deref().unwrap_or(&[0; SECTOR]));
        if sector.is_none() && *page == [0; PAGE] {
            pages.remove(&number);
        }
    }
}

fn chosen(versions: &[Sector], version: u64) -> Sector {
    versions[usize::try_from(version).expect("few versions")].clone()
}

fn shared(sector: &[u8; SECTOR]) -> Sector {
    (*sector != [0; SECTOR]).then(|| Arc::new(*sector))
}

/// Which block of this size, and where in it.
fn split(offset: u64, size: usize) -> (u64, usize) {
    let at = usize::try_from(offset % size as u64).expect("less than a block");
    (offset / size as u64, at)
}
