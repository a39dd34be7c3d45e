//! Writes under names, sent again and again through any node: each is applied once, or its sender
//! is told that nobody can say; and `close` then tells what became of it, for good.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::internal::{CloseRequest, Command, Conditional, Write, command};
use quorate_proto::v1::{Expect, expect::State};
use quorate_raft::machine::{Applied, ApplyOutcome, ApplyRefusal};
use quorate_raft::{ProposeError, Proposed};
use tokio::time::Instant;

use crate::clients::{put, within};
use crate::world::{PATIENCE, Settings, Shared, run_all};

const WINDOW: u32 = 100;
/// Named puts that one client has under way at once.
const PIPELINE: u64 = 12;
const WITHIN: Duration = Duration::from_millis(250);

/// What is known of a named put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Applied(u64),
    /// Closed before it was applied.
    Never,
    TooOld,
}

/// One client, and what it was told.
struct Sender {
    world: Shared,
    client: u64,
    fates: Mutex<BTreeMap<u64, Fate>>,
}

fn named(client: u64, sequence: u64, first_tried: u64, command: Command) -> Command {
    Command {
        client,
        sequence,
        first_tried,
        ..command
    }
}

impl Sender {
    fn key(&self, sequence: u64) -> String {
        format!("put-{}-{sequence}", self.client)
    }

    /// Sends a command through one node after the other until one decides it; now and then
    /// through two at once. After so many attempts without an answer, gives up.
    async fn send(
        &self,
        key: &str,
        attempts: u64,
        make: impl Fn(Bytes) -> Command,
    ) -> Option<Applied> {
        let mut node = self.world.any_node();
        for _ in 0..attempts {
            let twice = self.world.roll(4) == 0;
            let (first, second) = tokio::join!(self.once(node, key, &make), async {
                match twice {
                    true => self.once(self.world.any_node(), key, &make).await.ok(),
                    false => None,
                }
            });
            if let (Ok(one), Some(other)) = (&first, &second) {
                self.compare(key, &one.applied, &other.applied);
            }
            match (first, second) {
                (Ok(done), _) | (Err(_), Some(done)) => return Some(done.applied),
                (Err(ProposeError::NotLeader { hint: Some(leader) }), None) => {
                    node = leader.0 as usize - 1;
                }
                (Err(_), None) => node = self.world.any_node(),
            }
            let pause = Duration::from_micros(self.world.roll(20_000));
            tokio::time::sleep(pause).await;
        }
        None
    }

    async fn once(
        &self,
        node: usize,
        key: &str,
        make: &impl Fn(Bytes) -> Command,
    ) -> Result<Proposed, ProposeError> {
        let Some((group, key)) = self.world.group_of(node, "default", key.as_bytes()) else {
            return Err(ProposeError::Stopped);
        };
        group.propose(make(key), within(WITHIN)).await
    }

    /// Two answers about one name are about one decision.
    fn compare(&self, key: &str, one: &Applied, other: &Applied) {
        let refused = |a: &Applied| matches!(a.outcome, ApplyOutcome::Refused(_));
        if !refused(one) && !refused(other) && one.revision != other.revision {
            self.world
                .accuse(format!("{key} was decided twice: {one:?}, {other:?}"));
        }
    }

    fn note(&self, sequence: u64, fate: Fate) {
        let mut fates = self.fates.lock();
        let before = fates.get(&sequence).copied();
        match (before, fate) {
            (None | Some(Fate::TooOld), _) => drop(fates.insert(sequence, fate)),
            (Some(_), Fate::TooOld) => {}
            (Some(before), _) if before == fate => {}
            (Some(before), _) => {
                let key = self.key(sequence);
                self.world
                    .accuse(format!("{key} was {before:?}, and is now {fate:?}"));
            }
        }
    }

    /// One named put, as often as it takes. Some are not repeated but asked about.
    async fn put(self: Arc<Self>, sequence: u64, attempts: u64) {
        let first_tried = self.world.clock_now();
        let value = Bytes::from(vec![sequence as u8; 600]);
        let make = |key| named(self.client, sequence, first_tried, put(key, value.clone()));
        let key = self.key(sequence);
        match self.send(&key, attempts, make).await {
            Some(applied) => self.note(sequence, fate_of_put(&applied)),
            None => self.ask(sequence).await,
        }
        self.world.count_answer();
    }

