//! What clients do, and which model the recording is held against. Values are unique in a run; keys
//! are used for a while and then left for new ones, so that each key's history stays short.

mod batches;
mod expiring;
mod fences;
mod locks;
mod sessions;
mod sets;
mod transactions;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_jepsen::{Model, Options};
use quorate_proto::v1::{Copies, RequestId};
use quorate_raft::seam::Clock;
use quorate_storage::disk::sim::Dice;
use serde_json::{Value as Json, json};

use self::expiring::Last;
use self::locks::read_list;
use self::sessions::BEGIN;
use self::watching::Watches;
use crate::ask::{Asked, Level, Seen, Write};
use crate::history::{Call, End, Tape};
use crate::world::Shared;

/// Within what a last read is answered.
const FINAL_WITHIN: Duration = Duration::from_secs(5);
/// Values written to a key until it is left.
const VALUES_PER_KEY: i64 = 25;

/// Kinds of work, each in a keyspace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Registers of a strong keyspace: read, write, compare-and-set; each linearizable.
    Registers,
    /// Strong and eventual calls on the same keys: the strong ones are linearizable on one copy
    /// into which eventual writes are taken.
    Mixed,
    /// Writes and deletes on the eventual plane, each with what its client had seen.
    Siblings,
    /// Transactions over lists of a strong keyspace: strictly serializable.
    Transactions,
    /// Sessions with tokens over both planes: each sees its own writes, and never goes back.
    Sessions,
    /// Changes, and who is told of them: each once and in order.
    Watches,
    /// A lock that goes with its holder's lease, around a list: nothing that was added is lost.
    Locks,
    /// Eventual writes at a quorum, each of a new key, and fenced reads: each linearizable.
    Fences,
    /// Elements that are added, and scans that find them all.
    Sets,
    /// Batches of gets and puts, each in one step.
    Batches,
    /// Values that expire, and what replaces them, which stays.
    Expiring,
}

impl Work {
    /// All of them.
    pub const ALL: [Work; 11] = [
        Work::Registers,
        Work::Mixed,
        Work::Siblings,
        Work::Transactions,
        Work::Sessions,
        Work::Watches,
        Work::Locks,
        Work::Fences,
        Work::Sets,
        Work::Batches,
        Work::Expiring,
    ];

    /// The work of a name.
    ///
    /// # Errors
    ///
    /// What is known instead.
    pub fn named(name: &str) -> Result<Work, String> {
        let names = Work::ALL.map(Work::name).join(", ");
        let found = Work::ALL.into_iter().find(|work| work.name() == name);
        found.ok_or_else(|| format!("known are {names}"))
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Work::Registers => "registers",
            Work::Mixed => "mixed",
            Work::Siblings => "siblings",
            Work::Transactions => "transactions",
            Work::Sessions => "sessions",
            Work::Watches => "watches",
            Work::Locks => "locks",
            Work::Fences => "fences",
            Work::Sets => "sets",
            Work::Batches => "batches",
            Work::Expiring => "expiring",
        }
    }

    pub(crate) const fn keyspace(self) -> &'static str {
        self.name()
    }

    pub(crate) const fn mode(self) -> &'static str {
        match self {
            Work::Registers | Work::Transactions | Work::Watches | Work::Locks => "strong",
            Work::Sets | Work::Batches | Work::Expiring => "strong",
            Work::Mixed | Work::Sessions | Work::Fences => "mixed",
            Work::Siblings => "eventual",
        }
    }

    pub(crate) fn model(self) -> (Model, Options) {
        let model = match self {
            Work::Registers | Work::Fences => Model::CasRegister,
            Work::Mixed => Model::Mixed,
            Work::Siblings => Model::Causal,
            Work::Transactions => Model::ListAppend,
            Work::Sessions | Work::Expiring => Model::Sessions,
            Work::Watches => Model::Watch,
            Work::Locks | Work::Sets => Model::SetFull,
            Work::Batches => Model::RwRegister,
        };
        let options = Options {
            independent: matches!(self, Work::Registers | Work::Fences),
            closed: matches!(self, Work::Transactions | Work::Batches),
            consistency: (matches!(self, Work::Locks | Work::Sets))
                .then(|| "linearizable".to_owned()),
            ..Options::default()
        };
        (model, options)
    }
}

/// What all clients of one kind of work share.
struct Keys {
    /// How many are in use at one time.
    in_use: i64,
    last_value: AtomicI64,
    watches: Watches,
}

