//! Clients that write and read registers all the time, and know what they may see.
//!
//! Each register has one writer, which counts up. So a linearizable read must see at least what
//! was acknowledged before it began, and at most what was tried before it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::internal::{Command, Write, command};
use quorate_raft::{Group, ProposeError};
use quorate_storage::engine::{EngineError, ScanRequest};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::world::{PATIENCE, Shared, World};

const WITHIN: Duration = Duration::from_millis(400);
/// Clients wait for an answer between this and [`WITHIN`]: some give up soon and ask elsewhere.
const WITHIN_MIN: Duration = Duration::from_millis(20);
/// Values are padded to a length below this, so that the engine and the log fill.
const VALUE_BYTES_MAX: u64 = 1_500;

pub fn within(time: Duration) -> Instant {
    Instant::now() + time
}

pub fn put(key: Bytes, value: Bytes) -> Command {
    let write = Write {
        key,
        value,
        ..Write::default()
    };
    Command {
        operation: Some(command::Operation::Put(write)),
        ..Command::default()
    }
}

/// A register's key on the default keyspace.
fn name(register: usize) -> String {
    format!("register-{register}")
}

fn number(value: &[u8]) -> u64 {
    value
        .first_chunk()
        .map_or(u64::MAX, |head| u64::from_be_bytes(*head))
}

/// Keys and the numbers in them.
type Rows = Vec<(Bytes, u64)>;

#[derive(Debug, Default)]
struct Register {
    tried: AtomicU64,
    acknowledged: AtomicU64,
}

