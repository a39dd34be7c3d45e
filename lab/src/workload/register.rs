//! Registers, each linearizable by itself: read, write, compare-and-set.

use async_trait::async_trait;
use quorate_client::{CasOutcome, Expect, ReadOptions, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Ladder, Level};
use serde_json::{Value as Json, json};

use super::Workload;
use super::keys::{Keys, name};
use crate::caller::{Ask, Caller, Seen, Told, number};

/// Calls that go to another node than the caller's own, percent.
const STRAYS_PERCENT: usize = 15;

/// The workload.
pub(super) struct Register {
    keys: Keys,
}

impl Default for Register {
    fn default() -> Self {
        Self {
            keys: Keys::new(4, 150),
        }
    }
}

fn strong() -> Option<Ladder> {
    Some(Ladder::from(Level::Linearizable))
}

impl Register {
    async fn read(&self, caller: &mut Caller, key: i64) {
        let client = caller.client(STRAYS_PERCENT);
        let ask = Ask {
            f: "read",
            key: Some(key),
            value: Json::Null,
        };
        let options = ReadOptions {
            ladder: strong(),
            ..ReadOptions::default()
        };
        let read = caller.call(ask, async {
            let got = client.get_with(name(key), options).await?;
            let value = got.entry.map(|entry| number(&entry.value));
            Ok(Told::Done(json!(value), value))
        });
        if let Some(value) = read.await {
            let values = value.into_iter().collect();
            let context = Default::default();
            caller.seen.insert(key, Seen { values, context });
        }
    }

    async fn write(&self, caller: &mut Caller, key: i64) {
        let client = caller.client(STRAYS_PERCENT);
        let value = self.keys.value();
        let ask = Ask {
            f: "write",
            key: Some(key),
            value: json!(value),
        };
        let options = WriteOptions {
            ladder: strong(),
            ..WriteOptions::default()
        };
        caller
            .call(ask, async {
                client
                    .put_with(name(key), value.to_string(), options)
                    .await?;
                Ok(Told::Done(json!(value), ()))
            })
            .await;
    }

    async fn compare_and_set(&self, caller: &mut Caller, key: i64, seen: &Seen) {
        let client = caller.client(STRAYS_PERCENT);
        let old = seen.values.first().copied();
        let new = self.keys.value();
        let expect = match old {
            Some(old) => Expect::Value(old.to_string().into()),
            None => Expect::Absent,
        };
        let value = json!([old, new]);
        let ask = Ask {
            f: "cas",
            key: Some(key),
            value: value.clone(),
        };
        let options = WriteOptions {
            ladder: strong(),
            ..WriteOptions::default()
        };
        caller
            .call(ask, async {
                let set = client.compare_and_set(name(key), expect, new.to_string(), options);
                Ok(match set.await? {
                    CasOutcome::Done(_) => Told::Done(value, ()),
                    CasOutcome::Refused { .. } => Told::Refused,
                })
            })
            .await;
    }
}

#[async_trait]
impl Workload for Register {
    async fn step(&self, caller: &mut Caller) {
        let key = self.keys.key(&mut caller.random);
        match (caller.random.below(100), caller.seen.remove(&key)) {
            (65.., Some(seen)) => self.compare_and_set(caller, key, &seen).await,
            (40..65, _) => self.write(caller, key).await,
            (_, _) => self.read(caller, key).await,
        }
    }

    fn model(&self) -> (Model, Options) {
        let options = Options {
            independent: true,
            ..Options::default()
        };
        (Model::CasRegister, options)
    }
}