impl Keys {
    fn value(&self) -> i64 {
        self.last_value.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The value that was given out last.
    fn newest(&self) -> i64 {
        self.last_value.load(Ordering::Relaxed)
    }

    /// A key that is in use now.
    fn key(&self, dice: &mut Dice) -> i64 {
        self.left() + dice.below(self.in_use as u64) as i64
    }

    /// All keys that were in use.
    fn used(&self) -> impl Iterator<Item = i64> + use<> {
        0..self.left() + self.in_use
    }

    /// How many have been left.
    fn left(&self) -> i64 {
        self.last_value.load(Ordering::Relaxed) / (VALUES_PER_KEY * self.in_use) * self.in_use
    }
}

/// The clients of one kind of work.
pub(crate) struct Workers {
    world: Shared,
    tape: Tape,
    keys: Arc<Keys>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Client {
    number: u64,
    world: Shared,
    tape: Tape,
    keys: Arc<Keys>,
    dice: Dice,
    /// Of the last write.
    sequence: u64,
    /// Of each key, what the last read showed.
    seen: BTreeMap<i64, Seen>,
    /// Of its session.
    token: Bytes,
    /// Of keys of its own whose values may expire.
    lasts: BTreeMap<i64, Last>,
}

impl Workers {
    /// Starts so many clients; `first` is the number of the first.
    pub(crate) fn start(world: &Shared, tape: Tape, first: u64, count: u64) -> Workers {
        let keys = Arc::new(Keys {
            in_use: world.plan.settings.keys,
            last_value: AtomicI64::new(0),
            watches: Watches::default(),
        });
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (first..first + count).map(|number| {
            let client = Client {
                number,
                world: world.clone(),
                tape: tape.clone(),
                keys: keys.clone(),
                dice: Dice::new(world.plan.course.wrapping_mul(1_000) + number),
                sequence: 0,
                seen: BTreeMap::new(),
                token: Bytes::from_static(BEGIN),
                lasts: BTreeMap::new(),
            };
            let stop = stop.clone();
            match tape.work() == Work::Watches && client.watches() {
                true => tokio::spawn(client.watch(stop)),
                false => tokio::spawn(client.run(stop)),
            }
        });
        Workers {
            tasks: tasks.collect(),
            world: world.clone(),
            tape,
            keys,
            stop,
        }
    }

    /// Waits until the last call has ended.
    pub(crate) async fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            if let Err(error) = task.await {
                self.world.accuse(format!("a client ended: {error}"));
            }
        }
    }

    /// The last reads, at every node, once all is whole.
    pub(crate) async fn finish(&self, first: u64) {
        let parts = (&*self.world, &self.tape);
        match self.tape.work() {
            Work::Siblings => self.read_all(first).await,
            Work::Watches => self.keys.watches.finish(parts, first).await,
            Work::Locks => {
                for at in self.world.sound() {
                    let client = first + at as u64;
                    read_list(parts, client, at, FINAL_WITHIN).await;
                }
            }
            Work::Sets => sets::finish(parts, first).await,
            Work::Registers | Work::Mixed | Work::Transactions | Work::Sessions => {}
            Work::Fences | Work::Batches | Work::Expiring => {}
        }
    }

    async fn read_all(&self, first: u64) {
        let level = Level::Eventual {
            copies: Copies::One,
            strict: false,
        };
        for at in self.world.sound() {
            for key in self.keys.used() {
                let call = Call {
                    client: first + at as u64,
                    f: "final-read",
                    key: Some(key),
                    value: Json::Null,
                };
                self.tape.begin(&call);
                let place = (self.tape.work().keyspace(), key);
                let read = self.world.read(at, place, level, FINAL_WITHIN).await;
                let told = told(&read, |seen| json!(seen.values));
                self.tape.end(&call, told.0, &told.1);
            }
        }
    }
}

