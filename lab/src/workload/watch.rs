//! Puts and deletes of some callers, and what others are told of them who watch: through lost
//! gateways, which the client library goes round, and by watches that are ended and begun again
//! where they had come to. In the end every watcher is asked for all that was acknowledged, and at
//! each node a new one for all that ever happened.
//!
//! The watchers of the control begin again with what comes from then on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use quorate_client::{
    Client, ClientError, WatchBatch, WatchEvent, WatchKind, WatchOptions, WatchPosition,
};
use quorate_jepsen::{Model, Options};
use quorate_types::Revision;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Workload;
use super::keys::{Keys, name};
use crate::caller::{Ask, Caller, Told, number, problem};

const STRAYS_PERCENT: usize = 15;
/// Of so many callers one watches.
const CALLERS_PER_WATCHER: usize = 4;
const PREFIX: &str = "key/";
const KEYS_AT_ONCE: u64 = 12;
const CALLS_EACH: u64 = 1000;
const DELETES_PERCENT: usize = 25;
/// Steps of a watcher that end its watch and begin another one there, percent.
const AGAIN_PERCENT: usize = 4;
/// How long a watcher waits for events in one step.
const STEP_MAX: Duration = Duration::from_millis(60);
/// Once all is whole, all that was acknowledged is told within this.
const LAST_MAX: Duration = Duration::from_secs(30);
/// How often a watch says how far it has come.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// Numbers of watchers that begin once all is over lie from here on.
const LATE_FIRST: usize = 1_000_000;
/// Batches that wait for a watcher to take its step. More wait with the server.
const BATCHES_MAX: usize = 64;

/// The workload.
pub(super) struct Watch {
    remembers: bool,
    keys: Keys,
    /// What was there before the first call has this revision.
    first: AtomicU64,
    /// The highest revision that was acknowledged.
    acknowledged: AtomicU64,
    watchers: Mutex<BTreeMap<usize, Watcher>>,
    breaches: Mutex<Vec<String>>,
}

/// One who watches; its number is its caller's.
struct Watcher {
    number: usize,
    client: Client,
    /// The first revision that it wants; none: what comes from when it begins.
    from: Option<Revision>,
    has_begun: bool,
    /// None: it is to begin again.
    following: Option<Following>,
    positions: Vec<WatchPosition>,
    complete: Revision,
}

/// A watch that is read.
struct Following {
    batches: mpsc::Receiver<Batch>,
    reading: JoinHandle<()>,
}

type Batch = Result<(WatchBatch, Vec<WatchPosition>), ClientError>;

impl Drop for Following {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl Following {
    async fn begin(client: &Client, options: WatchOptions) -> Result<Following, ClientError> {
        let mut watch = client.watch(options).await?;
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let reading = tokio::spawn(async move {
            loop {
                let batch = watch.next_batch().await;
                let is_over = batch.is_err();
                let batch = batch.map(|batch| (batch, watch.positions()));
                if sender.send(batch).await.is_err() || is_over {
                    return;
                }
            }
        });
        Ok(Following { batches, reading })
    }
}

impl Watcher {
    fn new(number: usize, client: Client, from: Option<Revision>) -> Self {
        Self {
            number,
            client,
            from,
            has_begun: false,
            following: None,
            positions: Vec::new(),
            complete: Revision::ZERO,
        }
    }

    async fn begin(&mut self, positions: Vec<WatchPosition>) -> Result<(), ClientError> {
        let options = WatchOptions {
            from: self.from,
            positions,
            progress_interval: Some(PROGRESS_INTERVAL),
            ..WatchOptions::prefix(PREFIX)
        };
        self.following = Some(Following::begin(&self.client, options).await?);
        Ok(())
    }

