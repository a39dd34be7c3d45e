//! Transactions over lists in one range: some appends, some reads. A transaction reads all its
//! keys, then writes under the condition that none of them has changed.

use std::collections::BTreeMap;

use async_trait::async_trait;
use quorate_client::{Client, ClientError, Entry, Expect, Operation, Txn, WriteOptions};
use quorate_jepsen::{Model, Options};
use serde_json::{Value as Json, json};

use super::Workload;
use super::keys::{Keys, name};
use crate::caller::{Ask, Caller, Told};

const STRAYS_PERCENT: usize = 15;
/// Most steps of one transaction.
const STEPS_MAX: usize = 4;

/// The workload.
pub(super) struct Append {
    keys: Keys,
}

impl Default for Append {
    fn default() -> Self {
        Self {
            keys: Keys::new(5, 120),
        }
    }
}

/// One step of a transaction.
#[derive(Clone, Copy)]
enum Step {
    Append(i64, i64),
    Read(i64),
}

impl Step {
    fn key(self) -> i64 {
        match self {
            Self::Append(key, _) | Self::Read(key) => key,
        }
    }
}

/// The list that a value is.
fn list(value: &[u8]) -> Vec<i64> {
    // What cannot be read is told as an element that nobody appended.
    serde_json::from_slice(value).unwrap_or_else(|_| vec![i64::MIN])
}

/// The keys of a transaction as they are in one state, with what each must still be.
async fn state(
    client: &Client,
    keys: &[i64],
) -> Result<BTreeMap<i64, (Vec<i64>, Option<Entry>)>, ClientError> {
    let gets = keys.iter().map(|key| Operation::get(name(*key)));
    let txn = Txn {
        then: gets.collect(),
        ..Txn::default()
    };
    let done = client.txn(txn, WriteOptions::default()).await?;
    let entries = done.results.into_iter().map(|result| {
        let entry = result.entry.filter(|_| result.found);
        let list = entry.as_ref().map(|entry| list(&entry.value));
        (list.unwrap_or_default(), entry)
    });
    Ok(keys.iter().copied().zip(entries).collect())
}

/// Runs the steps on a state that is still to hold; the steps as they are recorded, if it did.
async fn transact(
    client: &Client,
    steps: &[Step],
    by_revision: bool,
) -> Result<Told<()>, ClientError> {
    let mut keys: Vec<i64> = steps.iter().map(|step| step.key()).collect();
    keys.sort_unstable();
    keys.dedup();
    let found = match state(client, &keys).await {
        Ok(found) => found,
        // Nothing was written yet, whatever became of the reading.
        Err(_) => return Ok(Told::Refused),
    };
    let mut lists: BTreeMap<i64, Vec<i64>> = found
        .iter()
        .map(|(key, (list, _))| (*key, list.clone()))
        .collect();
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
    if changed.is_empty() {
        return Ok(Told::Done(Json::Array(told), ()));
    }
    let mut txn = Txn::default();
    for (key, (_, entry)) in found {
        let expect = match entry {
            Some(entry) if by_revision => Expect::Revision(entry.revision),
            Some(entry) => Expect::Value(entry.value),
            None => Expect::Absent,
        };
        txn = txn.compare(name(key), expect);
    }
    for (key, value) in changed {
        txn = txn.then(Operation::put(name(key), value));
    }
    let done = client.txn(txn, WriteOptions::default()).await?;
    Ok(match done.succeeded {
        true => Told::Done(Json::Array(told), ()),
        false => Told::Refused,
    })
}

#[async_trait]
impl Workload for Append {
    async fn step(&self, caller: &mut Caller) {
        let client = caller.client(STRAYS_PERCENT);
        let count = 1 + caller.random.below(STEPS_MAX);
        let mut steps = Vec::new();
        for _ in 0..count {
            let key = self.keys.key(&mut caller.random);
            steps.push(match caller.random.percent(50) {
                true => Step::Append(key, self.keys.value()),
                false => Step::Read(key),
            });
        }
        let asked = steps.iter().map(|step| match step {
            Step::Append(key, value) => json!(["append", key, value]),
            Step::Read(key) => json!(["r", key, null]),
        });
        let ask = Ask {
            f: "txn",
            key: None,
            value: asked.collect(),
        };
        let by_revision = caller.random.percent(50);
        caller
            .call(ask, transact(&client, &steps, by_revision))
            .await;
    }

    fn model(&self) -> (Model, Options) {
        let options = Options {
            closed: true,
            ..Options::default()
        };
        (Model::ListAppend, options)
    }
}
