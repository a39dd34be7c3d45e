//! Batches of one range: each reads some keys, and writes what it has read. A batch of one range is
//! one entry of its log, so what it does is done at one time, or not at all.

use async_trait::async_trait;
use quorate_client::{Client, ClientError, Operation};
use quorate_jepsen::{Model, Options};
use serde_json::{Value as Json, json};

use super::Workload;
use super::keys::{Keys, name};
use crate::caller::{Ask, Caller, Told, number};

const STRAYS_PERCENT: usize = 15;
/// Most keys of one batch.
const KEYS_MAX: usize = 3;

/// The workload.
pub(super) struct Batch {
    keys: Keys,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            keys: Keys::new(4, 80),
        }
    }
}

/// Runs a batch of keys, each with the value that it is to get, and tells it as a transaction.
async fn run(client: &Client, keys: &[(i64, Option<i64>)]) -> Result<Told<()>, ClientError> {
    let mut operations = Vec::new();
    for (key, value) in keys {
        operations.push(Operation::get(name(*key)));
        let put = value.map(|value| Operation::put(name(*key), value.to_string()));
        operations.extend(put);
    }
    let mut results = client.batch(operations).await?.results.into_iter();
    let mut told = Vec::new();
    for (key, value) in keys {
        let got = results.next().transpose()?.and_then(|got| got.entry);
        told.push(json!(["r", key, got.map(|entry| number(&entry.value))]));
        if value.is_some() {
            results.next().transpose()?;
            told.push(json!(["w", key, value]));
        }
    }
    Ok(Told::Done(Json::Array(told), ()))
}

#[async_trait]
impl Workload for Batch {
    async fn step(&self, caller: &mut Caller) {
        let client = caller.client(STRAYS_PERCENT);
        let writes = caller.random.percent(60);
        let count = 2 + caller.random.below(KEYS_MAX - 1);
        let mut keys: Vec<i64> = (0..count)
            .map(|_| self.keys.key(&mut caller.random))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let keys: Vec<(i64, Option<i64>)> = keys
            .into_iter()
            .map(|key| (key, writes.then(|| self.keys.value())))
            .collect();
        let mut asked = Vec::new();
        for (key, value) in &keys {
            asked.push(json!(["r", key, null]));
            asked.extend(value.map(|value| json!(["w", key, value])));
        }
        let ask = Ask {
            f: "txn",
            key: None,
            value: Json::Array(asked),
        };
        caller.call(ask, run(&client, &keys)).await;
    }

    fn model(&self) -> (Model, Options) {
        let options = Options {
            closed: true,
            ..Options::default()
        };
        (Model::RwRegister, options)
    }
}
