//! Batches over some keys: a get of each, then a put where the batch writes; all of it in one step.

use quorate_proto::v1::{self, operation::Operation as Kind};
use quorate_proto::v1::{pipeline_request::Request, pipeline_response::Response};
use serde_json::{Value as Json, json};

use super::transactions::operation;
use super::{Client, told};
use crate::ask::{Asked, Level, name, number, text};

/// Most keys of one batch.
const KEYS_MAX: u64 = 3;

impl Client {
    pub(super) async fn batch(&mut self) {
        let writes = self.dice.percent(60);
        let count = 2 + self.dice.below(KEYS_MAX - 1);
        let mut keys: Vec<i64> = (0..count).map(|_| self.keys.key(&mut self.dice)).collect();
        keys.sort_unstable();
        keys.dedup();
        let keys = keys.into_iter();
        let keys = keys.map(|key| (key, writes.then(|| self.keys.value())));
        let keys: Vec<(i64, Option<i64>)> = keys.collect();
        let asked = keys.iter().flat_map(|(key, value)| {
            let write = value.map(|value| json!(["w", key, value]));
            std::iter::once(json!(["r", key, null])).chain(write)
        });
        let call = self.keyless_call("txn", asked.collect());
        let run = self.run_batch(&keys).await;
        let (end, value) = told(&run, Json::clone);
        self.end(&call, end, &value);
    }

    async fn run_batch(&mut self, keys: &[(i64, Option<i64>)]) -> Asked<Json> {
        let (at, within) = (self.node(), self.within());
        let operations = keys.iter().flat_map(|(key, value)| {
            let get = operation(Kind::Get(v1::operation::Get { key: name(*key) }));
            let put = value.map(|value| {
                operation(Kind::Put(v1::operation::Put {
                    key: name(*key),
                    value: text(value),
                    ..v1::operation::Put::default()
                }))
            });
            std::iter::once(get).chain(put)
        });
        let request = v1::BatchRequest {
            keyspace: self.tape.work().keyspace().to_owned(),
            operations: operations.collect(),
            consistency: Level::Linearizable.wire(),
            request_id: Some(self.next_name(at)),
        };
        let done = match self.world.ask(at, within, Request::Batch(request)).await {
            Asked::Done(Response::Batch(done)) => done,
            Asked::Done(_) | Asked::Unknown => return Asked::Unknown,
            Asked::Refused => return Asked::Refused,
        };
        let errors = done.results.iter().filter_map(|one| one.error.as_ref());
        let mut effects = errors.map(|error| error.effect.as_str()).peekable();
        if effects.peek().is_some() {
            // Of one range: all of it was refused, or nobody knows.
            return match effects.all(|effect| effect == "none") {
                true => Asked::Refused,
                false => Asked::Unknown,
            };
        }
        let mut results = done.results.into_iter();
        let mut told = Vec::new();
        for (key, value) in keys {
            let entry = results.next().and_then(|got| got.entry);
            told.push(json!(["r", key, entry.map(|entry| number(&entry.value))]));
            if value.is_some() {
                results.next();
                told.push(json!(["w", key, value]));
            }
        }
        Asked::Done(Json::Array(told))
    }
}
