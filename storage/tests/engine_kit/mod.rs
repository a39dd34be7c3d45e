//! What the engine's tests stand on: an opened engine with one range, and a
//! model of that range, a plain map of all versions ever written.

#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_storage::disk::SimDisk;
use quorate_storage::engine::{
    Change, Engine, EngineError, EngineOptions, HistoryEntry, Position, RangeTable, ScanRequest,
    Version,
};

/// The folder of every engine here.
pub const DIR: &str = "/engine";
/// The range of the model, its interval, and its neighbours' in the same file.
pub const RANGE: u64 = 4;
pub const BELOW: u64 = 6;
pub const ABOVE: u64 = 2;

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub fn interval() -> (Bytes, Bytes) {
    (bytes("k"), bytes("l"))
}

pub fn options() -> EngineOptions {
    EngineOptions {
        cache_bytes: 4 << 20,
        flush_interval: Duration::from_secs(3600),
        collect_records_max: 16,
        ..EngineOptions::default()
    }
}

/// An engine with the model's range, between two others that must not show.
pub struct Opened {
    pub engine: Engine,
    pub table: RangeTable,
    pub neighbours: [RangeTable; 2],
}

impl Opened {
    pub fn new(disk: &SimDisk, options: EngineOptions) -> Self {
        Self::try_new(disk, options).unwrap()
    }

    pub fn try_new(disk: &SimDisk, options: EngineOptions) -> Result<Self, EngineError> {
        let engine = Engine::open(Arc::new(disk.clone()), Path::new(DIR), options)?;
        let table = engine.open_range(RANGE, interval())?;
        let below = engine.open_range(BELOW, (bytes("a"), bytes("k")))?;
        let above = engine.open_range(ABOVE, (bytes("l"), Bytes::new()))?;
        for (neighbour, keys) in [(&below, ["a", "jzzzz"]), (&above, ["l", "zz"])] {
            for (at, key) in (1_u64..).zip(keys) {
                let version = Version {
                    revision: at << 25,
                    expiry: None,
                    value: bytes("other"),
                    causal: None,
                };
                let change = Change::Put {
                    key: bytes(key),
                    version,
                };
                neighbour.apply(Position { term: 1, index: at }, vec![change]);
            }
        }
        Ok(Self {
            engine,
            table,
            neighbours: [below, above],
        })
    }
}

/// All versions, by key and revision; None: deleted.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub position: Position,
    pub revision: u64,
    versions: BTreeMap<Bytes, BTreeMap<u64, Option<Version>>>,
    floor: u64,
    no_history: bool,
}

impl Model {
    /// Keys of several lengths, some the beginning of others.
    pub fn key(&self, number: u64) -> Bytes {
        let tail = ["", "\0", "a", "a\0\u{7f}"][(number % 4) as usize];
        bytes(&format!("k{:05}{tail}", number / 4))
    }

    /// The next write, and what it is for the engine.
    pub fn write(&mut self, key: u64, by: u64, value: Option<u64>) -> Change {
        self.position.term = 1 + self.position.index / 50;
        self.position.index += 1;
        self.revision += by;
        let (key, revision) = (self.key(key), self.revision);
        let version = value.map(|value| Version {
            revision,
            expiry: value.is_multiple_of(3).then_some(value),
            // Some do not fit on a page.
            value: vec![
                value as u8;
                if value > 1990 {
                    9000
                } else {
                    value as usize % 40
                }
            ]
            .into(),
            // The golden files, of smaller values, have none.
            causal: (value > 1000).then(|| vec![7; value as usize % 20].into()),
        });
        let versions = self.versions.entry(key.clone()).or_default();
        versions.insert(revision, version.clone());
        match version {
            Some(version) => Change::Put { key, version },
            None => Change::Delete { key, revision },
        }
    }

    /// The next write, of a value of one's own.
    pub fn put(&mut self, key: u64, value: Bytes) -> Change {
        self.write(key, 1, Some(0));
        let (key, revision) = (self.key(key), self.revision);
        let version = Version {
            revision,
            expiry: None,
            value,
            causal: None,
        };
        let versions = self.versions.entry(key.clone()).or_default();
        versions.insert(revision, Some(version.clone()));
        Change::Put { key, version }
    }

    pub fn set_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
    }

    pub fn set_history(&mut self, keep: bool) {
        if self.no_history == keep {
            self.floor = self.floor.max(self.revision);
            self.no_history = !keep;
        }
    }

    pub fn floor(&self) -> u64 {
        if self.no_history {
            self.floor.max(self.revision)
        } else {
            self.floor
        }
    }

    pub fn revisions(&self) -> impl Iterator<Item = u64> {
        self.versions
            .values()
            .flat_map(|versions| versions.keys().copied())
    }

    pub fn get(&self, key: &[u8], at: Option<u64>) -> Option<Version> {
        let versions = self.versions.get(key)?;
        versions
            .range(..=at.unwrap_or(u64::MAX))
            .next_back()?
            .1
            .clone()
    }

    pub fn scan(&self, request: &ScanRequest) -> Vec<(Bytes, Version)> {
        let inside =
            |key: &Bytes| *key >= request.start && (request.end.is_empty() || *key < request.end);
        let keys = self.versions.keys().filter(|key| inside(key));
        let mut rows: Vec<_> = keys
            .filter_map(|key| Some((key.clone(), self.get(key, request.at)?)))
            .collect();
        if request.reverse {
            rows.reverse();
        }
        if request.keys_only {
            rows.iter_mut()
                .for_each(|(_, version)| version.value = Bytes::new());
        }
        rows
    }

    pub fn history(&self, key: &[u8], limit: usize) -> Vec<HistoryEntry> {
        let Some(versions) = self.versions.get(key) else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        let mut newer: Option<(u64, bool)> = None;
        for (revision, version) in versions.iter().rev() {
            if let Some(version) = version {
                match newer {
                    Some((end, _)) if end <= self.floor() => break,
                    Some((end, true)) => entries.push(HistoryEntry {
                        revision: end,
                        value: None,
                    }),
                    Some((_, false)) | None => {}
                }
                entries.push(HistoryEntry {
                    revision: *revision,
                    value: Some(version.clone()),
                });
            }
            newer = Some((*revision, version.is_none()));
        }
        entries.truncate(limit);
        entries
    }
}
