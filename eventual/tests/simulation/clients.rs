//! What clients do: puts, deletes and reads of a few keys at all levels, with and without
//! contexts, through any node; each answer is judged at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_eventual::{
    EventualError, EventualNode, ReadDone, ReadRequest, SeenBefore, Wanted, WriteDone,
    WriteRequest, WriteRung,
};
use quorate_types::causal::{Dots, Update};
use quorate_types::{Ack, ClientId, Copies, Effect, RangeId, RequestId, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::oracle::Promise;
use crate::world::{SIBLINGS, Shared};

/// Attempts of one write.
const ATTEMPTS_MAX: usize = 3;

pub fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number}"))
}

/// A write at one rung.
pub fn write_of(range: RangeId, key: Bytes, update: Update, rung: WriteRung) -> WriteRequest {
    WriteRequest {
        strong: Vec::new(),
        range,
        key,
        update,
        seen: None,
        session: SeenBefore::default(),
        expiry: None,
        timestamp: Timestamp(1_700_000_000_000_000),
        name: None,
        rungs: vec![rung],
    }
}

pub fn rung(copies: Copies, within: Duration) -> WriteRung {
    WriteRung {
        copies,
        strict: false,
        ack: Ack::Disk,
        deadline: Instant::now() + within,
    }
}

pub async fn read(
    node: &EventualNode,
    range: RangeId,
    key: Bytes,
    copies: Copies,
) -> Result<ReadDone, EventualError> {
    let request = ReadRequest {
        range,
        key,
        copies,
        wanted: Wanted::default(),
        deadline: Instant::now() + Duration::from_millis(800),
    };
    node.read(request).await
}

/// The clients of one run.
pub struct Clients {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(world: &Shared, count: u64, keys: u64, pause_max_millis: u64) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (1..=count).map(|number| {
            let client = Client {
                world: world.clone(),
                number,
                keys,
                pause_max_millis,
                sequence: 0,
                seen: BTreeMap::new(),
            };
            tokio::spawn(client.run(stop.clone()))
        });
        Clients {
            tasks: tasks.collect(),
            stop,
        }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

struct Client {
    world: Shared,
    number: u64,
    keys: u64,
    pause_max_millis: u64,
    sequence: u64,
    /// Contexts of the last reads.
    seen: BTreeMap<Bytes, Dots>,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let pause = self.world.roll(self.pause_max_millis);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let at = self.world.any();
            let Some(node) = self.world.node(at) else {
                continue;
            };
            let key = key(self.world.roll(self.keys));
            match self.world.roll(100) {
                0..30 => self.read(&node, key).await,
                30..50 => self.write(at, key, Update::Delete).await,
                _ => {
                    self.sequence += 1;
                    let value = format!("{}-{}", self.number, self.sequence);
                    self.write(at, key, Update::Put(Bytes::from(value))).await;
                }
            }
        }
    }

    fn copies(&self) -> Copies {
        match self.world.roll(4) {
            0 | 1 => Copies::One,
            2 => Copies::Quorum,
            _ => Copies::All,
        }
    }

    async fn read(&mut self, node: &EventualNode, key: Bytes) {
        let Ok(done) = read(node, SIBLINGS, key.clone(), self.copies()).await else {
            return;
        };
        self.world.answered.fetch_add(1, Ordering::Relaxed);
        if let Some(problem) = self.world.oracle.lock().judge_read(&key, &done.state) {
            self.world.accuse(problem);
        }
        self.seen.insert(key, done.state.context().clone());
    }

    fn seen(&self, key: &Bytes) -> Option<Dots> {
        match self.world.roll(10) {
            0..4 => None,
            4 => Some(Dots::new()),
            _ => self.seen.get(key).cloned(),
        }
    }

    async fn write(&mut self, at: usize, key: Bytes, update: Update) {
        self.sequence += 1;
        let ack = match self.world.percent(20) {
            true => Ack::Memory,
            false => Ack::Disk,
        };
        let (copies, strict) = (self.copies(), self.world.percent(20));
        let id = RequestId {
            client: ClientId(self.number),
            sequence: self.sequence,
        };
        let seen = self.seen(&key);
        let within = Duration::from_millis(50 + self.world.roll(1_200));
        for _ in 0..ATTEMPTS_MAX {
            let Some(node) = self.world.node(at) else {
                return;
            };
            let deadline = Instant::now() + within;
            let request = WriteRequest {
                seen: seen.clone(),
                name: Some((id, Timestamp(u64::MAX))),
                ..write_of(
                    SIBLINGS,
                    key.clone(),
                    update.clone(),
                    WriteRung {
                        copies,
                        strict,
                        ack,
                        deadline,
                    },
                )
            };
            match node.write(request).await {
                Ok(done) => return self.written(&key, strict, ack, &done),
                Err(error) if error.effect() == Effect::None => return,
                Err(_) => {}
            }
        }
    }

    fn written(&mut self, key: &Bytes, strict: bool, ack: Ack, done: &WriteDone) {
        self.world.answered.fetch_add(1, Ordering::Relaxed);
        let promise = Promise {
            holders: done.tally.count(strict),
            durable: ack == Ack::Disk,
        };
        let mut oracle = self.world.oracle.lock();
        oracle.promise(done.dot, promise);
        if let Some(problem) = oracle.judge_read(key, &done.state) {
            self.world.accuse(problem);
        }
        if self.world.percent(50) {
            self.seen.insert(key.clone(), done.state.context().clone());
        }
    }
}
