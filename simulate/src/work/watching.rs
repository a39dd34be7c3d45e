//! Puts and deletes of some clients, and what others are told of them who watch: through any node,
//! over lost ones, and by watches that are begun again where they had come to. In the end each is
//! asked for all that was acknowledged, and at each node a new one for all that ever happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use quorate_gateway::WatchService;
use quorate_proto::v1::watch_event::Kind;
use quorate_proto::v1::watch_server::Watch;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use serde_json::{Value as Json, json};
use tokio::time::Instant;

use super::Client;
use crate::ask::{Asked, Level, number, text};
use crate::history::{Call, End, Tape};
use crate::world::{EPOCH, World};

/// Of so many clients one watches.
const CLIENTS_PER_WATCHER: u64 = 4;
const PREFIX: &str = "watched-";
const DELETES_PERCENT: u64 = 25;
/// A watch that says nothing for so long is left for another node's.
const SILENCE_MAX: Duration = Duration::from_secs(2);
const PROGRESS_MILLIS: u32 = 300;
/// Once all is whole, all that was acknowledged is told within this.
const LAST_MAX: Duration = Duration::from_secs(30);

/// No clock is so wrong that something is written earlier than this before all began.
const BEFORE_ALL_MICROS: u64 = 10_000_000;
/// Number of the first of those that begin once all is over.
const LATE_FIRST: i64 = 1_000;

/// What all clients of this work share.
#[derive(Default)]
pub(super) struct Watches {
    /// The highest revision that was acknowledged.
    acknowledged: AtomicU64,
    /// Those whose clients have stopped.
    watchers: Mutex<Vec<Watcher>>,
}

/// One who watches.
pub(super) struct Watcher {
    number: i64,
    /// The first revision that it wants; 0: what comes from when it begins.
    from: u64,
    positions: BTreeMap<u64, v1::WatchPosition>,
    complete: u64,
    /// It was refused for good.
    is_lost: bool,
}

impl Watcher {
    fn new(number: i64, from: u64) -> Watcher {
        Watcher {
            number,
            from,
            positions: BTreeMap::new(),
            complete: 0,
            is_lost: false,
        }
    }
}

/// An event as it is recorded.
fn shown(event: &v1::WatchEvent) -> Json {
    let entry = event.entry.clone().unwrap_or_default();
    let key = entry.key.strip_prefix(PREFIX.as_bytes()).map(number);
    let value = (event.kind() == Kind::Put).then(|| number(&entry.value));
    json!([event.range, entry.revision, key, value])
}

fn named(key: i64) -> Bytes {
    Bytes::from(format!("{PREFIX}{key}"))
}

impl Watcher {
    fn request(&self, keyspace: &str) -> v1::WatchRequest {
        v1::WatchRequest {
            keyspace: keyspace.to_owned(),
            prefix: Bytes::from_static(PREFIX.as_bytes()),
            from_revision: self.from,
            positions: self.positions.values().cloned().collect(),
            progress_interval_ms: PROGRESS_MILLIS,
            ..v1::WatchRequest::default()
        }
    }

    fn take(&mut self, message: v1::WatchResponse) -> Vec<Json> {
        for position in message.positions {
            self.positions.insert(position.range, position);
        }
        self.complete = message.complete_revision;
        message.events.iter().map(shown).collect()
    }

    fn has_begun(&self) -> bool {
        !self.positions.is_empty()
    }

    /// Watches at a node until that ends or `is_over`; records what it is told. `f`: how events are
    /// recorded.
    async fn follow(
        &mut self,
        (world, tape, client): (&World, &Tape, u64),
        at: usize,
        mut is_over: impl FnMut(&Watcher) -> bool,
    ) {
        let Some(mut process) = world.process(at) else {
            return;
        };
        let began = self.has_begun();
        let from = if self.from == 0 { "now" } else { "beginning" };
        let begin = Call::keyless(
            client,
            "watch",
            json!({"watcher": self.number, "from": from}),
        );
        if !began {
            tape.begin(&begin);
        }
        let service = WatchService::new(process.gateway.clone());
        let request = tonic::Request::new(self.request(tape.work().keyspace()));
        let opening = tokio::select! {
            biased;
            _ = process.life.changed() => None,
            opened = service.watch(request) => Some(opened),
        };
        let mut messages = match opening {
            Some(Ok(opened)) => opened.into_inner(),
            Some(Err(status)) => {
                self.refused(world, &status);
                return self.not_begun(tape, &begin, began);
            }
            None => return self.not_begun(tape, &begin, began),
        };
        loop {
            let message = tokio::select! {
                biased;
                _ = process.life.changed() => break,
                message = tokio::time::timeout(SILENCE_MAX, messages.next()) => message,
            };
            match message {
                Ok(Some(Ok(message))) => {
                    let had_begun = self.has_begun();
                    let told = self.take(message);
                    if !had_begun && self.has_begun() {
                        tape.end(&begin, End::Ok, &begin.value);
                    }
                    if !told.is_empty() {
                        let events =
                            Call::keyless(client, "events", json!({"watcher": self.number}));
                        tape.begin(&events);
                        let told = json!({"watcher": self.number, "events": told});
                        tape.end(&events, End::Ok, &told);
                    }
                }
                Ok(Some(Err(status))) => {
                    self.refused(world, &status);
                    break;
                }
                Ok(None) | Err(_) => break,
            }
            if is_over(self) {
                break;
            }
        }
        self.not_begun(tape, &begin, began || self.has_begun());
    }

