//! Values that expire, each replaced at once by one that does not: what replaced them stays, and
//! replicas agree on what went.
//!
//! Each caller has keys of its own, with numbers that rise. It reads a key only while its last value
//! is one that stays: a read that finds less has lost it. What expires is seen by nobody; that all
//! replicas remove it alike is what the recovery looks at.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use quorate_client::{ReadOptions, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Ladder, Level};
use serde_json::{Value as Json, json};

use super::Workload;
use super::keys::name;
use crate::caller::{Ask, Caller, Told, number};

/// Calls that go to another node than the caller's own, percent.
const STRAYS_PERCENT: usize = 30;
/// Keys of one caller that are in use at a time.
const KEYS: usize = 4;
/// A process has keys of its own, so many apart from another's.
const KEYS_APART: i64 = 16;
/// Lives of what expires.
const TTL_LEAST: Duration = Duration::from_millis(100);
const TTL_MOST: Duration = Duration::from_millis(900);

/// The workload.
#[derive(Default)]
pub(super) struct Expiring {
    last: Mutex<BTreeMap<i64, Last>>,
}

/// The last number of a key that was tried, and whether the key's value is known to stay.
#[derive(Clone, Copy, Default)]
struct Last {
    version: i64,
    stays: bool,
}

impl Expiring {
    fn key(caller: &mut Caller) -> i64 {
        let at = i64::try_from(caller.random.below(KEYS)).expect("keys are few");
        caller.process() * KEYS_APART + at
    }

    fn note(&self, key: i64, change: impl FnOnce(&mut Last)) -> Last {
        let mut last = self.last.lock().expect("nobody panics while counting");
        let last = last.entry(key).or_default();
        change(last);
        *last
    }

    async fn write(&self, caller: &mut Caller, key: i64, ttl: Option<Duration>) -> bool {
        let client = caller.client(STRAYS_PERCENT);
        let noted = self.note(key, |last| {
            last.version += 1;
            last.stays = false;
        });
        let version = noted.version;
        let ask = Ask {
            f: "write",
            key: Some(key),
            value: json!(version),
        };
        let options = WriteOptions {
            ladder: Some(Ladder::from(Level::Linearizable)),
            ttl,
            ..WriteOptions::default()
        };
        let write = caller.call(ask, async {
            let written = client.put_with(name(key), version.to_string(), options);
            written.await?;
            Ok(Told::Done(
                json!({"value": version, "version": version}),
                (),
            ))
        });
        write.await.is_some()
    }

    async fn read(&self, caller: &mut Caller, key: i64) {
        let client = caller.client(STRAYS_PERCENT);
        let ask = Ask {
            f: "read",
            key: Some(key),
            value: Json::Null,
        };
        let options = ReadOptions {
            ladder: Some(Ladder::from(Level::Linearizable)),
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
}

#[async_trait]
impl Workload for Expiring {
    async fn step(&self, caller: &mut Caller) {
        let key = Self::key(caller);
        match caller.random.below(100) {
            // It goes by itself.
            0..15 => {
                let ttl = caller.random.between(TTL_LEAST, TTL_MOST);
                self.write(caller, key, Some(ttl)).await;
            }
            15..55 => {
                let ttl = caller.random.between(TTL_LEAST, TTL_MOST);
                if self.write(caller, key, Some(ttl)).await && self.write(caller, key, None).await {
                    self.note(key, |last| last.stays = true);
                }
            }
            _ if self.note(key, |_| ()).stays => self.read(caller, key).await,
            _ => {
                if self.write(caller, key, None).await {
                    self.note(key, |last| last.stays = true);
                }
            }
        }
    }

    fn model(&self) -> (Model, Options) {
        (Model::Sessions, Options::default())
    }
}
