//! Values that expire, each replaced at once by one that does not: what replaced them stays, and
//! replicas agree on what went. A client has keys of its own, and reads one only while its last
//! value is one that stays: who finds less has lost it.

use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use serde_json::{Value as Json, json};

use super::Client;
use crate::ask::{Asked, Level, name, text};
use crate::history::End;

/// Keys of one client, and how far they are from another's.
const KEYS: u64 = 3;
const KEYS_APART: i64 = 4;
/// Longest life of what expires.
const LIFE_MAX_MILLIS: u64 = 900;

/// The last number of a key that was tried, and whether the key's value is known to stay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last {
    version: i64,
    stays: bool,
}

impl Client {
    pub(super) async fn expiring(&mut self) {
        let key = self.number as i64 * KEYS_APART + self.dice.below(KEYS) as i64;
        let life = 100 + self.dice.below(LIFE_MAX_MILLIS - 100);
        match self.dice.below(100) {
            0..15 => {
                self.write_for(key, life).await;
            }
            15..55 => {
                if self.write_for(key, life).await && self.write_for(key, 0).await {
                    self.lasts.entry(key).or_default().stays = true;
                }
            }
            _ if self.lasts.get(&key).is_some_and(|last| last.stays) => {
                self.read_lasting(key).await;
            }
            _ => {
                if self.write_for(key, 0).await {
                    self.lasts.entry(key).or_default().stays = true;
                }
            }
        }
    }

    /// Writes a key's next number, for so many milliseconds; 0: for good.
    async fn write_for(&mut self, key: i64, ttl_ms: u64) -> bool {
        let (at, within) = (self.node(), self.within());
        let last = self.lasts.entry(key).or_default();
        last.version += 1;
        last.stays = false;
        let version = last.version;
        let call = self.call("write", key, json!(version));
        let request = Request::Put(v1::PutRequest {
            keyspace: self.tape.work().keyspace().to_owned(),
            key: name(key),
            value: text(version),
            consistency: Level::Linearizable.wire(),
            ttl_ms,
            request_id: Some(self.next_name(at)),
            ..v1::PutRequest::default()
        });
        let (end, told) = match self.world.ask(at, within, request).await {
            Asked::Done(Response::Put(_)) => {
                (End::Ok, json!({"value": version, "version": version}))
            }
            Asked::Refused => (End::Fail, Json::Null),
            Asked::Done(_) | Asked::Unknown => (End::Unknown, Json::Null),
        };
        self.end(&call, end, &told);
        end == End::Ok
    }

    async fn read_lasting(&mut self, key: i64) {
        let (at, within) = (self.node(), self.within());
        let call = self.call("read", key, Json::Null);
        let read = self
            .world
            .read(at, self.place(key), Level::Linearizable, within);
        let (end, told) = match read.await {
            Asked::Done(seen) => {
                let value = seen.values.first().copied();
                let told = json!({"value": value, "version": value.unwrap_or(0)});
                (End::Ok, told)
            }
            // A read that ends with nothing to tell leaves nothing open.
            Asked::Refused | Asked::Unknown => (End::Fail, Json::Null),
        };
        self.end(&call, end, &told);
    }
}
