//! An eventual write at a quorum of primaries, then fenced reads of the key at other nodes: each
//! sees it. A key is written once, so with fences it is a linearizable register; without, the reads
//! that come before the log has taken the write in miss it, which the control shows.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use quorate_client::{ReadOptions, WriteOptions};
use quorate_jepsen::{Model, Options};
use quorate_types::{Ack, Copies, Ladder, Level};
use serde_json::{Value as Json, json};

use super::Workload;
use super::keys::name;
use crate::caller::{Ask, Caller, Told, number};

/// Reads of a key, by its writer, after its write.
const READS: usize = 2;
/// Keys back from the newest one that are read by others.
const RECENT_KEYS: i64 = 6;
const WRITE: Level = Level::Eventual {
    copies: Copies::Quorum,
    strict: true,
    ack: Ack::Disk,
};

/// The workload.
pub(super) struct Fence {
    fenced: bool,
    newest: AtomicI64,
}

impl Fence {
    pub(super) fn new(fenced: bool) -> Self {
        Self {
            fenced,
            newest: AtomicI64::new(0),
        }
    }

    async fn write(&self, caller: &mut Caller, key: i64) -> bool {
        let client = caller.client(50);
        let ask = Ask {
            f: "write",
            key: Some(key),
            value: json!(key),
        };
        let options = WriteOptions {
            ladder: Some(Ladder::from(WRITE)),
            ..WriteOptions::default()
        };
        let write = caller.call(ask, async {
            client.put_with(name(key), key.to_string(), options).await?;
            Ok(Told::Done(json!(key), ()))
        });
        write.await.is_some()
    }

    async fn read(&self, caller: &mut Caller, key: i64) {
        let client = caller.client(100);
        let ask = Ask {
            f: "read",
            key: Some(key),
            value: Json::Null,
        };
        let options = ReadOptions {
            ladder: Some(Ladder::from(Level::Linearizable)),
            fence: self.fenced,
            ..ReadOptions::default()
        };
        caller
            .call(ask, async {
                let got = client.get_with(name(key), options).await?;
                let value = got.entry.map(|entry| number(&entry.value));
                Ok(Told::Done(json!(value), ()))
            })
            .await;
    }
}

#[async_trait]
impl Workload for Fence {
    /// A second copy of a write would be a second write.
    fn retries(&self) -> bool {
        false
    }

    async fn step(&self, caller: &mut Caller) {
        if caller.random.percent(40) {
            let newest = self.newest.load(Ordering::Relaxed);
            let back = caller.random.below(RECENT_KEYS as usize) as i64;
            return self.read(caller, (newest - back).max(0)).await;
        }
        let key = self.newest.fetch_add(1, Ordering::Relaxed) + 1;
        if self.write(caller, key).await {
            for _ in 0..READS {
                self.read(caller, key).await;
            }
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
