//! Short ways to ask a gateway, and what its answers show. A process that ends takes its requests
//! with it.

use std::time::Duration;

use bytes::Bytes;
use quorate_gateway::Context;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::{Effect, chain};
use tokio::time::Instant;

use crate::trace::What;
use crate::world::{World, id_of};

/// At which level something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Linearizable,
    /// Linearizable, once the log has taken in what a majority of primaries holds.
    Fenced,
    Eventual {
        copies: v1::Copies,
        strict: bool,
    },
    /// Linearizable if that is had in time, else at one copy.
    Ladder,
    /// What the session has seen, wherever that is had.
    Session,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub(crate) enum Asked<T> {
    Done(T),
    /// Without effect.
    Refused,
    Unknown,
}

/// A key's values, as a read showed them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) values: Vec<i64>,
    pub(crate) context: Bytes,
}

/// A write's place and level, and what its client had seen.
pub(crate) struct Write<'a> {
    pub(crate) keyspace: &'static str,
    pub(crate) key: i64,
    /// None: a delete.
    pub(crate) value: Option<i64>,
    pub(crate) level: Level,
    pub(crate) context: Option<&'a Bytes>,
    /// The client's name for it: it is made once, or nobody knows.
    pub(crate) name: Option<v1::RequestId>,
}

const LADDER_PATIENCE: Duration = Duration::from_millis(300);

impl Level {
    pub(crate) fn wire(self) -> Option<v1::Consistency> {
        let linearizable = v1::Rung {
            level: v1::Level::Linearizable as i32,
            ..v1::Rung::default()
        };
        let eventual = |copies: v1::Copies, strict| v1::Rung {
            level: v1::Level::Eventual as i32,
            copies: copies as i32,
            strict,
            ..v1::Rung::default()
        };
        let rungs = match self {
            Level::Linearizable | Level::Fenced => vec![linearizable],
            Level::Eventual { copies, strict } => vec![eventual(copies, strict)],
            Level::Session => vec![v1::Rung {
                level: v1::Level::Session as i32,
                ..v1::Rung::default()
            }],
            Level::Ladder => {
                let budget_ms = LADDER_PATIENCE.as_millis() as u32;
                let first = v1::Rung {
                    budget_ms,
                    ..linearizable
                };
                vec![first, eventual(v1::Copies::One, false)]
            }
        };
        Some(v1::Consistency {
            fence: self == Level::Fenced,
            rungs,
            ..v1::Consistency::default()
        })
    }
}

pub(crate) fn name(key: i64) -> Bytes {
    Bytes::from(format!("key-{key}"))
}

pub(crate) fn text(value: i64) -> Bytes {
    Bytes::from(value.to_string())
}

pub(crate) fn number(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    // What nobody wrote is shown as what nobody writes.
    text.parse().unwrap_or(i64::MIN)
}

/// Whom a request asks, and at which level.
fn asked(at: usize, request: &Request) -> String {
    let consistency = match request {
        Request::Get(get) => &get.consistency,
        Request::Put(put) => &put.consistency,
        Request::Delete(delete) => &delete.consistency,
        Request::CompareAndSet(set) => &set.consistency,
        _ => &None,
    };
    let consistency = consistency.clone().unwrap_or_default();
    let rungs: Vec<String> = consistency.rungs.iter().map(level_told).collect();
    let fence = if consistency.fence { ", fenced" } else { "" };
    format!("at n{}, {}{fence}", id_of(at), rungs.join(" > "))
}

/// A level in the words of the command line.
pub(crate) fn level_told(rung: &v1::Rung) -> String {
    let level = match rung.level() {
        v1::Level::Eventual => {
            let copies = match rung.copies() {
                v1::Copies::Quorum => "quorum".to_owned(),
                v1::Copies::LocalQuorum => "local_quorum".to_owned(),
                v1::Copies::All => "all".to_owned(),
                v1::Copies::Count => rung.copies_count.to_string(),
                v1::Copies::One | v1::Copies::Unspecified => "one".to_owned(),
            };
            let strict = if rung.strict { ",strict" } else { "" };
            format!("eventual:{copies}{strict}")
        }
        v1::Level::Linearizable => "linearizable".to_owned(),
        v1::Level::Bounded => format!("bounded:{}ms", rung.staleness_max_ms),
        v1::Level::Session => "session".to_owned(),
        v1::Level::Stale => "stale".to_owned(),
        v1::Level::Unspecified => "the keyspace's level".to_owned(),
    };
    match rung.budget_ms {
        0 => level,
        budget => format!("{level}@{budget}ms"),
    }
}

