//! One simulated file's bytes, and one simulated folder's names: as they are
//! seen now, as they are durable, and what lies between the two.

use std::collections::BTreeMap;

use super::dice::Dice;

/// What a disk writes as a whole or not at all, in bytes.
pub(super) const SECTOR_BYTES: usize = 512;

/// A change of a file that no sync has covered.
#[derive(Clone, Debug)]
enum FileChange {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl FileChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }

    /// Length of a file of `len` bytes after this change.
    fn len_after(&self, len: usize) -> usize {
        match self {
            Self::Write { offset, data } => len.max(offset + data.len()),
            Self::SetLen(len) => *len,
        }
    }

    /// The sectors whose bytes this changes, of a file that ends at `end`.
    fn sectors(&self, end: usize) -> std::ops::Range<usize> {
        match self {
            Self::Write { data, .. } if data.is_empty() => 0..0,
            Self::Write { offset, data } => {
                offset / SECTOR_BYTES..(offset + data.len()).div_ceil(SECTOR_BYTES)
            }
            Self::SetLen(len) => len / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES),
        }
    }

    /// Applies what of this change falls into the sector that starts at
    /// `start`.
    fn apply_to_sector(&self, sector: &mut [u8], start: usize) {
        match self {
            Self::Write { offset, data } => {
                let from = (*offset).max(start);
                let to = (offset + data.len()).min(start + sector.len());
                if from < to {
                    sector[from - start..to - start]
                        .copy_from_slice(&data[from - offset..to - offset]);
                }
            }
            Self::SetLen(len) => {
                let keep = len.saturating_sub(start).min(sector.len());
                sector[keep..].fill(0);
            }
        }
    }
}

/// A file's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<FileChange>,
}

impl Content {
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        self.change(FileChange::Write {
            offset,
            data: data.to_vec(),
        });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.change(FileChange::SetLen(len));
    }

    fn change(&mut self, change: FileChange) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// Forgets that anything was unsynced: no later sync makes it durable, though it is seen until
    /// the power goes. Lengths stay: they are the file system's, and in its journal.
    pub(super) fn lose_unsynced(&mut self) {
        self.unsynced.clear();
        self.durable.resize(self.live.len(), 0);
    }

    /// Flips a bit in what is seen and in what is durable.
    pub(super) fn flip_bit(&mut self, offset: usize, bit: u8) {
        for bytes in [&mut self.live, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// What a power cut leaves: all, nothing, or a mix of what was unsynced.
    pub(super) fn cut(&mut self, dice: &mut Dice) {
        match dice.below(10) {
            0 => self.sync(),
            1..=3 => {}
            _ => self.keep_some(dice),
        }
        self.unsynced.clear();
        self.live.clone_from(&self.durable);
    }

    /// Each sector keeps a beginning of the changes that touched it, each on
    /// its own: a cache writes a sector back as it stands at some moment, in
    /// any order. The length, too, is that of some moment.
    fn keep_some(&mut self, dice: &mut Dice) {
        let mut end = self.durable.len();
        let mut lens = vec![end];
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, change) in self.unsynced.iter().enumerate() {
            for sector in change.sectors(end) {
                touched.entry(sector).or_default().push(number);
            }
            lens.push(change.len_after(lens[number]));
            end = end.max(lens[number + 1]);
        }
        let lost_percent = dice.below(101);
        let mut bytes = std::mem::take(&mut self.durable);
        bytes.resize(end.next_multiple_of(SECTOR_BYTES), 0);
        for (sector, changes) in touched {
            let kept = match dice.percent(lost_percent) {
                true => dice.below(changes.len() as u64) as usize,
                false => changes.len(),
            };
            let start = sector * SECTOR_BYTES;
            for number in &changes[..kept] {
                let slice = &mut bytes[start..start + SECTOR_BYTES];
                self.unsynced[*number].apply_to_sector(slice, start);
            }
        }
        bytes.resize(lens[dice.below(lens.len() as u64) as usize], 0);
        self.durable = bytes;
    }
}

/// A change of a folder that no sync has covered.
#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, file: u64 },
    Unlink { name: String },
    Rename { from: String, to: String },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Unlink { name } => {
                names.remove(name);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

/// A folder's names. Its own name is durable from the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    live: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    unsynced: Vec<NameChange>,
}

impl Folder {
    pub(super) fn names(&self) -> &BTreeMap<String, u64> {
        &self.live
    }

    pub(super) fn link(&mut self, name: &str, file: u64) {
        self.change(NameChange::Link {
            name: name.to_owned(),
            file,
        });
    }

    pub(super) fn unlink(&mut self, name: &str) {
        self.change(NameChange::Unlink {
            name: name.to_owned(),
        });
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.change(NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        });
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.unsynced.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What a power cut leaves: some beginning of the unsynced changes, for
    /// a journal keeps their order.
    pub(super) fn cut(&mut self, dice: &mut Dice) {
        self.unsynced
            .truncate(dice.below(self.unsynced.len() as u64 + 1) as usize);
        self.sync();
        self.live.clone_from(&self.durable);
    }
}