/// Writers and readers at work on a world.
pub struct Clients {
    world: Shared,
    registers: Arc<Vec<Register>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// One writer a register, and so many readers.
    pub fn start(world: &Shared, registers: usize, readers: usize) -> Clients {
        let mut clients = Clients {
            world: world.clone(),
            registers: Arc::new((0..registers).map(|_| Register::default()).collect()),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        clients.resume(readers);
        clients
    }

    /// The same again after a stop.
    pub fn resume(&mut self, readers: usize) {
        self.stop = Arc::default();
        for register in 0..self.registers.len() {
            let task = self.client().write(register);
            self.tasks.push(tokio::spawn(task));
        }
        for _ in 0..readers {
            let task = self.client().read();
            self.tasks.push(tokio::spawn(task));
        }
    }

    fn client(&self) -> Client {
        Client {
            world: self.world.clone(),
            registers: self.registers.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Waits until all clients have ended their last request.
    pub async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }

    /// Every node that runs serves linearizable reads again; they see all that was acknowledged
    /// and nothing that was never written, and the same on all nodes.
    pub async fn settle(&self) {
        let world = &self.world;
        let mut seen: Option<(usize, u64, Rows)> = None;
        for node in world.all().filter(|n| world.raft(*n).is_some()) {
            let Some((index, rows)) = self.rows(node).await else {
                continue;
            };
            self.check_rows(node, &rows);
            match &seen {
                Some((other, at, there)) if *at == index && *there != rows => {
                    let (node, other) = (node + 1, other + 1);
                    world.accuse(format!(
                        "nodes {other} and {node} differ at entry {index}: {there:?} and {rows:?}"
                    ));
                }
                Some(_) => {}
                None => seen = Some((node, index, rows)),
            }
        }
        if seen.is_none() {
            world.accuse("no node serves in the end".to_owned());
        }
    }

    /// What a node holds once it serves, and the entry as of which.
    async fn rows(&self, node: usize) -> Option<(u64, Rows)> {
        let world = &self.world;
        let patience = match world.is_condemned(node) {
            true => Duration::from_secs(3),
            false => PATIENCE,
        };
        let deadline = within(patience);
        loop {
            if let Some(group) = world.group(node)
                && group.read_barrier(within(WITHIN)).await.is_ok()
            {
                let before = group.applied().index;
                match all_rows(&group) {
                    Ok(rows) => return Some((before, rows)),
                    Err(_) if world.is_condemned(node) => return None,
                    Err(error) => {
                        world.accuse(format!("node {}: {error}", node + 1));
                        return None;
                    }
                }
            }
            if Instant::now() > deadline {
                if !world.is_condemned(node) {
                    world.accuse(format!("node {} does not serve in the end", node + 1));
                }
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn check_rows(&self, node: usize, rows: &[(Bytes, u64)]) {
        for (which, register) in self.registers.iter().enumerate() {
            let key = name(which);
            let found = rows.iter().find(|(k, _)| k.ends_with(key.as_bytes()));
            let span = Span::now(register);
            span.check(
                &self.world,
                node,
                which,
                found.map_or(0, |(_, v)| *v),
                register,
            );
        }
        if rows.len() > self.registers.len() {
            let node = node + 1;
            self.world
                .accuse(format!("node {node} has keys that nobody wrote: {rows:?}"));
        }
    }
}

fn all_rows(group: &Group) -> Result<Rows, EngineError> {
    let page = group.table().scan(&ScanRequest {
        rows_max: 10_000,
        bytes_max: usize::MAX,
        ..ScanRequest::default()
    })?;
    let rows = page.rows.into_iter();
    Ok(rows.map(|(key, v)| (key, number(&v.value))).collect())
}

/// What a read that begins now must at least see.
struct Span {
    least: u64,
}

impl Span {
    fn now(register: &Register) -> Span {
        Span {
            least: register.acknowledged.load(Ordering::Relaxed),
        }
    }

    fn check(&self, world: &World, node: usize, which: usize, seen: u64, register: &Register) {
        let most = register.tried.load(Ordering::Relaxed);
        let node = node + 1;
        if seen < self.least {
            let least = self.least;
            world.accuse(format!(
                "node {node} lost or hid a write of register {which}: {seen}, not {least}"
            ));
        } else if seen > most {
            world.accuse(format!(
                "node {node} shows {seen} in register {which}; the last one tried was {most}"
            ));
        }
    }
}

struct Client {
    world: Shared,
    registers: Arc<Vec<Register>>,
    stop: Arc<AtomicBool>,
}

impl Client {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn deadline(&self) -> Instant {
        let patience = WITHIN.mul_f64(self.world.roll(100) as f64 / 100.0);
        match self.world.roll(2) {
            0 => within(WITHIN_MIN),
            _ => within(WITHIN_MIN.max(patience)),
        }
    }

    async fn pause(&self, milliseconds_max: u64) {
        let time = Duration::from_micros(self.world.roll(milliseconds_max * 1_000));
        tokio::time::sleep(time).await;
    }

    async fn write(self, which: usize) {
        let register = &self.registers[which];
        let mut node = self.world.any_node();
        while self.goes_on() {
            let value = register.acknowledged.load(Ordering::Relaxed);
            let value = value.max(register.tried.load(Ordering::Relaxed)) + 1;
            register.tried.store(value, Ordering::Relaxed);
            self.put_until_told(which, value, &mut node).await;
            self.pause(8).await;
        }
    }

    /// Asks one node after the other until one accepts the write, or may have.
    async fn put_until_told(&self, which: usize, value: u64, node: &mut usize) {
        while self.goes_on() {
            let key = name(which);
            let group = self.world.group_of(*node, "default", key.as_bytes());
            let answer = match group {
                Some((group, key)) => {
                    let command = put(key, self.padded(value));
                    group.propose(command, self.deadline()).await
                }
                None => Err(ProposeError::Stopped),
            };
            match answer {
                Ok(_) => {
                    let register = &self.registers[which];
                    register.acknowledged.store(value, Ordering::Relaxed);
                    self.world.count_answer();
                    return;
                }
                Err(ProposeError::Unknown) => {
                    *node = self.world.any_node();
                    return;
                }
                Err(ProposeError::NotLeader { hint: Some(leader) }) => {
                    *node = leader.0 as usize - 1;
                }
                Err(
                    ProposeError::NotLeader { hint: None }
                    | ProposeError::NoMajority
                    | ProposeError::Stopped,
                ) => *node = self.world.any_node(),
            }
            self.pause(20).await;
        }
    }

    fn padded(&self, value: u64) -> Bytes {
        let mut bytes = value.to_be_bytes().to_vec();
        bytes.resize(8 + self.world.roll(VALUE_BYTES_MAX) as usize, value as u8);
        bytes.into()
    }

    async fn read(self) {
        while self.goes_on() {
            let which = self.world.roll(self.registers.len() as u64) as usize;
            let node = self.world.any_node();
            let key = name(which);
            if let Some((group, key)) = self.world.group_of(node, "default", key.as_bytes()) {
                let register = &self.registers[which];
                let span = Span::now(register);
                if group.read_barrier(self.deadline()).await.is_ok() {
                    // A damaged record is an answer of its own; a wrong one is not.
                    if let Ok(found) = group.table().get(&key) {
                        let seen = found.map_or(0, |v| number(&v.value));
                        span.check(&self.world, node, which, seen, register);
                        self.world.count_answer();
                    }
                }
            }
            self.pause(10).await;
        }
    }
}
