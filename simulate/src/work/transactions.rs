//! Transactions over lists of one range: some appends, some reads. A transaction reads all its keys
//! at one time, then writes under the condition that none of them has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::expect::State;
use quorate_proto::v1::{self, operation::Operation as Kind};
use quorate_proto::v1::{pipeline_request::Request, pipeline_response::Response};
use serde_json::{Value as Json, json};

use super::Client;
use crate::ask::{Asked, Level, name};
use crate::history::End;

/// Most steps of one transaction.
const STEPS_MAX: u64 = 4;

#[derive(Clone, Copy)]
enum Step {
    Append(i64, i64),
    Read(i64),
}

impl Step {
    fn key(self) -> i64 {
        match self {
            Step::Append(key, _) | Step::Read(key) => key,
        }
    }
}

/// The keys of a transaction as they were at one time, with what each must still be.
type Found = BTreeMap<i64, (Vec<i64>, Option<v1::KeyValue>)>;

fn list(value: &[u8]) -> Vec<i64> {
    // What cannot be read is told as an element that nobody appended.
    serde_json::from_slice(value).unwrap_or_else(|_| vec![i64::MIN])
}

pub(super) fn operation(kind: Kind) -> v1::Operation {
    v1::Operation {
        operation: Some(kind),
    }
}

impl Client {
    pub(super) async fn transaction(&mut self) {
        let count = 1 + self.dice.below(STEPS_MAX);
        let mut steps = Vec::new();
        for _ in 0..count {
            let key = self.keys.key(&mut self.dice);
            steps.push(match self.dice.percent(50) {
                true => Step::Append(key, self.keys.value()),
                false => Step::Read(key),
            });
        }
        let asked = steps.iter().map(|step| match step {
            Step::Append(key, value) => json!(["append", key, value]),
            Step::Read(key) => json!(["r", key, null]),
        });
        let call = self.keyless_call("txn", asked.collect());
        let (end, told) = self.transact(&steps).await;
        self.end(&call, end, &told);
    }

    /// Runs the steps on a state that is still to hold.
    async fn transact(&mut self, steps: &[Step]) -> (End, Json) {
        let Some(found) = self.state_of(steps).await else {
            // Nothing was written yet, whatever became of the reading.
            return (End::Fail, Json::Null);
        };
        let lists = found.iter().map(|(key, (list, _))| (*key, list.clone()));
        let mut lists: BTreeMap<i64, Vec<i64>> = lists.collect();
        let mut told = Vec::new();
        let mut changed = BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(key, value) => {
                    let list = lists.entry(*key).or_default();
                    list.push(*value);
                    changed.insert(*key, json!(list).to_string());
                    told.push(json!(["append", key, value]));
                }
                Step::Read(key) => told.push(json!(["r", key, lists.get(key)])),
            }
        }
        let told = Json::Array(told);
        if changed.is_empty() {
            return (End::Ok, told);
        }
        match self.write_under(found, changed).await {
            Asked::Done(true) => (End::Ok, told),
            Asked::Done(false) | Asked::Refused => (End::Fail, Json::Null),
            Asked::Unknown => (End::Unknown, Json::Null),
        }
    }

    async fn state_of(&mut self, steps: &[Step]) -> Option<Found> {
        let mut keys: Vec<i64> = steps.iter().map(|step| step.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        let gets = keys.iter().map(|key| {
            let key = name(*key);
            operation(Kind::Get(v1::operation::Get { key }))
        });
        let request = v1::TxnRequest {
            then: gets.collect(),
            ..self.txn()
        };
        let (at, within) = (self.node(), self.within());
        let asked = self.world.ask(at, within, Request::Txn(request)).await;
        let Asked::Done(Response::Txn(done)) = asked else {
            return None;
        };
        let entries = done.results.into_iter().map(|result| {
            let entry = result.entry.filter(|_| result.found);
            let list = entry.as_ref().map(|entry| list(&entry.value));
            (list.unwrap_or_default(), entry)
        });
        Some(keys.into_iter().zip(entries).collect())
    }

    async fn write_under(&mut self, found: Found, changed: BTreeMap<i64, String>) -> Asked<bool> {
        let by_revision = self.dice.percent(50);
        let compare = found.into_iter().map(|(key, (_, entry))| {
            let state = match entry {
                Some(entry) if by_revision => State::Revision(entry.revision),
                Some(entry) => State::Value(entry.value),
                None => State::Absent(true),
            };
            v1::Compare {
                key: name(key),
                expect: Some(v1::Expect { state: Some(state) }),
            }
        });
        let puts = changed.into_iter().map(|(key, value)| {
            operation(Kind::Put(v1::operation::Put {
                key: name(key),
                value: Bytes::from(value),
                ..v1::operation::Put::default()
            }))
        });
        let request = v1::TxnRequest {
            compare: compare.collect(),
            then: puts.collect(),
            ..self.txn()
        };
        let (at, within) = (self.node(), self.within());
        self.succeeds(at, within, request).await
    }

    /// Runs a transaction; whether its conditions held.
    pub(super) async fn succeeds(
        &self,
        at: usize,
        within: Duration,
        request: v1::TxnRequest,
    ) -> Asked<bool> {
        match self.world.ask(at, within, Request::Txn(request)).await {
            Asked::Done(Response::Txn(done)) => Asked::Done(done.succeeded),
            Asked::Done(_) | Asked::Unknown => Asked::Unknown,
            Asked::Refused => Asked::Refused,
        }
    }

    pub(super) fn txn(&self) -> v1::TxnRequest {
        v1::TxnRequest {
            keyspace: self.tape.work().keyspace().to_owned(),
            consistency: Level::Linearizable.wire(),
            ..v1::TxnRequest::default()
        }
    }
}
