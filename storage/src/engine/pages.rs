//! Checksummed blocks under redb: its storage, over the disk seam.
//!
//! redb trusts what it reads: a flipped bit in an inner page makes a key look
//! absent, or makes redb panic. So every 4096-byte block is stored with a
//! CRC-32 behind it, seeded with the block's number, and checked whenever it
//! comes from the disk. What redb means by the bytes is not known here.
//!
//! Block 0 holds redb's header, which is overwritten in place. It is kept in
//! one 512-byte sector with its own checksum, so that a power cut leaves the
//! old or the new one. All other blocks are copy-on-write in redb: a torn one
//! was never part of a committed tree.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::StorageBackend;

use crate::disk::DiskFile;

/// Bytes of a block as redb sees it; redb reads and writes whole blocks.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Bytes of a block on the disk: the block, then its CRC-32.
pub(super) const STORED_BLOCK_BYTES: usize = BLOCK_BYTES + 4;
/// The part of the first block that is stored, with magic and checksum.
const SECTOR_BYTES: usize = 512;
/// Where redb's header starts in the sector.
const HEADER_AT: usize = 16;
/// Most bytes that redb's header may have.
const HEADER_BYTES_MAX: usize = SECTOR_BYTES - HEADER_AT - 4;
const MAGIC: [u8; 8] = *b"QUORENG\n";
/// Version of the block layout described above.
pub(super) const LAYOUT_VERSION: u32 = 1;

/// A block that does not match its checksum.
#[derive(Clone, Debug, thiserror::Error)]
#[error("block {block} of {file} does not match its checksum")]
pub(super) struct PageDamage {
    pub(super) file: Arc<str>,
    pub(super) block: u64,
}

impl PageDamage {
    /// Finds the damage in an error that came through redb.
    pub(super) fn within(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<Self>().cloned()
    }
}

/// What a file has written so far.
#[derive(Debug, Default)]
pub(super) struct PageCounts {
    pub(super) bytes_written: AtomicU64,
    pub(super) syncs: AtomicU64,
}

/// redb's view of one file.
pub(super) struct Pages {
    file: Arc<dyn DiskFile>,
    name: Arc<str>,
    counts: Arc<PageCounts>,
}

impl fmt::Debug for Pages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pages").field("name", &self.name).finish()
    }
}

impl Pages {
    pub(super) fn new(file: Arc<dyn DiskFile>, name: Arc<str>, counts: Arc<PageCounts>) -> Self {
        Self { file, name, counts }
    }

    fn damage(&self, block: u64) -> io::Error {
        let file = self.name.clone();
        io::Error::new(io::ErrorKind::InvalidData, PageDamage { file, block })
    }

    fn read_header(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range = header_range(offset, out.len())?;
        let mut sector = [0; SECTOR_BYTES];
        self.file.read_at(&mut sector, 0)?;
        let intact = check_sector(&sector);
        // Zeros are what a file starts with, before redb wrote its header.
        if !intact && sector.iter().any(|byte| *byte != 0) {
            return Err(self.damage(0));
        }
        out.copy_from_slice(&sector[range]);
        Ok(())
    }

