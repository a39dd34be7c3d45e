//! Power cuts at any moment: what was acknowledged is there, nothing that was
//! never written is, and the order is kept. With a disk that lies about its
//! syncs the same check must fail.

#![allow(clippy::unwrap_used)]

mod log_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use log_support::{Change, Model, first_seed, open, seeds, simulate};
use quorate_storage::disk::SimDisk;
use quorate_storage::disk::sim::Dice;
use quorate_storage::log::{Done, LogEntry, LogError, LogId, LogOptions, NodeLog, Vote};

const GROUPS: u64 = 5;
const IN_FLIGHT_MAX: usize = 24;

/// One seed's world.
struct World {
    dice: Dice,
    disk: SimDisk,
    /// What the last acknowledged change led to.
    acknowledged: Model,
    /// What memory should show.
    current: Model,
    /// Changes since `acknowledged`, in the order of the log.
    in_flight: Vec<(u64, Change)>,
    /// How many of them were acknowledged since.
    acknowledgements: Arc<AtomicUsize>,
    /// Changes before those in flight.
    settled: usize,
    term: u64,
}

impl World {
    fn new(seed: u64, lies: bool) -> Self {
        let disk = SimDisk::new();
        disk.lie_about_sync(lies);
        disk.set_sync_latency(Duration::from_micros(500));
        Self {
            dice: Dice::new(seed),
            disk,
            acknowledged: Model::default(),
            current: Model::default(),
            in_flight: Vec::new(),
            acknowledgements: Arc::default(),
            settled: 0,
            term: 1,
        }
    }

    fn options(&mut self) -> LogOptions {
        let mut options = LogOptions::small(16 << (10 + self.dice.below(3)));
        options.cache_bytes_max = self.dice.below(3) * 4000;
        options.segments_kept_target = 2 + self.dice.below(2) as usize;
        options.lazy_delay = Duration::from_millis(1 + self.dice.below(20));
        options
    }

    /// Takes note of changes that one request makes; its `Done` acknowledges
    /// all up to them.
    fn changed(&mut self, group: u64, changes: Vec<Change>) -> Done {
        for change in changes {
            self.current.apply(group, &change);
            self.in_flight.push((group, change));
        }
        let until = self.settled + self.in_flight.len();
        let acknowledgements = Arc::clone(&self.acknowledgements);
        Box::new(move |result| {
            if result.is_ok() {
                let before = acknowledgements.swap(until, Ordering::SeqCst);
                assert!(before <= until, "acknowledgements come in order");
            }
        })
    }

    fn settle(&mut self) {
        let settled = self.acknowledgements.load(Ordering::SeqCst);
        for (group, change) in self.in_flight.drain(..settled - self.settled) {
            self.acknowledged.apply(group, &change);
        }
        self.settled = settled;
    }

    fn request(&mut self, log: &NodeLog) {
        let id = self.dice.below(GROUPS);
        let group = log.group(id);
        let state = self.current.groups.get(&id).cloned().unwrap_or_default();
        let last = state.last().map_or(0, |last| last.index);
        match self.dice.below(100) {
            0..60 => {
                let entries = self.entries(last);
                let changes = entries.iter().cloned().map(Change::Entry).collect();
                let done = self.changed(id, changes);
                group.append(entries, done);
            }
            60..70 => {
                self.term += self.dice.below(2);
                let vote = Vote {
                    term: self.term,
                    node: self.dice.below(4),
                    committed: self.dice.percent(50),
                };
                let done = self.changed(id, vec![Change::Vote(vote)]);
                group.save_vote(vote, done);
            }
            70..78 => {
                let first = state.entries.keys().next().copied().unwrap_or(last);
                let keep = first + self.dice.below(last - first + 1);
                let keep = self.dice.percent(90).then_some(keep);
                let done = self.changed(id, vec![Change::Truncate(keep)]);
                group.truncate_after(keep, done);
            }
            78..96 => {
                let entries: Vec<_> = state.entries.values().collect();
                let Some(entry) = entries.get(self.dice.below(entries.len() as u64) as usize)
                else {
                    return;
                };
                let purge = LogId {
                    term: entry.term,
                    index: entry.index,
                };
                let done = self.changed(id, vec![Change::Purge(purge)]);
                group.purge(purge, done);
            }
            96..99 => group.save_committed(state.last()),
            _ => {
                let done = self.changed(id, vec![Change::Remove]);
                log.remove_group(id, done);
            }
        }
    }

    fn entries(&mut self, last: u64) -> Vec<LogEntry> {
        let count = 1 + self.dice.below(4);
        (1..=count)
            .map(|number| {
                let len = match self.dice.below(10) {
                    0 => 2500,
                    1..4 => 600,
                    _ => 40,
                };
                let len = self.dice.below(len);
                let payload: Vec<u8> = (0..len).map(|_| self.dice.any() as u8).collect();
                LogEntry {
                    term: self.term,
                    index: last + number,
                    payload: payload.into(),
                }
            })
            .collect()
    }

