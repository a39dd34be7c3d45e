//! What was written to one file and not synced: kept in memory in sectors, over what the file
//! really holds. Killing the process is then what a power cut is to a disk.

use std::collections::BTreeMap;
use std::io;

use crate::disk::DiskFile;

/// What a disk writes as a whole or not at all, bytes.
pub(super) const SECTOR_BYTES: u64 = 512;
const SECTOR: usize = SECTOR_BYTES as usize;

/// A sector as it is seen.
#[derive(Clone, Debug)]
struct Sector {
    bytes: Box<[u8; SECTOR]>,
    /// A sync that was to write it has failed: it is seen on, and never written, as in a system's
    /// page cache.
    doomed: bool,
}

/// One file's unsynced part.
#[derive(Debug)]
pub(super) struct Held {
    /// The file's length as it is seen.
    len: u64,
    /// Its real length.
    real_len: u64,
    /// Real bytes from here on are gone as it is seen: the file was cut since the last sync.
    floor: Option<u64>,
    sectors: BTreeMap<u64, Sector>,
}

impl Held {
    /// Of a file of so many bytes, of which all were synced.
    pub(super) fn new(len: u64) -> Self {
        Self {
            len,
            real_len: len,
            floor: None,
            sectors: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that a power cut would drop, in whole sectors.
    pub(super) fn bytes(&self) -> u64 {
        self.sectors.len() as u64 * SECTOR_BYTES
    }

    /// Reads what is seen.
    pub(super) fn read(
        &self,
        real: &dyn DiskFile,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<()> {
        let end = end_of(offset, buffer.len())?;
        if end > self.len {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        self.read_real(real, buffer, offset)?;
        for (number, sector) in self.sectors.range(offset / SECTOR_BYTES..) {
            let start = number * SECTOR_BYTES;
            if start >= end {
                break;
            }
            let (from, to) = (start.max(offset), (start + SECTOR_BYTES).min(end));
            let part = &sector.bytes[(from - start) as usize..(to - start) as usize];
            buffer[(from - offset) as usize..(to - offset) as usize].copy_from_slice(part);
        }
        Ok(())
    }

    /// Reads what is really there, with zeros behind it.
    fn read_real(&self, real: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let there = self.floor.unwrap_or(self.real_len).min(self.real_len);
        let there = there.saturating_sub(offset).min(buffer.len() as u64);
        let (found, behind) = buffer.split_at_mut(there as usize);
        behind.fill(0);
        match found.is_empty() {
            true => Ok(()),
            false => real.read_at(found, offset),
        }
    }

    /// Takes a write; gives the numbers of its sectors.
    pub(super) fn write(
        &mut self,
        real: &dyn DiskFile,
        data: &[u8],
        offset: u64,
    ) -> io::Result<std::ops::Range<u64>> {
        let end = end_of(offset, data.len())?;
        let touched = match data.is_empty() {
            true => 0..0,
            false => offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES),
        };
        for number in touched.clone() {
            let start = number * SECTOR_BYTES;
            let (from, to) = (start.max(offset), (start + SECTOR_BYTES).min(end));
            let part = &data[(from - offset) as usize..(to - offset) as usize];
            let mut bytes = match self.sectors.get(&number) {
                Some(sector) => sector.bytes.clone(),
                None => Box::new([0; SECTOR]),
            };
            if part.len() < SECTOR && !self.sectors.contains_key(&number) {
                self.read_real(real, &mut bytes[..], start)?;
            }
            bytes[(from - start) as usize..(to - start) as usize].copy_from_slice(part);
            let doomed = false;
            self.sectors.insert(number, Sector { bytes, doomed });
        }
        self.len = self.len.max(end);
        Ok(touched)
    }

    /// Cuts or lengthens the file, as it is seen.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            if len < self.floor.unwrap_or(self.real_len) {
                self.floor = Some(len);
            }
            drop(self.sectors.split_off(&len.div_ceil(SECTOR_BYTES)));
            if let Some(sector) = self.sectors.get_mut(&(len / SECTOR_BYTES)) {
                sector.bytes[(len % SECTOR_BYTES) as usize..].fill(0);
            }
        }
        self.len = len;
    }

    /// Writes a sector ahead of any sync, as a system does when it likes; not while a cut of the
    /// file waits, since that would come after it.
    pub(super) fn write_back(&mut self, real: &dyn DiskFile, number: u64) -> io::Result<()> {
        let sound = self.sectors.get(&number).filter(|sector| !sector.doomed);
        let Some(sector) = sound.filter(|_| self.floor.is_none()).cloned() else {
            return Ok(());
        };
        self.put(real, number * SECTOR_BYTES, &sector.bytes[..])?;
        self.sectors.remove(&number);
        Ok(())
    }

    fn put(&mut self, real: &dyn DiskFile, start: u64, bytes: &[u8]) -> io::Result<()> {
        let len = self.len.saturating_sub(start).min(bytes.len() as u64);
        real.write_at(&bytes[..len as usize], start)?;
        self.real_len = self.real_len.max(start + len);
        Ok(())
    }

    /// Hands everything to the file, and has that synced.
    pub(super) fn sync(&mut self, real: &dyn DiskFile) -> io::Result<()> {
        if let Some(floor) = self.floor.filter(|floor| *floor < self.real_len) {
            real.set_len(floor)?;
            self.real_len = floor;
        }
        self.floor = None;
        let mut run: Vec<u8> = Vec::new();
        let mut run_start = 0;
        let sound = |(number, sector): (&u64, &Sector)| {
            (!sector.doomed).then(|| (*number * SECTOR_BYTES, sector.bytes.clone()))
        };
        let sound: Vec<_> = self.sectors.iter().filter_map(sound).collect();
        for (start, bytes) in sound {
            if run_start + run.len() as u64 != start {
                self.put(real, run_start, &run)?;
                run.clear();
                run_start = start;
            }
            run.extend_from_slice(&bytes[..]);
        }
        self.put(real, run_start, &run)?;
        if self.real_len != self.len {
            real.set_len(self.len)?;
            self.real_len = self.len;
        }
        real.sync_data()?;
        self.sectors.retain(|_, sector| sector.doomed);
        Ok(())
    }

    /// A sync has failed: what it was to write never will be.
    pub(super) fn doom(&mut self) {
        for sector in self.sectors.values_mut() {
            sector.doomed = true;
        }
    }
}

fn end_of(offset: u64, len: usize) -> io::Result<u64> {
    offset
        .checked_add(len as u64)
        .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))
}
