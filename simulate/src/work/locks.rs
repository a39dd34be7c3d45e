//! A lock: a key that goes with its holder's lease, around a list in another key. The holder reads
//! the list, and writes it back with one element more, under the condition that the lock is still
//! its own. Some holders are held up past their lease: the next one works, and then they write what
//! they had prepared.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::expect::State;
use quorate_proto::v1::{self, operation::Operation as Kind};
use quorate_proto::v1::{pipeline_request::Request, pipeline_response::Response};
use serde_json::{Value as Json, json};

use super::Client;
use crate::ask::{Asked, Level};
use crate::history::{Call, End};
use crate::world::World;

const LOCK: &[u8] = b"lock";
const LIST: &[u8] = b"list";
/// The shortest that there is.
const TTL_MILLISECONDS: u64 = 1_000;
/// How long a holder takes between reading and writing.
const THINKS_MAX_MILLIS: u64 = 30;
/// And how long one that is held up takes, beyond its lease: so many of a hundred.
const HELD_UP_MAX_MILLIS: u64 = 2_000;
const HELD_UP_PERCENT: u64 = 10;
const READS_PERCENT: u64 = 30;

fn list(entry: Option<&v1::KeyValue>) -> Vec<i64> {
    // What cannot be read is told as an element that nobody added.
    entry.map_or(Vec::new(), |entry| {
        serde_json::from_slice(&entry.value).unwrap_or_else(|_| vec![i64::MIN])
    })
}

fn expect(key: &'static [u8], state: State) -> v1::Compare {
    v1::Compare {
        key: Bytes::from_static(key),
        expect: Some(v1::Expect { state: Some(state) }),
    }
}

fn put(key: &'static [u8], value: String, lease: u64) -> v1::Operation {
    v1::Operation {
        operation: Some(Kind::Put(v1::operation::Put {
            key: Bytes::from_static(key),
            value: Bytes::from(value),
            lease,
            ..v1::operation::Put::default()
        })),
    }
}

/// The list as a node has it, linearizable.
async fn listed(world: &World, keyspace: &str, at: usize, within: Duration) -> Option<Vec<i64>> {
    let request = Request::Get(v1::GetRequest {
        keyspace: keyspace.to_owned(),
        key: Bytes::from_static(LIST),
        consistency: Level::Linearizable.wire(),
        at_revision: 0,
    });
    match world.ask(at, within, request).await {
        Asked::Done(Response::Get(got)) => Some(list(got.entry.as_ref())),
        _ => None,
    }
}

/// A read of the list that is recorded.
pub(super) async fn read_list(
    (world, tape): (&World, &crate::history::Tape),
    client: u64,
    at: usize,
    within: Duration,
) {
    let call = Call::keyless(client, "read", Json::Null);
    tape.begin(&call);
    match listed(world, tape.work().keyspace(), at, within).await {
        Some(list) => tape.end(&call, End::Ok, &json!(list)),
        None => tape.end(&call, End::Fail, &Json::Null),
    }
}

impl Client {
    pub(super) async fn lock(&mut self) {
        if self.dice.percent(READS_PERCENT) {
            let (at, within) = (self.node(), self.within());
            return read_list((&self.world, &self.tape), self.number, at, within).await;
        }
        // Who does not get the lock does nothing that could be right or wrong.
        let Some((lease, token)) = self.acquire().await else {
            return;
        };
        let held_up = self.dice.percent(HELD_UP_PERCENT);
        let element = self.keys.value();
        let call = self.keyless_call("add", json!(element));
        let added = self.add(token, element, held_up).await;
        let end = match added {
            Asked::Done(true) => End::Ok,
            Asked::Done(false) | Asked::Refused => End::Fail,
            Asked::Unknown => End::Unknown,
        };
        self.end(&call, end, &json!(element));
        if !held_up {
            // If the lock is not free now, it is when the lease is over.
            let request = Request::LeaseRevoke(v1::LeaseRevokeRequest {
                keyspace: self.tape.work().keyspace().to_owned(),
                id: lease,
                ..v1::LeaseRevokeRequest::default()
            });
            let (at, within) = (self.node(), self.within());
            self.world.ask(at, within, request).await;
        }
    }

    /// Takes the lock with a lease of its own, if it is free. Gives the lease and the token.
    async fn acquire(&mut self) -> Option<(u64, u64)> {
        let keyspace = self.tape.work().keyspace();
        let request = Request::LeaseGrant(v1::LeaseGrantRequest {
            keyspace: keyspace.to_owned(),
            ttl_ms: TTL_MILLISECONDS,
            ..v1::LeaseGrantRequest::default()
        });
        let (at, within) = (self.node(), self.within());
        let Asked::Done(Response::LeaseGrant(granted)) = self.world.ask(at, within, request).await
        else {
            return None;
        };
        let owner = self.number.to_string();
        let request = v1::TxnRequest {
            compare: vec![expect(LOCK, State::Absent(true))],
            then: vec![put(LOCK, owner, granted.id)],
            ..self.txn()
        };
        let asked = self.world.ask(at, within, Request::Txn(request)).await;
        match asked {
            Asked::Done(Response::Txn(done)) if done.succeeded => Some((granted.id, done.revision)),
            _ => None,
        }
    }

    async fn add(&mut self, token: u64, element: i64, held_up: bool) -> Asked<bool> {
        let (at, within) = (self.node(), self.within());
        let keyspace = self.tape.work().keyspace();
        // Nothing was written yet, whatever became of the reading.
        let Some(mut list) = listed(&self.world, keyspace, at, within).await else {
            return Asked::Refused;
        };
        list.push(element);
        let pause = match held_up {
            true => TTL_MILLISECONDS + self.dice.below(HELD_UP_MAX_MILLIS),
            false => self.dice.below(THINKS_MAX_MILLIS),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let request = v1::TxnRequest {
            compare: vec![expect(LOCK, State::Revision(token))],
            then: vec![put(LIST, json!(list).to_string(), 0)],
            ..self.txn()
        };
        let (at, within) = (self.node(), self.within());
        self.succeeds(at, within, request).await
    }
}