    /// Works on an open log for a while; ends with the power off, or about to
    /// be.
    async fn work(&mut self, log: &NodeLog) -> Result<(), String> {
        if self.dice.percent(60) {
            self.disk.fail_power_after(self.dice.below(300));
        }
        let requests = self.dice.below(250);
        for _ in 0..requests {
            self.settle();
            if self.in_flight.len() < IN_FLIGHT_MAX {
                self.request(log);
            }
            match self.dice.below(10) {
                0..4 => {}
                4..8 => tokio::task::yield_now().await,
                8 => tokio::time::sleep(Duration::from_micros(self.dice.below(3000))).await,
                _ => self.compare_reads(log)?,
            }
            if self.disk.is_powered_off() {
                break;
            }
        }
        if self.dice.percent(20) {
            tokio::time::sleep(Duration::from_millis(self.dice.below(60))).await;
        }
        Ok(())
    }

    /// While the log is open it shows what was asked of it, durable or not.
    fn compare_reads(&mut self, log: &NodeLog) -> Result<(), String> {
        if log.failed().is_some() || self.disk.is_powered_off() {
            return Ok(());
        }
        let id = self.dice.below(GROUPS);
        let seen = Model::of(log, std::iter::once(id)).map_err(|error| format!("read: {error}"))?;
        match seen.groups.get(&id) == self.current.groups.get(&id) {
            true => Ok(()),
            false => Err(format!("group {id} does not show what was written")),
        }
    }

    /// Whether the reopened log is what some moment since the last
    /// acknowledgement had led to.
    fn compare_recovered(&mut self, log: &NodeLog) -> Result<(), String> {
        self.settle();
        let found = Model::of(log, 0..GROUPS).map_err(|error| format!("read: {error}"))?;
        let mut candidate = self.acknowledged.clone();
        let mut changes = std::mem::take(&mut self.in_flight).into_iter();
        while candidate != found {
            let Some((group, change)) = changes.next() else {
                return Err("the log is not what was acknowledged".to_owned());
            };
            candidate.apply(group, &change);
        }
        (self.acknowledged, self.current) = (found.clone(), found);
        self.acknowledgements = Arc::default();
        self.settled = 0;
        Ok(())
    }

    async fn run(&mut self) -> Result<(), String> {
        let rounds = 2 + self.dice.below(4);
        for _ in 0..rounds {
            let options = self.options();
            if self.dice.percent(10) {
                self.disk.fail_power_after(self.dice.below(12));
            }
            match open(&self.disk, options) {
                Ok(log) => {
                    self.compare_recovered(&log)?;
                    self.work(&log).await?;
                }
                Err(LogError::Disk { .. }) if self.disk.is_powered_off() => {}
                Err(error) => return Err(format!("open: {error}")),
            }
            self.disk = match self.disk.is_powered_off() || self.dice.percent(60) {
                true => self.disk.power_cut(self.dice.any()),
                // Leaves unsynced bytes to the next start, and its power cut.
                false => self.disk.process_kill(),
            };
            // The worker sees that its disk is gone.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let options = self.options();
        let log = open(&self.disk, options).map_err(|error| format!("open: {error}"))?;
        self.compare_recovered(&log)
    }
}

fn run(seed: u64, lies: bool) -> Result<(), String> {
    simulate(async { World::new(seed, lies).run().await })
}

#[test]
fn acknowledged_changes_survive_power_cuts() {
    for seed in first_seed()..first_seed() + seeds(300) {
        if let Err(error) = run(seed, false) {
            panic!(
                "seed {seed}: {error}; replay: QUORATE_SEED={seed} QUORATE_SEEDS=1 \
                 cargo test -p quorate-storage --test log_power acknowledged"
            );
        }
    }
}

#[test]
fn the_check_notices_a_disk_that_lies_about_syncs() {
    let caught = (0..20).filter(|seed| run(*seed, true).is_err()).count();
    assert!(
        caught >= 15,
        "only {caught} of 20 seeds noticed that nothing was synced"
    );
}

/// A killed process leaves a batch that can be read but is not durable. The
/// next start builds on it: whatever happens then, that must not look like
/// damage.
#[test]
fn a_batch_that_was_only_in_memory_is_made_durable_before_it_is_built_on() {
    for seed in 0..40 {
        for operations in 0..5 {
            simulate(async {
                let disk = SimDisk::new();
                let options = LogOptions::small(64 << 10);
                let log = open(&disk, options.clone()).unwrap();
                tokio::time::sleep(Duration::from_secs(2)).await;
                let before = disk.counts().bytes_written;
                let payload = vec![seed as u8; 5000];
                let entries = vec![LogEntry {
                    term: 1,
                    index: 1,
                    payload: payload.into(),
                }];
                log.group(1).append(entries, Box::new(|_| {}));
                while disk.counts().bytes_written == before {
                    tokio::task::yield_now().await;
                }
                let disk = disk.process_kill();
                disk.fail_power_after(operations);
                let was_opened = open(&disk, options.clone()).is_ok();
                let log = open(&disk.power_cut(seed), options).unwrap();
                assert!(
                    !was_opened || log.group(1).last().is_some(),
                    "what was read is gone"
                );
            });
        }
    }
}