impl World {
    /// Has a node serve a request.
    pub(crate) async fn ask(
        &self,
        at: usize,
        within: Duration,
        request: Request,
    ) -> Asked<Response> {
        self.trace.keep(|| What::Asked(asked(at, &request)));
        let Some(mut process) = self.process(at) else {
            // Nobody listens there.
            self.trace
                .keep(|| What::Answered("(its process does not run)".to_owned()));
            return Asked::Refused;
        };
        let now = Instant::now();
        let served = process
            .gateway
            .serve(request, Context::new(now, now + within));
        tokio::select! {
            biased;
            served = served => {
                self.trace.keep(|| What::Answered(match &served {
                    Ok(_) => String::new(),
                    Err(error) => format!("({})", chain(error)),
                }));
                match served {
                    Ok(response) => Asked::Done(response),
                    Err(error) if error.effect() == Effect::None => Asked::Refused,
                    Err(_) => Asked::Unknown,
                }
            },
            _ = process.life.changed() => {
                self.trace.keep(|| What::Answered("(its process ended)".to_owned()));
                Asked::Unknown
            }
        }
    }

    pub(crate) async fn read(
        &self,
        at: usize,
        (keyspace, key): (&'static str, i64),
        level: Level,
        within: Duration,
    ) -> Asked<Seen> {
        let request = Request::Get(v1::GetRequest {
            keyspace: keyspace.to_owned(),
            key: name(key),
            consistency: level.wire(),
            at_revision: 0,
        });
        match self.ask(at, within, request).await {
            Asked::Done(Response::Get(got)) => {
                let entries = got.entry.into_iter().chain(got.siblings);
                let mut values: Vec<i64> = entries.map(|entry| number(&entry.value)).collect();
                values.sort_unstable();
                let context = got.receipt.unwrap_or_default().context;
                Asked::Done(Seen { values, context })
            }
            Asked::Done(_) | Asked::Unknown => Asked::Unknown,
            Asked::Refused => Asked::Refused,
        }
    }

    pub(crate) async fn write(&self, at: usize, write: Write<'_>, within: Duration) -> Asked<()> {
        let consistency = write.level.wire();
        let (keyspace, key) = (write.keyspace.to_owned(), name(write.key));
        let context = write.context.cloned();
        let request = match write.value {
            Some(value) => Request::Put(v1::PutRequest {
                keyspace,
                key,
                value: text(value),
                consistency,
                context,
                request_id: write.name,
                ..v1::PutRequest::default()
            }),
            None => Request::Delete(v1::DeleteRequest {
                keyspace,
                key,
                consistency,
                context,
                request_id: write.name,
                ..v1::DeleteRequest::default()
            }),
        };
        match self.ask(at, within, request).await {
            Asked::Done(_) => Asked::Done(()),
            Asked::Refused => Asked::Refused,
            Asked::Unknown => Asked::Unknown,
        }
    }

    /// Whether the value was what was expected, and the new one is there now.
    pub(crate) async fn compare_and_set(
        &self,
        at: usize,
        (keyspace, key): (&'static str, i64),
        (old, new): (Option<i64>, i64),
        within: Duration,
    ) -> Asked<bool> {
        use v1::expect::State;
        let state = match old {
            None => State::Absent(true),
            Some(old) => State::Value(text(old)),
        };
        let request = Request::CompareAndSet(v1::CompareAndSetRequest {
            keyspace: keyspace.to_owned(),
            key: name(key),
            expect: Some(v1::Expect { state: Some(state) }),
            value: text(new),
            consistency: Level::Linearizable.wire(),
            ..v1::CompareAndSetRequest::default()
        });
        match self.ask(at, within, request).await {
            Asked::Done(Response::CompareAndSet(set)) => Asked::Done(set.succeeded),
            Asked::Done(_) | Asked::Unknown => Asked::Unknown,
            Asked::Refused => Asked::Refused,
        }
    }
}
