//! The counter of an etcd keyspace: a gapless revision for each entry that changed a key, and the
//! revision of the log that each of them has, back to what was compacted.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use prost::Message;
use quorate_proto::internal::EtcdRecord;
use quorate_types::Revision;

use super::EtcdRefusal;

/// Name of the counter's record in the range's metadata.
const RECORD: &[u8] = b"E";
/// First byte of the names of stored pages.
const PAGE_PREFIX: u8 = b'H';
/// Revisions of one stored page: the last page is written anew with each flush.
const PAGE_REVISIONS: i64 = 128;

/// Which revision of the log each revision of the counter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revisions {
    compacted: i64,
    /// Of the first one in `moments`.
    first: i64,
    /// Revisions of the log, rising; never empty.
    moments: VecDeque<u64>,
    changed: BTreeSet<i64>,
    is_changed: bool,
}

impl Default for Revisions {
    /// An empty store has revision 1, as etcd's has.
    fn default() -> Self {
        Revisions {
            compacted: 0,
            first: 1,
            moments: VecDeque::from([0]),
            changed: BTreeSet::from([0]),
            is_changed: true,
        }
    }
}

impl Revisions {
    /// The newest revision.
    pub fn current(&self) -> i64 {
        self.first + self.moments.len() as i64 - 1
    }

    /// Older ones than this cannot be read; 0: all can.
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    /// The revision of the log at which the newest revision can be read.
    pub fn moment(&self) -> Revision {
        Revision(self.moments.back().copied().unwrap_or_default())
    }

    /// The revision of the log at which a revision can be read.
    ///
    /// # Errors
    ///
    /// [`EtcdRefusal::Compacted`], [`EtcdRefusal::Future`].
    pub fn moment_of(&self, asked: i64) -> Result<Revision, EtcdRefusal> {
        let current = self.current();
        if asked > current {
            return Err(EtcdRefusal::Future { asked, current });
        }
        let compacted = self.compacted;
        let found = usize::try_from(asked - self.first)
            .ok()
            .and_then(|at| self.moments.get(at));
        match found {
            Some(moment) if asked >= compacted => Ok(Revision(*moment)),
            Some(_) | None => Err(EtcdRefusal::Compacted { asked, compacted }),
        }
    }

    /// The revision of the store at a revision of the log, if that is not before what is kept.
    pub fn at(&self, moment: Revision) -> i64 {
        let known = self.moments.partition_point(|at| *at <= moment.0) as i64;
        self.first + (known - 1).max(0)
    }

    /// An entry has changed keys, once or several times.
    pub(super) fn next(&mut self, moment: Revision) {
        if self.moment() == moment {
            return;
        }
        self.moments.push_back(moment.0);
        self.touched(self.current());
    }

    fn touched(&mut self, revision: i64) {
        self.changed.insert(page_of(revision));
        self.is_changed = true;
    }

    /// Forgets what is older than a revision. Answers which versions may go: those superseded at
    /// or below that revision of the log.
    pub(super) fn compact(&mut self, asked: i64) -> Result<Revision, EtcdRefusal> {
        let compacted = self.compacted;
        if asked <= compacted {
            return Err(EtcdRefusal::Compacted { asked, compacted });
        }
        let moment = self.moment_of(asked)?;
        while self.first < asked {
            self.changed.insert(page_of(self.first));
            self.moments.pop_front();
            self.first += 1;
        }
        self.compacted = asked;
        self.is_changed = true;
        // Events of the revision itself can still be told.
        Ok(Revision(moment.0.saturating_sub(1)))
    }

    /// What changed since the last call.
    pub(in crate::machine) fn take_meta(&mut self) -> Vec<(Bytes, Option<Bytes>)> {
        let mut records = Vec::new();
        if !std::mem::take(&mut self.is_changed) {
            return records;
        }
        let record = EtcdRecord {
            revision: self.current(),
            compacted: self.compacted,
        };
        let record = record.encode_to_vec().into();
        records.push((Bytes::from_static(RECORD), Some(record)));
        for page in std::mem::take(&mut self.changed) {
            let name = [&[PAGE_PREFIX], &page.to_be_bytes()[..]].concat();
            records.push((name.into(), self.page(page)));
        }
        records
    }

    fn page(&self, page: i64) -> Option<Bytes> {
        let from = (page * PAGE_REVISIONS).max(self.first);
        let to = ((page + 1) * PAGE_REVISIONS).min(self.current() + 1);
        let index = |revision: i64| usize::try_from(revision - self.first).unwrap_or(0);
        if from >= to {
            return None;
        }
        let moments = self.moments.range(index(from)..index(to));
        let mut bytes = from.to_le_bytes().to_vec();
        bytes.extend(moments.flat_map(|moment| moment.to_le_bytes()));
        Some(bytes.into())
    }

    pub(super) fn is_name(name: &[u8]) -> bool {
        name == RECORD || name.first() == Some(&PAGE_PREFIX)
    }

    /// Takes a record of the metadata; they come in the order of their names. `None`: it is
    /// damaged.
    pub(super) fn restore(&mut self, name: &[u8], value: &Bytes) -> Option<()> {
        if name == RECORD {
            let record = EtcdRecord::decode(value.clone()).ok()?;
            self.compacted = record.compacted;
            self.moments.clear();
            self.changed.clear();
            self.is_changed = false;
            return Some(());
        }
        let (from, moments) = value.split_first_chunk::<8>()?;
        let from = i64::from_le_bytes(*from);
        if self.moments.is_empty() {
            self.first = from;
        }
        let is_next = from == self.first + self.moments.len() as i64;
        let (moments, []) = moments.as_chunks::<8>() else {
            return None;
        };
        let moments = moments.iter().map(|moment| u64::from_le_bytes(*moment));
        self.moments.extend(moments);
        is_next.then_some(())
    }

    /// Checks what must always hold.
    pub(in crate::machine) fn validate(&self) -> Result<(), String> {
        let rises = self.moments.iter().zip(self.moments.iter().skip(1));
        if self.moments.is_empty() || !rises.into_iter().all(|(left, right)| left < right) {
            return Err("revisions of an etcd keyspace do not rise".to_owned());
        }
        if self.compacted > self.first.max(self.compacted) || self.compacted > self.current() {
            return Err(format!(
                "compacted {} of {}",
                self.compacted,
                self.current()
            ));
        }
        Ok(())
    }
}

fn page_of(revision: i64) -> i64 {
    revision.div_euclid(PAGE_REVISIONS)
}
