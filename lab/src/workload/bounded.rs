//! Reads of a bounded age, at any node. Each caller writes a key of its own, with numbers that rise,
//! and reads everybody's: so the number that is read is the version, and what it lacks had been
//! acknowledged a known time before.

use std::time::Duration;

use async_trait::async_trait;
use quorate_client::{ReadOptions, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Ladder, Level};
use serde_json::json;

use super::Workload;
use super::keys::{Versions, name};
use crate::caller::{Ask, Caller, Told, number};

/// Calls that go to another node than the caller's own, percent.
const STRAYS_PERCENT: usize = 60;
const AGE_USUAL: Duration = Duration::from_millis(1_200);

/// The workload.
pub(super) struct Bounded {
    age: Duration,
    /// By key, the last number that was tried. A key belongs to one process.
    versions: Versions,
}

impl Bounded {
    pub(super) fn new(level: Option<Level>) -> Self {
        let age = match level {
            Some(Level::Bounded(age)) => age,
            Some(_) | None => AGE_USUAL,
        };
        Self {
            age,
            versions: Versions::default(),
        }
    }

    async fn read(&self, caller: &mut Caller) {
        let Some(key) = self.versions.any(&mut caller.random) else {
            return;
        };
        let client = caller.client(STRAYS_PERCENT);
        let ask = Ask {
            f: "read",
            key: Some(key),
            value: json!({"bound_ms": self.age.as_millis() as u64}),
        };
        let options = ReadOptions {
            ladder: Some(Ladder::from(Level::Bounded(self.age))),
            ..ReadOptions::default()
        };
        caller
            .call(ask, async {
                let got = client.get_with(name(key), options).await?;
                let value = got.entry.map(|entry| number(&entry.value));
                let told = json!({"value": value, "version": value.unwrap_or(0)});
                Ok(Told::Done(told, ()))
            })
            .await;
    }

    async fn write(&self, caller: &mut Caller) {
        let key = caller.process();
        let client = caller.client(STRAYS_PERCENT);
        let version = self.versions.next(key);
        let ask = Ask {
            f: "write",
            key: Some(key),
            value: json!(version),
        };
        let options = WriteOptions {
            ladder: Some(Ladder::from(Level::Linearizable)),
            ..WriteOptions::default()
        };
        caller
            .call(ask, async {
                let written = client.put_with(name(key), version.to_string(), options);
                written.await?;
                Ok(Told::Done(
                    json!({"value": version, "version": version}),
                    (),
                ))
            })
            .await;
    }
}

#[async_trait]
impl Workload for Bounded {
    async fn step(&self, caller: &mut Caller) {
        match caller.random.percent(40) {
            true => self.write(caller).await,
            false => self.read(caller).await,
        }
    }

    fn model(&self) -> (Model, Options) {
        (Model::Bounded, Options::default())
    }
}
