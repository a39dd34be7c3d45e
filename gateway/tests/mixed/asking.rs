//! Short ways to ask a gateway, and what its answers show. A process that ends takes its requests
//! with it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_gateway::Context;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::causal::{Actor, Binding, Context as Sealed, Dot, Dots, log_dot};
use quorate_types::{Effect, Revision};
use tokio::time::Instant;

use crate::world::World;

/// A level, as far as these tests use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Linearizable,
    /// Linearizable, once the log has taken in what a majority of primaries holds.
    Fenced,
    Stale,
    Eventual {
        copies: v1::Copies,
        strict: bool,
    },
}

pub const ONE: Level = eventual(v1::Copies::One);
pub const QUORUM: Level = eventual(v1::Copies::Quorum);
pub const ALL: Level = eventual(v1::Copies::All);

const fn eventual(copies: v1::Copies) -> Level {
    Level::Eventual {
        copies,
        strict: false,
    }
}

impl Level {
    pub fn wire(self) -> Option<v1::Consistency> {
        let rung = match self {
            Level::Linearizable | Level::Fenced => v1::Rung {
                level: v1::Level::Linearizable as i32,
                ..v1::Rung::default()
            },
            Level::Stale => v1::Rung {
                level: v1::Level::Stale as i32,
                ..v1::Rung::default()
            },
            Level::Eventual { copies, strict } => v1::Rung {
                level: v1::Level::Eventual as i32,
                copies: copies as i32,
                strict,
                ..v1::Rung::default()
            },
        };
        Some(v1::Consistency {
            fence: self == Level::Fenced,
            rungs: vec![rung],
            ..v1::Consistency::default()
        })
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Asked<T> {
    Done(T),
    /// Without effect.
    Refused(String),
    Unknown(String),
}

impl<T> Asked<T> {
    /// What was answered, where nothing else may be.
    pub fn unwrap(self) -> T {
        match self {
            Asked::Done(done) => done,
            Asked::Refused(why) => panic!("refused: {why}"),
            Asked::Unknown(why) => panic!("unknown: {why}"),
        }
    }

    pub fn done(self) -> Option<T> {
        match self {
            Asked::Done(done) => Some(done),
            Asked::Refused(_) | Asked::Unknown(_) => None,
        }
    }

    fn map<U>(self, with: impl FnOnce(T) -> U) -> Asked<U> {
        match self {
            Asked::Done(done) => Asked::Done(with(done)),
            Asked::Refused(why) => Asked::Refused(why),
            Asked::Unknown(why) => Asked::Unknown(why),
        }
    }
}

/// What a read has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    pub values: BTreeMap<Dot, Bytes>,
    /// Of the version, at levels that the log decides; 0: there is none.
    pub revision: u64,
    pub context: Bytes,
    pub typed: Option<v1::typed_value::Value>,
    /// Who served.
    pub node: usize,
}

impl Shown {
    pub fn of(got: v1::GetResponse, level: Level) -> Shown {
        let receipt = got.receipt.unwrap_or_default();
        let revision = match level {
            Level::Linearizable | Level::Fenced | Level::Stale => {
                got.entry.as_ref().map_or(0, |e| e.revision)
            }
            Level::Eventual { .. } => 0,
        };
        let typed = got.typed.and_then(|typed| typed.value);
        let plain = got.entry.into_iter().chain(got.siblings);
        let values = plain
            .filter(|_| typed.is_none())
            .map(|entry| (dot_of(&entry), entry.value));
        Shown {
            values: values.collect(),
            revision,
            context: receipt.context,
            typed,
            node: usize::try_from(receipt.node.saturating_sub(1)).unwrap(),
        }
    }

