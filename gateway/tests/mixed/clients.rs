//! What clients do: reads, puts, deletes and compare-and-sets of a few keys on both planes,
//! through any node. Each knows what it was shown, and writes with that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_raft::seam::Clock;
use quorate_types::causal::Dot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::asking::{Asked, Level, Saw, Shown, Stored};
use crate::world::{Shared, World};

/// Attempts of one write.
const ATTEMPTS_MAX: usize = 3;

pub fn key(number: u64) -> String {
    format!("key-{number}")
}

/// Names a write, for retries.
pub fn request_id(world: &World, client: u64, sequence: u64) -> v1::RequestId {
    v1::RequestId {
        client,
        sequence,
        first_tried: world.clock(0).now().0,
    }
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
                decided: BTreeMap::new(),
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

/// What a client was shown of a key.
#[derive(Clone, Debug, Default)]
struct Seen {
    context: Bytes,
    dots: BTreeSet<Dot>,
    revision: u64,
}

struct Client {
    world: Shared,
    number: u64,
    keys: u64,
    pause_max_millis: u64,
    sequence: u64,
    /// The last read of any kind.
    seen: BTreeMap<String, Seen>,
    /// The last linearizable read.
    decided: BTreeMap<String, Seen>,
}

/// A write with what its client knows.
struct Intent {
    key: String,
    value: Option<String>,
    level: Level,
    /// What must be there.
    expected: Option<u64>,
    seen: Seen,
    saw: Saw,
}

impl Client {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let pause = self.world.roll(self.pause_max_millis);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let key = key(self.world.roll(self.keys));
            match self.world.roll(100) {
                0..25 => {
                    let level = self.eventual_level();
                    self.read(&key, level).await;
                }
                25..33 => self.read(&key, Level::Linearizable).await,
                33..37 => self.read(&key, Level::Stale).await,
                37..66 => self.write_eventually(key, true).await,
                66..76 => self.write_eventually(key, false).await,
                76..92 => self.compare(key).await,
                92..97 => self.write_strongly(key, true).await,
                _ => self.write_strongly(key, false).await,
            }
        }
    }

    fn eventual_level(&self) -> Level {
        let copies = match self.world.roll(4) {
            0 | 1 => v1::Copies::One,
            2 => v1::Copies::Quorum,
            _ => v1::Copies::All,
        };
        let strict = self.world.percent(30);
        Level::Eventual { copies, strict }
    }

    fn within(&self) -> Duration {
        Duration::from_millis(100 + self.world.roll(1_500))
    }

    async fn read(&mut self, key: &str, level: Level) {
        let at = self.world.any();
        let began = Instant::now();
        let level = match level {
            Level::Eventual { copies, .. } => Level::Eventual {
                copies,
                strict: false,
            },
            other => other,
        };
        let within = self.within();
        let asked = self.world.read_within(at, key, level, 0, within).await;
        let Some(shown) = asked.done() else { return };
        let decided = !matches!(level, Level::Eventual { .. });
        let mut ledger = self.world.ledger.lock();
        if let Some(problem) = ledger.judge_read(key, &shown, decided) {
            self.world.accuse(format!("{level:?} at {at}: {problem}"));
        }
        if self.world.settings.conflict.is_none() {
            let context = self.world.opened(key, &shown.context);
            if let Some(problem) = ledger.judge_context(key, &shown, &context) {
                self.world.accuse(format!("{level:?} at {at}: {problem}"));
            }
        }
        ledger.note(|| {
            let dots: Vec<String> = shown.values.keys().map(ToString::to_string).collect();
            let context = crate::ledger::brief(&self.world.opened(key, &shown.context));
            format!(
                "{key} {level:?} at {at} by {}: {dots:?}, {context}",
                shown.node
            )
        });
        let seen = self.seen_of(&ledger, key, &shown);
        if level == Level::Linearizable {
            let revision = (shown.revision != 0).then_some(shown.revision);
            ledger.point(key, began, revision);
            self.decided.insert(key.to_owned(), seen.clone());
        }
        self.seen.insert(key.to_owned(), seen);
    }

    /// Where reads show one of several live values, the rest is known by the context alone.
    fn seen_of(&self, ledger: &crate::ledger::Ledger, key: &str, shown: &Shown) -> Seen {
        let mut dots: BTreeSet<Dot> = shown.values.keys().copied().collect();
        if self.world.settings.conflict.is_some() {
            let context = self.world.opened(key, &shown.context);
            let names = ledger.names_of(key);
            dots.extend(names.filter(|dot| context.contains(*dot)));
        }
        Seen {
            context: shown.context.clone(),
            dots,
            revision: shown.revision,
        }
    }

    fn next_value(&mut self) -> String {
        self.sequence += 1;
        format!("{}-{}", self.number, self.sequence)
    }

    fn next_saw(&mut self, seen: &Seen) -> Saw {
        self.sequence += 1;
        Saw {
            context: Some(seen.context.clone()),
            id: Some(request_id(&self.world, self.number, self.sequence)),
        }
    }

    async fn write_eventually(&mut self, key: String, is_put: bool) {
        let mut seen = self.seen.get(&key).cloned().unwrap_or_default();
        if is_put && self.world.percent(25) || seen.context.is_empty() {
            // An explicit empty context, which adds a sibling; of a delete: nothing.
            seen = Seen::default();
        }
        let level = self.eventual_level();
        let intent = Intent {
            value: is_put.then(|| self.next_value()),
            saw: self.next_saw(&seen),
            expected: None,
            key,
            level,
            seen,
        };
        self.write(intent).await;
    }

    async fn write_strongly(&mut self, key: String, is_put: bool) {
        let mut seen = self.seen.get(&key).cloned().unwrap_or_default();
        if self.world.percent(30) {
            seen = Seen::default();
        }
        let mut saw = self.next_saw(&seen);
        if seen.context.is_empty() {
            saw.context = None;
        }
        let intent = Intent {
            value: is_put.then(|| self.next_value()),
            level: Level::Linearizable,
            expected: None,
            key,
            saw,
            seen,
        };
        self.write(intent).await;
    }

    /// Puts or deletes on condition that nothing has changed since the client's last read.
    async fn compare(&mut self, key: String) {
        if self.world.percent(60) || !self.decided.contains_key(&key) {
            self.read(&key, Level::Linearizable).await;
        }
        let Some(seen) = self.decided.get(&key).cloned() else {
            return;
        };
        let is_put = seen.revision == 0 || self.world.percent(80);
        let intent = Intent {
            value: is_put.then(|| self.next_value()),
            level: Level::Linearizable,
            expected: Some(seen.revision),
            saw: self.next_saw(&seen),
            key,
            seen,
        };
        self.write(intent).await;
    }

    async fn write(&mut self, intent: Intent) {
        let world = self.world.clone();
        let value = intent.value.as_deref();
        let strong = intent.level == Level::Linearizable;
        let replaces = intent.seen.dots.clone();
        let number =
            world
                .ledger
                .lock()
                .begin(&intent.key, value, replaces, strong, intent.expected);
        let began = Instant::now();
        let mut lost = false;
        for _ in 0..ATTEMPTS_MAX {
            let at = world.any();
            match self.attempt(at, &intent).await {
                Asked::Done(Some(stored)) => {
                    let mut ledger = world.ledger.lock();
                    let key = &intent.key;
                    ledger.note(|| format!("{key}: {} stored through {at}", stored.dot));
                    ledger.acknowledged(number, stored.dot, stored.revision);
                    if strong {
                        ledger.point(&intent.key, began, Some(stored.revision));
                    }
                    return;
                }
                Asked::Done(None) => return world.ledger.lock().undone(number),
                Asked::Refused(_) => {}
                Asked::Unknown(_) => lost = true,
            }
            if !lost || world.percent(30) {
                break;
            }
        }
        if !lost {
            world.ledger.lock().undone(number);
        }
    }

    async fn attempt(&self, at: usize, intent: &Intent) -> Asked<Option<Stored>> {
        let world = &self.world;
        let (key, saw) = (&intent.key, &intent.saw);
        let leveled = (intent.level, self.within());
        let stored = match (&intent.value, intent.expected) {
            (Some(value), Some(expected)) => {
                let compared = (expected, value.as_str());
                return world
                    .compare_and_set(at, key, compared, leveled.1, saw)
                    .await;
            }
            (Some(value), None) => world.put_within(at, key, value, leveled, saw).await,
            (None, expected) => {
                let expected = expected.unwrap_or(0);
                world.delete(at, key, leveled, expected, saw).await
            }
        };
        match stored {
            Asked::Done(stored) => Asked::Done(Some(stored)),
            Asked::Refused(why) => Asked::Refused(why),
            Asked::Unknown(why) => Asked::Unknown(why),
        }
    }
}