    /// What became of a put: the question closes its name.
    async fn ask(&self, sequence: u64) {
        let request = CloseRequest {
            client: self.client,
            sequence,
        };
        let make = |_| Command {
            operation: Some(command::Operation::CloseRequest(request)),
            ..Command::default()
        };
        let answer = self.send(&self.key(sequence), u64::MAX, make).await;
        let fate = answer.map_or(Fate::TooOld, |applied| fate_of_put(&applied));
        self.note(sequence, fate);
    }

    /// A pipeline of new puts, and late copies of old ones.
    async fn run(self: Arc<Self>, stop: Arc<AtomicBool>) {
        let mut under_way = tokio::task::JoinSet::new();
        let mut next = 1;
        while !stop.load(Ordering::Relaxed) {
            let late = next > 2 && self.world.roll(10) == 0;
            let sequence = match late {
                true => 1 + self.world.roll(next - 1),
                false => next,
            };
            next += u64::from(!late);
            let attempts = match self.world.roll(6) {
                0 => 1,
                _ => u64::MAX,
            };
            under_way.spawn(self.clone().put(sequence, attempts));
            while under_way.len() as u64 >= PIPELINE {
                under_way.join_next().await.unwrap().unwrap();
            }
            tokio::time::sleep(Duration::from_micros(self.world.roll(4_000))).await;
        }
        while let Some(done) = under_way.join_next().await {
            done.unwrap();
        }
    }

    /// Adds one to a counter so many times, by compare-and-set. Answers how often it was told
    /// that it did, and how often nobody could tell.
    async fn count(self: Arc<Self>, stop: Arc<AtomicBool>) -> (u64, u64) {
        let (mut done, mut unknown, mut sequence) = (0, 0, 0);
        let mut expected = 0;
        while !stop.load(Ordering::Relaxed) {
            sequence += 1;
            let first_tried = self.world.clock_now();
            let make = |key| named(self.client, sequence, first_tried, increment(key, expected));
            let Some(applied) = self.send("counter", u64::MAX, make).await else {
                continue;
            };
            match &applied.outcome {
                ApplyOutcome::Compared {
                    succeeded: true, ..
                }
                | ApplyOutcome::Remembered {
                    succeeded: true, ..
                } => {
                    done += 1;
                    expected += 1;
                }
                ApplyOutcome::Compared { current, .. } => {
                    expected = current.as_ref().map_or(0, |v| number(&v.value));
                }
                ApplyOutcome::Refused(_) => unknown += 1,
                _ => expected = self.counter().await,
            }
            self.world.count_answer();
        }
        (done, unknown)
    }