    /// The values alone.
    pub fn texts(&self) -> Vec<String> {
        let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
        let mut texts: Vec<String> = self.values.values().map(text).collect();
        texts.sort_unstable();
        texts
    }
}

fn dot_of(entry: &v1::KeyValue) -> Dot {
    dot_named(&entry.dot, entry.revision)
}

/// Reads `log:COUNT` and `NODE.START:COUNT`.
pub fn parse_dot(text: &str) -> Dot {
    let (actor, counter) = text.rsplit_once(':').unwrap();
    let actor = match actor.split_once('.') {
        None => Actor::LOG,
        Some((disk, start)) => Actor {
            disk: u64::from_str_radix(disk, 16).unwrap(),
            start: start.parse().unwrap(),
        },
    };
    Dot::new(actor, counter.parse().unwrap())
}

/// The name of a write, as its answer tells it.
pub fn dot_named(dot: &str, revision: u64) -> Dot {
    match dot.is_empty() {
        true => log_dot(Revision(revision)),
        false => parse_dot(dot),
    }
}

/// What a write replaces: what a read saw, or nothing at all.
#[derive(Clone, Debug, Default)]
pub struct Saw {
    /// As the read's receipt had it; empty: an explicit empty context.
    pub context: Option<Bytes>,
    pub id: Option<v1::RequestId>,
}

impl Saw {
    pub fn of(shown: &Shown) -> Saw {
        Saw {
            context: Some(shown.context.clone()),
            id: None,
        }
    }

    pub fn nothing() -> Saw {
        Saw {
            context: Some(Bytes::new()),
            id: None,
        }
    }
}

/// What a write was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub dot: Dot,
    /// Of a strong write.
    pub revision: u64,
}

impl Stored {
    fn of(dot: &str, revision: u64) -> Stored {
        let dot = dot_named(dot, revision);
        Stored { dot, revision }
    }
}

/// Asking through a node's gateway.
impl World {
    pub async fn ask(&self, at: usize, within: Duration, request: Request) -> Asked<Response> {
        let Some(mut process) = self.process(at) else {
            return Asked::Refused("the node does not run".to_owned());
        };
        let now = Instant::now();
        let context = Context::new(now, now + within);
        let served = process.gateway.serve(request, context);
        tokio::select! {
            biased;
            served = served => match served {
                Ok(response) => {
                    self.count_answer();
                    Asked::Done(response)
                }
                Err(error) if error.effect() == Effect::None => Asked::Refused(error.to_string()),
                Err(error) => Asked::Unknown(error.to_string()),
            },
            _ = process.life.changed() => Asked::Unknown("the process has ended".to_owned()),
        }
    }

    pub async fn read(&self, at: usize, key: &str, level: Level) -> Asked<Shown> {
        self.read_within(at, key, level, 0, Duration::from_secs(2))
            .await
    }

    /// `revision`: as of which, 0: the newest.
    pub async fn read_within(
        &self,
        at: usize,
        key: &str,
        level: Level,
        revision: u64,
        within: Duration,
    ) -> Asked<Shown> {
        let request = Request::Get(v1::GetRequest {
            keyspace: self.keyspace().to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            consistency: level.wire(),
            at_revision: revision,
        });
        let got = self.ask(at, within, request).await;
        got.map(|response| match response {
            Response::Get(got) => Shown::of(got, level),
            other => panic!("{other:?}"),
        })
    }

    pub async fn put(
        &self,
        at: usize,
        key: &str,
        value: &str,
        level: Level,
        saw: &Saw,
    ) -> Asked<Stored> {
        let within = Duration::from_secs(2);
        self.put_within(at, key, value, (level, within), saw).await
    }

    pub async fn put_within(
        &self,
        at: usize,
        key: &str,
        value: &str,
        (level, within): (Level, Duration),
        saw: &Saw,
    ) -> Asked<Stored> {
        let request = Request::Put(v1::PutRequest {
            keyspace: self.keyspace().to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            consistency: level.wire(),
            ttl_ms: 0,
            request_id: saw.id,
            context: saw.context.clone(),
            lease: 0,
        });
        let put = self.ask(at, within, request).await;
        put.map(|response| match response {
            Response::Put(put) => Stored::of(&put.dot, put.revision),
            other => panic!("{other:?}"),
        })
    }