fn told<T>(asked: &Asked<T>, with: impl FnOnce(&T) -> Json) -> (End, Json) {
    match asked {
        Asked::Done(done) => (End::Ok, with(done)),
        Asked::Refused => (End::Fail, Json::Null),
        Asked::Unknown => (End::Unknown, Json::Null),
    }
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let pause = self
                .dice
                .below(self.world.plan.settings.pause_max.as_micros() as u64);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            let key = self.keys.key(&mut self.dice);
            match self.tape.work() {
                Work::Registers => self.register(key).await,
                Work::Mixed => self.mixed(key).await,
                Work::Siblings => self.sibling(key).await,
                Work::Transactions => self.transaction().await,
                Work::Sessions => self.session().await,
                Work::Watches => self.change(key).await,
                Work::Locks => self.lock().await,
                Work::Fences => self.fence().await,
                Work::Sets => self.element().await,
                Work::Batches => self.batch().await,
                Work::Expiring => self.expiring().await,
            }
        }
    }

    async fn register(&mut self, key: i64) {
        match (self.dice.below(100), self.seen.remove(&key)) {
            (65.., Some(seen)) => self.compare_and_set(key, &seen).await,
            (40..65, _) => self.write("write", key, true, Level::Linearizable).await,
            (_, _) => self.read("read", key, Level::Linearizable).await,
        }
    }

    async fn mixed(&mut self, key: i64) {
        let eventual = self.eventual();
        match self.dice.below(100) {
            0..25 => {
                let level = match self.dice.percent(20) {
                    true => Level::Fenced,
                    false => Level::Linearizable,
                };
                self.read("read", key, level).await;
            }
            25..45 => self.write("write", key, true, Level::Linearizable).await,
            45..65 => self.read("eventual-read", key, for_reads(eventual)).await,
            65..93 => {
                let ends_in_one_copy = !self.world.plan.damages();
                let level = match self.dice.percent(25) && ends_in_one_copy {
                    true => Level::Ladder,
                    false => eventual,
                };
                self.write("eventual-write", key, true, level).await;
            }
            _ => self.write("eventual-delete", key, false, eventual).await,
        }
    }

    async fn sibling(&mut self, key: i64) {
        let level = self.eventual();
        match self.dice.below(100) {
            0..45 => self.read("read", key, for_reads(level)).await,
            45..90 => self.write("write", key, true, level).await,
            _ => self.write("delete", key, false, level).await,
        }
    }

    fn eventual(&mut self) -> Level {
        let copies = match self.dice.below(5) {
            // One copy may be the one that is damaged.
            0 | 1 if self.world.plan.damages() => Copies::Quorum,
            0 | 1 => Copies::One,
            2 | 3 => Copies::Quorum,
            _ => Copies::All,
        };
        let strict = self.dice.percent(40);
        Level::Eventual { copies, strict }
    }

    fn next_name(&mut self, at: usize) -> RequestId {
        self.sequence += 1;
        RequestId {
            client: FIRST_CLIENT + self.number,
            sequence: self.sequence,
            first_tried: self.world.clock(at).now().0,
        }
    }

    fn within(&mut self) -> Duration {
        Duration::from_millis(100 + self.dice.below(1_500))
    }

    fn node(&mut self) -> usize {
        self.dice.below(self.world.len() as u64) as usize
    }

    fn place(&self, key: i64) -> (&'static str, i64) {
        (self.tape.work().keyspace(), key)
    }

    async fn read(&mut self, f: &'static str, key: i64, level: Level) {
        let (at, within) = (self.node(), self.within());
        let call = self.call(f, key, Json::Null);
        let read = self.world.read(at, self.place(key), level, within).await;
        let registers = matches!(self.tape.work(), Work::Registers | Work::Fences);
        let (end, shown) = told(&read, |seen| match registers {
            true => json!(seen.values.first()),
            false => json!(seen.values),
        });
        self.end(&call, end, &shown);
        if let Asked::Done(seen) = read {
            self.seen.insert(key, seen);
        }
    }

    async fn write(&mut self, f: &'static str, key: i64, is_put: bool, level: Level) {
        let (at, within) = (self.node(), self.within());
        let value = is_put.then(|| self.keys.value());
        let registers = self.tape.work() == Work::Registers;
        let seen = self.seen.remove(&key).unwrap_or_default();
        let asked = match (registers, value) {
            (true, value) => json!(value),
            (false, Some(value)) => json!({"value": value, "context": seen.values}),
            (false, None) => json!({"context": seen.values}),
        };
        let call = self.call(f, key, asked.clone());
        let write = Write {
            keyspace: self.tape.work().keyspace(),
            key,
            value,
            level,
            context: (!registers).then_some(&seen.context),
            // Another coordinator would give a write that is lost another dot, which nobody who has
            // seen the first one replaces.
            name: Some(self.next_name(at)),
        };
        let written = self.world.write(at, write, within).await;
        let (end, _) = told(&written, |()| Json::Null);
        self.end(&call, end, &asked);
    }

    async fn compare_and_set(&mut self, key: i64, seen: &Seen) {
        let (at, within) = (self.node(), self.within());
        let (old, new) = (seen.values.first().copied(), self.keys.value());
        let asked = json!([old, new]);
        let call = self.call("cas", key, asked.clone());
        let place = self.place(key);
        let set = self
            .world
            .compare_and_set(at, place, (old, new), within)
            .await;
        let end = match set {
            Asked::Done(true) => End::Ok,
            Asked::Done(false) | Asked::Refused => End::Fail,
            Asked::Unknown => End::Unknown,
        };
        self.end(&call, end, &asked);
    }

    /// Ends a call. A client that does not know how its call ended is another one from then on.
    fn end(&mut self, call: &Call, end: End, value: &Json) {
        self.tape.end(call, end, value);
        self.renew_after(end);
    }

    fn renew_after(&mut self, end: End) {
        if end == End::Unknown {
            self.number += PROCESSES_STEP;
        }
    }

    fn keyless_call(&self, f: &'static str, value: Json) -> Call {
        let call = Call::keyless(self.number, f, value);
        self.tape.begin(&call);
        call
    }

    fn call(&mut self, f: &'static str, key: i64, value: Json) -> Call {
        let call = Call {
            client: self.number,
            f,
            key: Some(key),
            value,
        };
        self.tape.begin(&call);
        call
    }
}

/// Names of clients begin with it: those of gateways are others.
const FIRST_CLIENT: u64 = 1 << 56;

/// Numbers of clients that take another one's place are so far from it.
const PROCESSES_STEP: u64 = 1_000;

fn for_reads(level: Level) -> Level {
    match level {
        Level::Eventual { copies, .. } => Level::Eventual {
            copies,
            strict: false,
        },
        other => other,
    }
}