    /// The counter, as soon as some node can say.
    async fn counter(&self) -> u64 {
        loop {
            let node = self.world.any_node();
            if let Some((group, key)) = self.world.group_of(node, "default", b"counter")
                && group.read_barrier(within(WITHIN)).await.is_ok()
            {
                let found = group.table().get(&key).unwrap();
                return found.map_or(0, |v| number(&v.value));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().unwrap())
}

fn fate_of_put(applied: &Applied) -> Fate {
    match &applied.outcome {
        ApplyOutcome::Remembered { closed: true, .. } => Fate::Never,
        ApplyOutcome::Refused(ApplyRefusal::BelowWindow | ApplyRefusal::QuotaExceeded) => {
            Fate::TooOld
        }
        _ => Fate::Applied(applied.revision.0),
    }
}

fn increment(key: Bytes, expected: u64) -> Command {
    let state = match expected {
        0 => State::Absent(true),
        _ => State::Value(Bytes::copy_from_slice(&expected.to_be_bytes())),
    };
    let value = Bytes::copy_from_slice(&(expected + 1).to_be_bytes());
    let conditional = Conditional {
        write: Some(Write { key, value, ttl: 0 }),
        expect: Some(Expect { state: Some(state) }),
        delete: false,
    };
    Command {
        operation: Some(command::Operation::Conditional(conditional)),
        ..Command::default()
    }
}

/// Sets the window by the cluster's setting, and waits until the range has it.
async fn limit_window(world: &Shared) {
    let raft = world.raft(0).unwrap();
    let change = |base: &quorate_proto::internal::Catalog| {
        let mut next = base.clone();
        next.epoch += 1;
        next.settings
            .insert("window-results".to_owned(), WINDOW.to_string());
        Ok(next)
    };
    raft.update_catalog(within(PATIENCE), change).await.unwrap();
    // The leader looks at the catalog a few times a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Keeps one node away until the others have forgotten what it would need next: it can only come
/// back by a snapshot.
async fn lag_behind_a_snapshot(world: &Shared, deadline: Instant) {
    let leader = world.await_leader().await;
    let away = (leader + 1 + world.roll(2) as usize) % 3;
    let last = world.group(away).unwrap().applied().index;
    world.isolate(away);
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let forgotten = world.all().filter(|n| *n != away).all(|node| {
            let Some((raft, group)) = world.raft(node).zip(world.group(node)) else {
                return false;
            };
            let log = raft.log().group(group.range_id().0);
            log.first_index().is_some_and(|first| first > last + 1)
        });
        if forgotten {
            world.network.heal();
            return;
        }
    }
    world.accuse("the log was not purged behind a node that is away".to_owned());
    world.network.heal();
}

async fn disturb(world: &Shared) {
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(200 + world.roll(300))).await;
        let leader = world.await_leader().await;
        match world.roll(2) {
            0 => world.kill(leader),
            _ => world.cut_power(leader),
        }
        tokio::time::sleep(Duration::from_millis(world.roll(800))).await;
        world.restart(leader).await.unwrap();
    }
    lag_behind_a_snapshot(world, within(Duration::from_secs(20))).await;
    let leader = world.await_leader().await;
    world.kill(leader);
    tokio::time::sleep(Duration::from_millis(world.roll(800))).await;
    world.restart(leader).await.unwrap();
}

async fn retries(world: Shared) {
    limit_window(&world).await;
    let stop: Arc<AtomicBool> = Arc::default();
    let sender = |client| {
        Arc::new(Sender {
            world: world.clone(),
            client,
            fates: Mutex::default(),
        })
    };
    let putters: Vec<_> = (1..=3).map(sender).collect();
    let put_tasks: Vec<_> = putters
        .iter()
        .map(|p| tokio::spawn(p.clone().run(stop.clone())))
        .collect();
    let count_tasks: Vec<_> = (11..=12)
        .map(|client| tokio::spawn(sender(client).count(stop.clone())))
        .collect();
    disturb(&world).await;
    stop.store(true, Ordering::Relaxed);
    for task in put_tasks {
        task.await.unwrap();
    }
    let (mut done, mut unknown) = (0, 0);
    for task in count_tasks {
        let (told, not_told) = task.await.unwrap();
        done += told;
        unknown += not_told;
    }
    let counter = sender(99).counter().await;
    if counter < done || counter > done + unknown {
        world.accuse(format!(
            "the counter is {counter} after {done} increments and {unknown} unknown ones"
        ));
    }
    for node in world.all() {
        check_puts(&world, node, &putters).await;
    }
}

/// Each put has left as many versions as its sender was told.
async fn check_puts(world: &Shared, node: usize, putters: &[Arc<Sender>]) {
    let deadline = within(PATIENCE);
    let group = world.group(node).unwrap();
    while group.read_barrier(within(WITHIN)).await.is_err() {
        assert!(
            Instant::now() < deadline,
            "node {} does not serve",
            node + 1
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for putter in putters {
        for (sequence, fate) in putter.fates.lock().iter() {
            let name = putter.key(*sequence);
            let (group, key) = world.group_of(node, "default", name.as_bytes()).unwrap();
            let history = group.table().history(&key, 10).unwrap();
            let revisions: Vec<u64> = history.iter().map(|entry| entry.revision).collect();
            let right = match fate {
                Fate::Applied(revision) => revisions == [*revision],
                Fate::Never => revisions.is_empty(),
                Fate::TooOld => revisions.len() <= 1,
            };
            if !right {
                let node = node + 1;
                world.accuse(format!(
                    "{name} on node {node}: {fate:?}, but {revisions:?}"
                ));
            }
        }
    }
}

#[test]
fn named_writes_are_applied_once() {
    let settings = Settings::default();
    run_all("named_writes_are_applied_once", 4, &settings, retries);
}