    /// Takes the next batch, if one comes by then: its events.
    async fn take(&mut self, until: Instant) -> Option<Result<Vec<WatchEvent>, ClientError>> {
        let batches = &mut self.following.as_mut()?.batches;
        let batch = tokio::time::timeout_at(until.into(), batches.recv()).await;
        match batch.ok()?? {
            Ok((batch, positions)) => {
                self.positions = positions;
                self.complete = batch.complete;
                Some(Ok(batch.events))
            }
            Err(error) => {
                self.following = None;
                Some(Err(error))
            }
        }
    }
}

impl Watch {
    pub(super) fn new(remembers: bool) -> Self {
        Self {
            remembers,
            keys: Keys::new(KEYS_AT_ONCE, CALLS_EACH),
            first: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            watchers: Mutex::default(),
            breaches: Mutex::default(),
        }
    }

    async fn write(&self, caller: &mut Caller) {
        let client = caller.client(STRAYS_PERCENT);
        let key = self.keys.key(&mut caller.random);
        if caller.random.percent(DELETES_PERCENT) {
            let ask = Ask {
                f: "delete",
                key: Some(key),
                value: Json::Null,
            };
            let delete = caller.call(ask, async {
                let deleted = client.delete(name(key)).await?;
                let revision = (deleted.deleted > 0).then_some(deleted.revision);
                self.acknowledge(deleted.revision);
                let revision = revision.map(|revision| revision.0);
                Ok(Told::Done(json!({"revision": revision}), ()))
            });
            delete.await;
            return;
        }
        let value = self.keys.value();
        let ask = Ask {
            f: "put",
            key: Some(key),
            value: json!(value),
        };
        let put = caller.call(ask, async {
            let written = client.put(name(key), value.to_string()).await?;
            self.acknowledge(written.revision);
            let told = json!({"value": value, "revision": written.revision.0});
            Ok(Told::Done(told, ()))
        });
        put.await;
    }

    /// Before it is recorded: what stands in the recording is never above this.
    fn acknowledge(&self, revision: Revision) {
        self.acknowledged.fetch_max(revision.0, Ordering::SeqCst);
    }

    fn breach(&self, what: String) {
        let mut breaches = self.breaches.lock().expect("nobody panics while adding");
        breaches.push(what);
    }

    fn lend(&self, number: usize) -> Option<Watcher> {
        let mut watchers = self.watchers.lock().expect("nobody panics while lending");
        watchers.remove(&number)
    }

    fn lend_any(&self) -> Option<Watcher> {
        let mut watchers = self.watchers.lock().expect("nobody panics while lending");
        watchers.pop_first().map(|(_, watcher)| watcher)
    }

    fn give_back(&self, watcher: Watcher) {
        let mut watchers = self.watchers.lock().expect("nobody panics while lending");
        watchers.insert(watcher.number, watcher);
    }

    /// Begins a watch, or again where it had come to; whether it has begun.
    async fn begin(&self, caller: &mut Caller, watcher: &mut Watcher) -> bool {
        if watcher.following.is_some() {
            return true;
        }
        if watcher.has_begun {
            let positions = match self.remembers {
                true => watcher.positions.clone(),
                false => Vec::new(),
            };
            return match watcher.begin(positions).await {
                Ok(()) => true,
                // The next step tries again.
                Err(error) if error.is_retryable() => false,
                Err(error) => {
                    let what = problem(&error);
                    self.breach(format!("a watch was not taken up again: {what}"));
                    false
                }
            };
        }
        let from = match watcher.from {
            Some(_) => "beginning",
            None => "now",
        };
        let ask = Ask {
            f: "watch",
            key: None,
            value: json!({"watcher": watcher.number, "from": from}),
        };
        let told = ask.value.clone();
        let begin = caller.call(ask, async {
            watcher.begin(Vec::new()).await?;
            Ok(Told::Done(told, ()))
        });
        watcher.has_begun = begin.await.is_some();
        watcher.has_begun
    }