    /// Ends the call that was to begin it, if it has not.
    fn not_begun(&self, tape: &Tape, begin: &Call, has_begun: bool) {
        if !has_begun {
            tape.end(begin, End::Fail, &begin.value);
        }
    }

    fn refused(&mut self, world: &World, status: &tonic::Status) {
        let passing = [
            tonic::Code::Unavailable,
            tonic::Code::DeadlineExceeded,
            tonic::Code::ResourceExhausted,
        ];
        if !passing.contains(&status.code()) {
            let number = self.number;
            self.is_lost = true;
            world.accuse(format!("watcher {number} is refused: {status}"));
        }
    }
}

impl Client {
    /// Whether this client is one of those who watch.
    pub(super) fn watches(&self) -> bool {
        self.number % CLIENTS_PER_WATCHER == 1
    }

    /// Watches until it is to stop.
    pub(super) async fn watch(mut self, stop: Arc<AtomicBool>) {
        let mut watcher = Watcher::new(self.number as i64, 0);
        while !stop.load(Ordering::Relaxed) && !watcher.is_lost {
            let at = self.node();
            // How many messages it takes before it leaves for another node.
            let mut left = match self.dice.percent(30) {
                true => self.dice.below(20),
                false => u64::MAX,
            };
            let is_over = |_: &Watcher| {
                left = left.saturating_sub(1);
                left == 0 || stop.load(Ordering::Relaxed)
            };
            let parts = (&*self.world, &self.tape, self.number);
            watcher.follow(parts, at, is_over).await;
            let pause = self.dice.below(100);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.keys.watches.watchers.lock().push(watcher);
    }

    /// Changes one of the keys that are watched.
    pub(super) async fn change(&mut self, key: i64) {
        let (at, within) = (self.node(), self.within());
        let keyspace = self.tape.work().keyspace().to_owned();
        let consistency = Level::Linearizable.wire();
        let request_id = Some(self.next_name(at));
        if self.dice.percent(DELETES_PERCENT) {
            let call = self.call("delete", key, Json::Null);
            let request = Request::Delete(v1::DeleteRequest {
                keyspace,
                key: named(key),
                consistency,
                request_id,
                ..v1::DeleteRequest::default()
            });
            let asked = self.world.ask(at, within, request).await;
            let (end, told) = match asked {
                Asked::Done(Response::Delete(deleted)) => {
                    self.acknowledge(deleted.revision);
                    let revision = (deleted.deleted > 0).then_some(deleted.revision);
                    (End::Ok, json!({"revision": revision}))
                }
                Asked::Refused => (End::Fail, Json::Null),
                Asked::Done(_) | Asked::Unknown => (End::Unknown, Json::Null),
            };
            return self.end(&call, end, &told);
        }
        let value = self.keys.value();
        let call = self.call("put", key, json!(value));
        let request = Request::Put(v1::PutRequest {
            keyspace,
            key: named(key),
            value: text(value),
            consistency,
            request_id,
            ..v1::PutRequest::default()
        });
        let asked = self.world.ask(at, within, request).await;
        let (end, told) = match asked {
            Asked::Done(Response::Put(put)) => {
                self.acknowledge(put.revision);
                (End::Ok, json!({"value": value, "revision": put.revision}))
            }
            Asked::Refused => (End::Fail, json!(value)),
            Asked::Done(_) | Asked::Unknown => (End::Unknown, json!(value)),
        };
        self.end(&call, end, &told);
    }

    /// Before it is recorded: what stands in the recording is never above this.
    fn acknowledge(&self, revision: u64) {
        let acknowledged = &self.keys.watches.acknowledged;
        acknowledged.fetch_max(revision, Ordering::Relaxed);
    }
}

impl Watches {
    /// Has every watcher told all that was acknowledged, and at each node a new one all that ever
    /// happened.
    pub(super) async fn finish(&self, (world, tape): (&World, &Tape), first: u64) {
        let goal = self.acknowledged.load(Ordering::Relaxed);
        let mut watchers = std::mem::take(&mut *self.watchers.lock());
        let from = EPOCH.0 - BEFORE_ALL_MICROS;
        let late = world.sound();
        let late = late.map(|at| Watcher::new(LATE_FIRST + at as i64, from));
        watchers.extend(late);
        for (place, mut watcher) in watchers.into_iter().enumerate() {
            let client = first + place as u64;
            let deadline = Instant::now() + LAST_MAX;
            let sound: Vec<usize> = world.sound().collect();
            let mut turn = place;
            while watcher.complete < goal || !watcher.has_begun() {
                if Instant::now() >= deadline || watcher.is_lost {
                    let Watcher {
                        number, complete, ..
                    } = watcher;
                    world.accuse(format!("watcher {number} stays at {complete}, not {goal}"));
                    break;
                }
                let parts = (world, tape, client);
                let is_over = |watcher: &Watcher| watcher.complete >= goal;
                watcher
                    .follow(parts, sound[turn % sound.len()], is_over)
                    .await;
                turn += 1;
            }
            let last = Call::keyless(client, "last-events", json!({"watcher": watcher.number}));
            tape.begin(&last);
            let none: [Json; 0] = [];
            let told = json!({"watcher": watcher.number, "events": none});
            tape.end(&last, End::Ok, &told);
        }
    }
}
