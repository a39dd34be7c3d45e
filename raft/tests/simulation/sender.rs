//! Clients that name their writes and send them again and again, through any node, over
//! connections that are cut at random; and what they were told. What disturbs the cluster is in
//! `twice`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::internal::{CloseRequest, Command, Conditional, Write, command};
use quorate_proto::v1::{Expect, expect::State};
use quorate_raft::machine::{Applied, ApplyOutcome};
use quorate_raft::{ProposeError, Proposed};

use crate::clients::{put, within};
use crate::world::Shared;

/// Named puts that one client has under way at once.
const PIPELINE: u64 = 12;
const WITHIN: Duration = Duration::from_millis(250);
/// Of so many attempts one ends by a cut before it, one in the midst, and one request is held up.
const ATTEMPTS_BETWEEN_CUTS: u64 = 20;
/// A client notices a cut after at most this.
const CUT_MAX: Duration = Duration::from_millis(10);
/// A request that was held up arrives after at most this: its client has long asked elsewhere.
const HELD_UP_MAX: Duration = Duration::from_millis(500);

/// How much was done, and whether it is enough.
#[derive(Default)]
pub struct Progress {
    pub puts: AtomicU64,
    pub increments: AtomicU64,
    pub cuts: AtomicU64,
    pub stop: AtomicBool,
}

impl Progress {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// What is known of a named put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Applied(u64),
    /// Closed before it was applied.
    Never,
    TooOld,
}

/// One client, and what it was told of its puts.
pub struct Sender {
    world: Shared,
    client: u64,
    progress: Arc<Progress>,
    /// The node that answered last.
    served: AtomicUsize,
    pub fates: Mutex<BTreeMap<u64, Fate>>,
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
    pub fn new(world: &Shared, client: u64, progress: &Arc<Progress>) -> Arc<Sender> {
        Arc::new(Sender {
            world: world.clone(),
            client,
            progress: progress.clone(),
            served: AtomicUsize::new(0),
            fates: Mutex::default(),
        })
    }

    pub fn key(&self, sequence: u64) -> String {
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
        let mut node = match self.world.roll(4) {
            0 => self.world.any_node(),
            _ => self.served.load(Ordering::Relaxed),
        };
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
            if first.is_ok() {
                self.served.store(node, Ordering::Relaxed);
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

    /// One attempt, over a connection that may be cut before it, in its midst, or so that the
    /// request is held up somewhere and arrives when nobody waits for it any more.
    async fn once(
        &self,
        node: usize,
        key: &str,
        make: &impl Fn(Bytes) -> Command,
    ) -> Result<Proposed, ProposeError> {
        let Some((group, key)) = self.world.group_of(node, "default", key.as_bytes()) else {
            return Err(ProposeError::Stopped);
        };
        let command = make(key);
        let (held_up, noticed) = match self.world.roll(ATTEMPTS_BETWEEN_CUTS) {
            0 => return self.lost(),
            1 => (Duration::ZERO, self.some(CUT_MAX)),
            2 => (self.some(HELD_UP_MAX), self.some(CUT_MAX)),
            _ => return group.propose(command, within(WITHIN)).await,
        };
        tokio::spawn(async move {
            tokio::time::sleep(held_up).await;
            group.propose(command, within(WITHIN)).await
        });
        tokio::time::sleep(noticed).await;
        self.lost()
    }

    fn lost(&self) -> Result<Proposed, ProposeError> {
        one_more(&self.progress.cuts);
        Err(ProposeError::Unknown)
    }

    fn some(&self, longest: Duration) -> Duration {
        longest.mul_f64(self.world.roll(1_000) as f64 / 1_000.0)
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

    async fn ask(&self, sequence: u64) {
        let answer = self.close(&self.key(sequence), sequence).await;
        self.note(sequence, fate_of_put(&answer));
    }

    /// What became of a write: the question closes its name.
    async fn close(&self, key: &str, sequence: u64) -> Applied {
        let request = CloseRequest {
            client: self.client,
            sequence,
        };
        let make = |_| Command {
            operation: Some(command::Operation::CloseRequest(request)),
            ..Command::default()
        };
        let answer = self.send(key, u64::MAX, make).await;
        answer.expect("so many attempts do not end")
    }

    /// Most writes are sent until they are answered; some are given up, and asked about.
    fn attempts(&self) -> u64 {
        match self.world.roll(6) {
            0 => 1,
            _ => u64::MAX,
        }
    }

    /// A pipeline of new puts, and late copies of old ones.
    pub async fn run(self: Arc<Self>) {
        let mut under_way = tokio::task::JoinSet::new();
        let mut next = 1;
        while self.progress.goes_on() {
            let late = next > 2 && self.world.roll(10) == 0;
            let sequence = match late {
                true => 1 + self.world.roll(next - 1),
                false => next,
            };
            if !late {
                next += 1;
                one_more(&self.progress.puts);
            }
            let attempts = self.attempts();
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

    /// Adds one to a counter again and again, by compare-and-set. Answers how often it was told
    /// that it did, and how often nobody could tell.
    pub async fn count(self: Arc<Self>) -> (u64, u64) {
        let (mut done, mut unknown, mut sequence) = (0, 0, 0);
        let mut expected = 0;
        while self.progress.goes_on() {
            sequence += 1;
            match self.increment(sequence, expected).await {
                Some(true) => {
                    done += 1;
                    one_more(&self.progress.increments);
                    expected += 1;
                }
                Some(false) => expected = self.counter().await,
                None => {
                    unknown += 1;
                    expected = self.counter().await;
                }
            }
            self.world.count_answer();
        }
        (done, unknown)
    }

    /// Whether one increment was applied, as its answer or the question about it says; none where
    /// nobody can tell any more.
    async fn increment(&self, sequence: u64, expected: u64) -> Option<bool> {
        let first_tried = self.world.clock_now();
        let make = |key| named(self.client, sequence, first_tried, increment(key, expected));
        let answer = match self.send("counter", self.attempts(), make).await {
            Some(applied) => applied,
            None => self.close("counter", sequence).await,
        };
        match answer.outcome {
            ApplyOutcome::Compared { succeeded, .. }
            | ApplyOutcome::Remembered {
                succeeded,
                closed: false,
                ..
            } => Some(succeeded),
            ApplyOutcome::Refused(_) => None,
            ApplyOutcome::Remembered { closed: true, .. } => Some(false),
            other => panic!("an increment is answered by {other:?}"),
        }
    }

    /// The counter, as soon as some node can say.
    pub async fn counter(&self) -> u64 {
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
        ApplyOutcome::Refused(_) => Fate::TooOld,
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
        write: Some(Write {
            key,
            value,
            ..Write::default()
        }),
        expect: Some(Expect { state: Some(state) }),
        delete: false,
    };
    Command {
        operation: Some(command::Operation::Conditional(conditional)),
        ..Command::default()
    }
}
