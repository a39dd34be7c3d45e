//! The log's files: their names, how they come into being, how they leave.
//!
//! A segment is prepared under a spare's name: filled with zeros, its header
//! written and synced; only then it gets its own name. So a file that has a
//! segment's name has a whole header, or is damaged.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use super::format::{SECTOR_BYTES, check_identity, decode_segment_header, encode_segment_header};
use super::{LogError, LogIdentity};
use crate::disk::{Disk, DiskFile, OpenMode};

/// An open segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<dyn DiskFile>,
    /// Size of the file, header included.
    pub(super) bytes: u64,
}

/// All open segments by number: the commit worker changes them, readers look
/// files up.
pub(super) type Segments = Arc<RwLock<BTreeMap<u64, Segment>>>;

/// The log's folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) path: PathBuf,
}

/// The names found in a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Numbers of segments, ascending.
    pub(super) segments: Vec<u64>,
    /// Numbers in the names of spares, ascending.
    pub(super) spares: Vec<u64>,
}

const SEGMENT_PREFIX: &str = "segment-";
const SPARE_PREFIX: &str = "spare-";
const SUFFIX: &str = ".log";

/// Name of a spare that was no segment yet. Segments count from 1, and become
/// spares of their own number: so no two files ever want the same name.
pub(super) const NEW_SPARE: u64 = 0;

impl Folder {
    pub(super) fn segment_path(&self, number: u64) -> PathBuf {
        self.path
            .join(format!("{SEGMENT_PREFIX}{number:016x}{SUFFIX}"))
    }

    fn spare_path(&self, number: u64) -> PathBuf {
        self.path
            .join(format!("{SPARE_PREFIX}{number:016x}{SUFFIX}"))
    }

    /// Lists segments and spares; other files are not the log's business.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for name in self.disk.list(&self.path)? {
            listing.segments.extend(number_in(&name, SEGMENT_PREFIX));
            listing.spares.extend(number_in(&name, SPARE_PREFIX));
        }
        listing.segments.sort_unstable();
        listing.spares.sort_unstable();
        Ok(listing)
    }

    /// Opens a segment and checks its header; against `identity` if given.
    pub(super) fn open(
        &self,
        number: u64,
        mode: OpenMode,
        identity: Option<&LogIdentity>,
    ) -> Result<(Segment, LogIdentity), LogError> {
        let file = self
            .disk
            .open(&self.segment_path(number), mode)
            .map_err(LogError::disk("open a segment"))?;
        let len = file.len().map_err(LogError::disk("measure a segment"))?;
        let mut start = vec![0; len.min(SECTOR_BYTES) as usize];
        file.read_at(&mut start, 0)
            .map_err(LogError::disk("read a segment's header"))?;
        let header = decode_segment_header(&start, number)?;
        if let Some(identity) = identity {
            check_identity(&header, identity)?;
        }
        if header.segment_bytes > len {
            let detail = "the file is shorter than its header says";
            return Err(LogError::Damaged {
                segment: number,
                offset: len,
                detail,
            });
        }
        Ok((
            Segment {
                number,
                file,
                bytes: header.segment_bytes,
            },
            header.identity,
        ))
    }

    /// Takes a segment's name away, oldest first: to a spare's or for good.
    pub(super) fn retire(&self, number: u64, keep: bool) -> Result<(), LogError> {
        let path = self.segment_path(number);
        match keep {
            true => self.disk.rename(&path, &self.spare_path(number)),
            false => self.disk.remove(&path),
        }
        // Before the next one leaves: names must vanish in their order.
        .and_then(|()| self.disk.sync_dir(&self.path))
        .map_err(LogError::disk("retire a segment"))
    }

    pub(super) fn remove_spare(&self, number: u64) -> Result<(), LogError> {
        self.disk
            .remove(&self.spare_path(number))
            .map_err(LogError::disk("remove a spare"))
    }
}

fn number_in(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// A file on its way to be a segment.
#[derive(Debug)]
pub(super) struct Filling {
    file: Arc<dyn DiskFile>,
    spare: u64,
    filled: u64,
    zeros: Vec<u8>,
}

impl Filling {
    /// Starts with the spare of this name, or with a new file.
    pub(super) fn start(folder: &Folder, spare: u64, step_bytes: u64) -> Result<Self, LogError> {
        let begin = || {
            let file = folder
                .disk
                .open(&folder.spare_path(spare), OpenMode::OpenOrCreate)?;
            let filled = file.len()? / SECTOR_BYTES * SECTOR_BYTES;
            Ok(Self {
                file,
                spare,
                filled,
                zeros: vec![0; step_bytes as usize],
            })
        };
        begin().map_err(LogError::disk("create a segment"))
    }

    /// Size reached so far.
    pub(super) fn bytes(&self) -> u64 {
        self.filled
    }

    /// Writes some more zeros, never past `target`. Zeros and not a mere
    /// length, since a sync into unwritten space has to sync the file
    /// system's books as well. Synced in steps, so that no commit waits for
    /// all of it.
    pub(super) fn step(&mut self, target: u64) -> Result<(), LogError> {
        let step = target
            .saturating_sub(self.filled)
            .min(self.zeros.len() as u64);
        self.file
            .fill(&self.zeros[..step as usize], self.filled)
            .and_then(|()| self.file.sync_data())
            .map_err(LogError::disk("fill a segment"))?;
        self.filled += step;
        Ok(())
    }

    /// Makes it the segment `number`.
    pub(super) fn finish(
        self,
        folder: &Folder,
        identity: &LogIdentity,
        number: u64,
    ) -> Result<Segment, LogError> {
        let header = encode_segment_header(identity, number, self.filled);
        let mut sector = [0; SECTOR_BYTES as usize];
        sector[..header.len()].copy_from_slice(&header);
        self.file
            .write_at(&sector, 0)
            .and_then(|()| self.file.sync_data())
            .and_then(|()| {
                let spare = folder.spare_path(self.spare);
                folder.disk.rename(&spare, &folder.segment_path(number))
            })
            .and_then(|()| folder.disk.sync_dir(&folder.path))
            .map_err(LogError::disk("begin a segment"))?;
        Ok(Segment {
            number,
            file: self.file,
            bytes: self.filled,
        })
    }
}
