//! Sessions that hop over nodes, levels and planes with their tokens. Each client writes a key of
//! its own, with numbers that rise, and reads everybody's: so the number that is read is the
//! version, whatever the level.

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use serde_json::{Value as Json, json};

use super::{Client, for_reads};
use crate::ask::{Asked, Level, name, number, text};
use crate::history::End;

/// Calls to a client's own key, percent: what a session has written itself says most.
const OWN_PERCENT: u64 = 80;

/// The token of a session that has seen nothing.
pub(super) const BEGIN: &[u8] = &[0];

impl Client {
    pub(super) async fn session(&mut self) {
        // A new client has a new key: what an old one left open may still be written to its own.
        let own = self.number as i64;
        let others = self.world.plan.clients as u64;
        match self.dice.percent(OWN_PERCENT) {
            true if self.dice.percent(50) => self.write_version(own).await,
            true => self.read_version(own).await,
            false => {
                let other = self.dice.below(others) as i64;
                self.read_version(other).await;
            }
        }
    }

    fn with_token(&self, level: Level) -> Option<v1::Consistency> {
        let session_token = self.token.clone();
        level.wire().map(|consistency| v1::Consistency {
            session_token,
            ..consistency
        })
    }

    fn remember(&mut self, receipt: Option<v1::Receipt>) {
        let token = receipt.map_or(Bytes::new(), |receipt| receipt.session_token);
        if token.is_empty() {
            self.world.accuse("an answer without its token".to_owned());
        } else {
            self.token = token;
        }
    }

    async fn read_version(&mut self, key: i64) {
        let (at, within) = (self.node(), self.within());
        let level = match self.dice.percent(50) {
            true => Level::Session,
            false => for_reads(self.eventual()),
        };
        let call = self.call("read", key, Json::Null);
        let request = Request::Get(v1::GetRequest {
            keyspace: self.tape.work().keyspace().to_owned(),
            key: name(key),
            consistency: self.with_token(level),
            at_revision: 0,
        });
        match self.world.ask(at, within, request).await {
            Asked::Done(Response::Get(got)) => {
                let entries = got.entry.iter().chain(&got.siblings);
                let highest = entries.map(|entry| number(&entry.value)).max();
                self.remember(got.receipt);
                let told = json!({"value": highest, "version": highest.unwrap_or(0)});
                self.end(&call, End::Ok, &told);
            }
            // A read that ends with nothing to tell leaves nothing open.
            Asked::Done(_) | Asked::Unknown | Asked::Refused => {
                self.end(&call, End::Fail, &Json::Null);
            }
        }
    }

    async fn write_version(&mut self, key: i64) {
        let (at, within) = (self.node(), self.within());
        let level = match self.dice.percent(50) {
            true => Level::Linearizable,
            false => self.eventual(),
        };
        let version = self.keys.value();
        let call = self.call("write", key, json!(version));
        let request = Request::Put(v1::PutRequest {
            keyspace: self.tape.work().keyspace().to_owned(),
            key: name(key),
            value: text(version),
            consistency: self.with_token(level),
            ..v1::PutRequest::default()
        });
        match self.world.ask(at, within, request).await {
            Asked::Done(Response::Put(put)) => {
                self.remember(put.receipt);
                let told = json!({"value": version, "version": version});
                self.end(&call, End::Ok, &told);
            }
            Asked::Refused => self.end(&call, End::Fail, &Json::Null),
            Asked::Done(_) | Asked::Unknown => {
                self.end(&call, End::Unknown, &Json::Null);
                self.token = Bytes::from_static(BEGIN);
            }
        }
    }
}
