//! A counter. Strongly, reads lie within their bounds at all times; eventually, only the last ones
//! are asked, once all is whole: then each acknowledged increment counts once.

use async_trait::async_trait;
use quorate_client::{Client, ClientError, ReadOptions, TypedValue, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Copies, Ladder, Level};
use serde_json::{Value as Json, json};

use super::Workload;
use crate::caller::{Ask, Caller, Told};

const STRAYS_PERCENT: usize = 15;
const KEY: &str = "counter";
const AMOUNT_MAX: usize = 9;

/// The workload.
pub(super) struct Counter {
    level: Level,
}

impl Counter {
    pub(super) fn new(level: Option<Level>) -> Self {
        Self {
            level: level.unwrap_or(Level::Linearizable),
        }
    }

    async fn add(&self, caller: &mut Caller) {
        let client = caller.client(STRAYS_PERCENT);
        let amount = 1 + caller.random.below(AMOUNT_MAX) as i64;
        let ask = Ask {
            f: "add",
            key: None,
            value: json!(amount),
        };
        let options = WriteOptions {
            ladder: Some(Ladder::from(self.level)),
            ..WriteOptions::default()
        };
        caller
            .call(ask, async {
                client.increment(KEY, amount, options).await?;
                Ok(Told::Done(json!(amount), ()))
            })
            .await;
    }

    async fn read(&self, caller: &mut Caller, level: Level) {
        let client = caller.client(STRAYS_PERCENT);
        let ask = Ask {
            f: "read",
            key: None,
            value: Json::Null,
        };
        caller
            .call(ask, async {
                let sum = sum(&client, level).await?;
                Ok(Told::Done(json!(sum), ()))
            })
            .await;
    }
}

async fn sum(client: &Client, level: Level) -> Result<i64, ClientError> {
    let options = ReadOptions {
        ladder: Some(Ladder::from(level)),
        ..ReadOptions::default()
    };
    let got = client.get_with(KEY, options).await?;
    Ok(match got.typed {
        Some(TypedValue::Counter(sum)) => sum,
        Some(TypedValue::Set(_) | TypedValue::Map(_)) => i64::MIN,
        None => 0,
    })
}

#[async_trait]
impl Workload for Counter {
    async fn step(&self, caller: &mut Caller) {
        if self.level == Level::Linearizable && caller.random.percent(40) {
            self.read(caller, self.level).await;
        } else {
            self.add(caller).await;
        }
    }

    async fn finish(&self, caller: &mut Caller) {
        let level = match self.level.is_eventual() {
            true => Level::eventual(Copies::One),
            false => self.level,
        };
        self.read(caller, level).await;
    }

    fn model(&self) -> (Model, Options) {
        (Model::Counter, Options::default())
    }
}
