//! Writes and deletes on the eventual plane, each with what its caller has seen: concurrent values
//! stand side by side until somebody has seen them all.

use async_trait::async_trait;
use quorate_client::{ReadOptions, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Copies, Ladder, Level};
use serde_json::{Value as Json, json};

use super::keys::{Keys, name};
use super::{Workload, for_reads};
use crate::caller::{Ask, Caller, Seen, Told, numbers};

const STRAYS_PERCENT: usize = 30;

/// The workload.
pub(super) struct Siblings {
    keys: Keys,
    level: Level,
}

impl Siblings {
    pub(super) fn new(level: Option<Level>) -> Self {
        Self {
            keys: Keys::new(4, 60),
            level: level.unwrap_or(Level::eventual(Copies::One)),
        }
    }
}

/// Reads all values of a key, and keeps what was seen for the next write.
pub(super) async fn read(caller: &mut Caller, f: &str, key: i64, options: ReadOptions) {
    let client = caller.client(STRAYS_PERCENT);
    let ask = Ask {
        f,
        key: Some(key),
        value: Json::Null,
    };
    let read = caller.call(ask, async {
        let got = client.get_with(name(key), options).await?;
        let values = numbers(&got);
        let context = got.receipt.context;
        let told = json!(values);
        Ok(Told::Done(told, Seen { values, context }))
    });
    if let Some(seen) = read.await {
        caller.seen.insert(key, seen);
    }
}

/// Writes a value, or deletes, with what was last seen of the key.
pub(super) async fn write(
    caller: &mut Caller,
    f: &str,
    key: i64,
    value: Option<i64>,
    ladder: Ladder,
) {
    let client = caller.client(STRAYS_PERCENT);
    let seen = caller.seen.remove(&key).unwrap_or_default();
    let asked = match value {
        Some(value) => json!({"value": value, "context": seen.values}),
        None => json!({"context": seen.values}),
    };
    let ask = Ask {
        f,
        key: Some(key),
        value: asked.clone(),
    };
    let options = WriteOptions {
        ladder: Some(ladder),
        context: Some(seen.context),
        ..WriteOptions::default()
    };
    caller
        .call(ask, async {
            match value {
                Some(value) => {
                    client
                        .put_with(name(key), value.to_string(), options)
                        .await?;
                }
                None => {
                    client.delete_with(name(key), options).await?;
                }
            }
            Ok(Told::Done(asked, ()))
        })
        .await;
}

#[async_trait]
impl Workload for Siblings {
    /// A second copy of a write would come back after the first was replaced.
    fn retries(&self) -> bool {
        false
    }

    async fn step(&self, caller: &mut Caller) {
        let key = self.keys.key(&mut caller.random);
        let options = ReadOptions {
            ladder: Some(for_reads(self.level)),
            ..ReadOptions::default()
        };
        match caller.random.below(100) {
            0..45 => read(caller, "read", key, options).await,
            45..90 => {
                let value = Some(self.keys.value());
                write(caller, "write", key, value, self.level.into()).await;
            }
            _ => write(caller, "delete", key, None, self.level.into()).await,
        }
    }

    async fn finish(&self, caller: &mut Caller) {
        for key in self.keys.used() {
            let options = ReadOptions {
                ladder: Some(Level::eventual(Copies::One).into()),
                ..ReadOptions::default()
            };
            read(caller, "final-read", key, options).await;
        }
    }

    fn model(&self) -> (Model, Options) {
        (Model::Causal, Options::default())
    }
}