    /// Records what a watcher is told within a step.
    async fn events(&self, caller: &mut Caller, watcher: &mut Watcher) {
        let ask = asked("events", watcher.number);
        let until = Instant::now() + STEP_MAX;
        let mut error = None;
        caller
            .call(ask, async {
                let mut told = Vec::new();
                while told.is_empty() {
                    match watcher.take(until).await {
                        Some(Ok(events)) => told.extend(events.iter().map(shown)),
                        Some(Err(failed)) => error = Some(failed),
                        None => break,
                    }
                }
                Ok(Told::Done(
                    json!({"watcher": watcher.number, "events": told}),
                    (),
                ))
            })
            .await;
        if let Some(error) = error {
            self.breach(format!("a watch ended by itself: {}", problem(&error)));
        }
    }

    /// Records what a watcher is told until it has been told all that is acknowledged.
    async fn last_events(&self, caller: &mut Caller, watcher: &mut Watcher) {
        let until = Instant::now() + LAST_MAX;
        while !self.begin(caller, watcher).await && Instant::now() < until {
            tokio::time::sleep(STEP_MAX).await;
        }
        let ask = asked("last-events", watcher.number);
        let mut late = None;
        caller
            .call(ask, async {
                // What is acknowledged by now is in the recording before this call.
                let goal = Revision(self.acknowledged.load(Ordering::SeqCst));
                let mut told = VecDeque::new();
                while watcher.complete < goal && late.is_none() {
                    match watcher.take(until).await {
                        Some(Ok(events)) => told.extend(events.iter().map(shown)),
                        Some(Err(error)) => late = Some(problem(&error)),
                        None => late = Some(format!("not within {LAST_MAX:?}")),
                    }
                }
                Ok(Told::Done(
                    json!({"watcher": watcher.number, "events": told}),
                    (),
                ))
            })
            .await;
        if let Some(why) = late {
            let (number, complete) = (watcher.number, watcher.complete);
            let what = "has come to revision";
            self.breach(format!(
                "watcher {number} {what} {complete}, and not further: {why}"
            ));
        }
    }
}

fn asked(f: &str, watcher: usize) -> Ask<'_> {
    Ask {
        f,
        key: None,
        value: json!({"watcher": watcher}),
    }
}

/// An event as it is recorded.
fn shown(event: &WatchEvent) -> Json {
    let key = event.entry.key.strip_prefix(PREFIX.as_bytes());
    let value = (event.kind == WatchKind::Put).then(|| number(&event.entry.value));
    let revision = event.entry.revision.0;
    json!([event.range.0, revision, key.map(number), value])
}

#[async_trait]
impl Workload for Watch {
    async fn prepare(&self, client: &Client) -> Result<(), ClientError> {
        let first = client.put("first", "").await?.revision;
        self.first.store(first.0, Ordering::SeqCst);
        Ok(())
    }

    async fn step(&self, caller: &mut Caller) {
        if caller.number % CALLERS_PER_WATCHER != 1 {
            return self.write(caller).await;
        }
        let lent = self.lend(caller.number);
        let mut watcher =
            lent.unwrap_or_else(|| Watcher::new(caller.number, caller.roaming_client(), None));
        if caller.random.percent(AGAIN_PERCENT) {
            watcher.following = None;
        }
        if self.begin(caller, &mut watcher).await {
            self.events(caller, &mut watcher).await;
        }
        self.give_back(watcher);
    }

    async fn finish(&self, caller: &mut Caller) {
        // Something that comes behind all that was done before.
        self.write(caller).await;
        let first = Some(Revision(self.first.load(Ordering::SeqCst)));
        let mut late = Watcher::new(LATE_FIRST + caller.number, caller.roaming_client(), first);
        self.last_events(caller, &mut late).await;
        while let Some(mut watcher) = self.lend_any() {
            self.last_events(caller, &mut watcher).await;
        }
    }

    fn breaches(&self) -> Vec<String> {
        let breaches = self.breaches.lock().expect("nobody panics while adding");
        breaches.clone()
    }

    fn model(&self) -> (Model, Options) {
        (Model::Watch, Options::default())
    }
}