    /// `if_revision`: 0 for any.
    pub async fn delete(
        &self,
        at: usize,
        key: &str,
        (level, within): (Level, Duration),
        if_revision: u64,
        saw: &Saw,
    ) -> Asked<Stored> {
        let request = Request::Delete(v1::DeleteRequest {
            keyspace: self.keyspace().to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            consistency: level.wire(),
            if_revision,
            request_id: saw.id,
            context: saw.context.clone().filter(|_| if_revision == 0),
            ..v1::DeleteRequest::default()
        });
        let deleted = self.ask(at, within, request).await;
        deleted.map(|response| match response {
            Response::Delete(deleted) => Stored::of(&deleted.dot, deleted.revision),
            other => panic!("{other:?}"),
        })
    }

    /// `None`: something else was there. `revision`: which must be there, 0: none.
    pub async fn compare_and_set(
        &self,
        at: usize,
        key: &str,
        (revision, value): (u64, &str),
        within: Duration,
        saw: &Saw,
    ) -> Asked<Option<Stored>> {
        use v1::expect::State;
        let state = match revision {
            0 => State::Absent(true),
            revision => State::Revision(revision),
        };
        let request = Request::CompareAndSet(v1::CompareAndSetRequest {
            keyspace: self.keyspace().to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            expect: Some(v1::Expect { state: Some(state) }),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ttl_ms: 0,
            consistency: Level::Linearizable.wire(),
            request_id: saw.id,
            lease: 0,
        });
        let set = self.ask(at, within, request).await;
        set.map(|response| match response {
            Response::CompareAndSet(set) => set.succeeded.then(|| Stored::of("", set.revision)),
            other => panic!("{other:?}"),
        })
    }

    /// Changes a typed key.
    pub async fn change(
        &self,
        at: usize,
        key: &str,
        change: v1::change::Change,
        (level, within): (Level, Duration),
        saw: &Saw,
    ) -> Asked<()> {
        let request = Request::Update(v1::UpdateRequest {
            keyspace: self.keyspace().to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            change: Some(v1::Change {
                change: Some(change),
            }),
            consistency: level.wire(),
            context: saw.context.clone(),
            request_id: saw.id,
        });
        self.ask(at, within, request).await.map(drop)
    }

    /// The revisions of all committed versions of a key, oldest first.
    pub async fn revisions(&self, at: usize, key: &str) -> Asked<Vec<u64>> {
        let request = Request::History(v1::HistoryRequest {
            keyspace: self.keyspace().to_owned(),
            key: Bytes::copy_from_slice(key.as_bytes()),
            limit: 0,
            consistency: Level::Linearizable.wire(),
        });
        let told = self.ask(at, Duration::from_secs(5), request).await;
        told.map(|response| match response {
            Response::History(history) => {
                let revision = |entry: v1::history_response::Entry| entry.version.unwrap().revision;
                history.entries.into_iter().rev().map(revision).collect()
            }
            other => panic!("{other:?}"),
        })
    }

    /// The dots that a context says to have seen.
    pub fn opened(&self, key: &str, context: &Bytes) -> Dots {
        if context.is_empty() {
            return Dots::new();
        }
        let (cluster, identity) = self.binding.get().unwrap();
        let binding = Binding {
            cluster: cluster.as_bytes(),
            keyspace: identity,
            key: key.as_bytes(),
        };
        Sealed(context.clone()).open(&binding).unwrap()
    }

    /// Learns what contexts are bound to; some node runs.
    pub fn learn_binding(&self) {
        self.binding.get_or_init(|| {
            let process = self.all().find_map(|at| self.process(at)).unwrap();
            let catalog = process.raft.catalog();
            let keyspace = catalog.keyspace(self.keyspace()).unwrap();
            let mut identity = [0; 12];
            identity[..4].copy_from_slice(&keyspace.id.0.to_be_bytes());
            identity[4..].copy_from_slice(&keyspace.incarnation.to_be_bytes());
            (process.raft.cluster().to_owned(), identity)
        });
    }
}