    fn write_header(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let range = header_range(offset, data.len())?;
        // redb always writes its header whole.
        if range.start != HEADER_AT {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut sector = [0; SECTOR_BYTES];
        sector[..8].copy_from_slice(&MAGIC);
        sector[8..12].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
        sector[range].copy_from_slice(data);
        let sum = crc32fast::hash(&sector[..SECTOR_BYTES - 4]);
        sector[SECTOR_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        self.write_counted(&sector, 0)
    }

    fn read_blocks(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        let mut stored = vec![0; out.len() / BLOCK_BYTES * STORED_BLOCK_BYTES];
        self.file.read_at(&mut stored, stored_offset(first))?;
        let blocks = stored.chunks_exact(STORED_BLOCK_BYTES);
        for (number, (stored, out)) in (first..).zip(blocks.zip(out.chunks_exact_mut(BLOCK_BYTES)))
        {
            let (data, sum) = stored.split_at(BLOCK_BYTES);
            // All zeros: a block that was added and not yet written.
            if sum != block_sum(number, data) && stored.iter().any(|byte| *byte != 0) {
                return Err(self.damage(number));
            }
            out.copy_from_slice(data);
        }
        Ok(())
    }

    fn write_blocks(&self, first: u64, data: &[u8]) -> io::Result<()> {
        let mut stored = Vec::with_capacity(data.len() / BLOCK_BYTES * STORED_BLOCK_BYTES);
        for (number, block) in (first..).zip(data.chunks_exact(BLOCK_BYTES)) {
            stored.extend_from_slice(block);
            stored.extend_from_slice(&block_sum(number, block));
        }
        self.write_counted(&stored, stored_offset(first))
    }

    fn write_counted(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.counts
            .bytes_written
            .fetch_add(data.len() as u64, Ordering::Relaxed);
        self.file.write_at(data, offset)
    }
}

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        let stored = self.file.len()?;
        let Some(behind) = stored.checked_sub(BLOCK_BYTES as u64) else {
            return Ok(0);
        };
        Ok((1 + behind / STORED_BLOCK_BYTES as u64) * BLOCK_BYTES as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset < BLOCK_BYTES as u64 {
            return self.read_header(offset, out);
        }
        self.read_blocks(whole_blocks(offset, out.len())?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let blocks = whole_blocks(0, usize::try_from(len).map_err(io::Error::other)?)
            .map(|_| len / BLOCK_BYTES as u64)?;
        self.file.set_len(match blocks {
            0 => 0,
            blocks => stored_offset(blocks),
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counts.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset < BLOCK_BYTES as u64 {
            return self.write_header(offset, data);
        }
        self.write_blocks(whole_blocks(offset, data.len())?, data)
    }
}

/// Whether the first sector is one that was written whole.
pub(super) fn check_sector(sector: &[u8; SECTOR_BYTES]) -> bool {
    let (body, sum) = sector.split_at(SECTOR_BYTES - 4);
    sector[..8] == MAGIC
        && sector[8..12] == LAYOUT_VERSION.to_le_bytes()
        && sum == crc32fast::hash(body).to_le_bytes()
}

/// The layout version of a file, if it is one of the engine's.
pub(super) fn layout_version(file: &dyn DiskFile) -> io::Result<Option<u32>> {
    let mut start = [0; 12];
    file.read_at(&mut start, 0)?;
    let (magic, version) = start.split_at(8);
    let version = version.try_into().map(u32::from_le_bytes).ok();
    Ok(version.filter(|_| magic == MAGIC))
}

fn header_range(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.saturating_add(len);
    if end > HEADER_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(HEADER_AT + start..HEADER_AT + end)
}

/// Number of the block at `offset`, if offset and length are of whole blocks.
fn whole_blocks(offset: u64, len: usize) -> io::Result<u64> {
    if !offset.is_multiple_of(BLOCK_BYTES as u64) || !len.is_multiple_of(BLOCK_BYTES) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(offset / BLOCK_BYTES as u64)
}

/// Where block `number` (not the first) stands in the file.
fn stored_offset(number: u64) -> u64 {
    BLOCK_BYTES as u64 + (number - 1) * STORED_BLOCK_BYTES as u64
}

/// The number is the CRC's seed, so a block in the wrong place does not pass.
/// Its low half is enough: it wraps after 16 TiB.
fn block_sum(number: u64, data: &[u8]) -> [u8; 4] {
    let mut sum = crc32fast::Hasher::new_with_initial(number as u32);
    sum.update(data);
    sum.finalize().to_le_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, OpenMode, SimDisk};

    fn pages(disk: &SimDisk) -> Pages {
        disk.create_dir_all(Path::new("/")).unwrap();
        let file = disk
            .open(Path::new("/pages"), OpenMode::OpenOrCreate)
            .unwrap();
        Pages::new(file, "pages".into(), Arc::default())
    }

    #[test]
    fn blocks_come_back_and_new_ones_are_zero() {
        let pages = pages(&SimDisk::new());
        assert_eq!(pages.len().unwrap(), 0);
        pages.set_len(5 * 4096).unwrap();
        assert_eq!(pages.len().unwrap(), 5 * 4096);
        pages.write(2 * 4096, &[7; 8192]).unwrap();
        let mut out = vec![1; 4 * 4096];
        pages.read(4096, &mut out).unwrap();
        assert!(out[..4096].iter().all(|byte| *byte == 0));
        assert!(out[4096..3 * 4096].iter().all(|byte| *byte == 7));
        assert!(out[3 * 4096..].iter().all(|byte| *byte == 0));
        pages.write(0, &[9; 320]).unwrap();
        let mut head = [0; 9];
        pages.read(0, &mut head).unwrap();
        assert_eq!(head, [9; 9]);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let disk = SimDisk::new();
        let pages = pages(&disk);
        pages.set_len(3 * 4096).unwrap();
        pages.write(0, &[9; 320]).unwrap();
        pages.write(4096, &[7; 4096]).unwrap();
        pages.sync_data().unwrap();
        for offset in [0, 8, 100, 511, 4096, 5000, 8191, 8192, 8195, 8196, 9000] {
            disk.flip_bit(Path::new("/pages"), offset, 3).unwrap();
            let header = pages.read(0, &mut [0; 320]).is_err();
            let first = pages.read(4096, &mut [0; 4096]).is_err();
            let fresh = pages.read(8192, &mut [0; 4096]).is_err();
            let hit = (offset < 512, (4096..8196).contains(&offset), offset >= 8196);
            assert_eq!((header, first, fresh), hit, "flip at {offset}");
            disk.flip_bit(Path::new("/pages"), offset, 3).unwrap();
        }
        // A copy in another place is no good either.
        let stored = disk.open(Path::new("/pages"), OpenMode::Existing).unwrap();
        let mut block = vec![0; 4100];
        stored.read_at(&mut block, 4096).unwrap();
        stored.write_at(&block, 8196).unwrap();
        let error = pages.read(8192, &mut [0; 4096]).unwrap_err();
        assert_eq!(PageDamage::within(&error).unwrap().block, 2);
    }
}
