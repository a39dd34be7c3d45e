//! A lock made of compare-and-set, with a lease that its clients keep by their own clock, around a
//! list in another key of the same range: the holder reads the list, and writes it back with one
//! element more. A holder that is held up past its lease does not know that it has lost the lock.
//! Its fencing token, the lock's revision, is compared where the list is written; the control
//! leaves that out, and loses elements that were acknowledged.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use quorate_client::{
    CasOutcome, Client, ClientError, Entry, Expect, Operation, Txn, WriteOptions,
};
use quorate_jepsen::{Model, Options};
use quorate_types::Revision;
use serde_json::{Value as Json, json};

use super::Workload;
use super::keys::Keys;
use crate::caller::{Ask, Caller, Told};

const STRAYS_PERCENT: usize = 15;
const LOCK: &str = "lock";
pub(super) const LIST: &str = "lock/list";
/// Shorter than calls may hang.
const LEASE: Duration = Duration::from_millis(400);
/// How long a holder takes between reading and writing.
const THINKS: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(20));
/// And how long one does that is held up, as by the collection of its garbage: so many of a hundred.
const HELD_UP: (Duration, Duration) = (Duration::from_millis(450), Duration::from_millis(1200));
const HELD_UP_PERCENT: usize = 6;
/// As the lock's value: until then nobody else may take it, milliseconds of the run; 0: it is free.
const FREE: u64 = 0;

/// The workload.
pub(super) struct Lock {
    fenced: bool,
    keys: Keys,
    begin: Instant,
}

impl Lock {
    pub(super) fn new(fenced: bool) -> Self {
        Self {
            fenced,
            keys: Keys::new(1, u64::MAX),
            begin: Instant::now(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Takes the lock, if it is free or its lease is over; gives the token.
    async fn acquire(&self, client: &Client) -> Result<Option<Revision>, ClientError> {
        let entry = client.get(LOCK).await?.entry;
        let until = entry.as_ref().map_or(FREE, until);
        if self.now_ms() < until {
            return Ok(None);
        }
        let expect = entry.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
        let until = self.now_ms() + LEASE.as_millis() as u64;
        let set = client.compare_and_set(LOCK, expect, until.to_string(), usual());
        Ok(match set.await? {
            CasOutcome::Done(written) => Some(written.revision),
            CasOutcome::Refused { .. } => None,
        })
    }

    async fn release(client: &Client, token: Revision) {
        let expect = Expect::Revision(token);
        let set = client.compare_and_set(LOCK, expect, FREE.to_string(), usual());
        // If it is not free now, it is when its lease is over.
        let _ = set.await;
    }

    /// Reads the list and writes it with one element more, as the holder of a token.
    async fn add(
        &self,
        client: &Client,
        token: Revision,
        element: i64,
        thinks: Duration,
    ) -> Result<Told<()>, ClientError> {
        // Nothing was written yet, whatever became of the reading.
        let Ok(got) = client.get(LIST).await else {
            return Ok(Told::Refused);
        };
        let mut list = got.entry.as_ref().map(list).unwrap_or_default();
        list.push(element);
        tokio::time::sleep(thinks).await;
        let text = json!(list).to_string();
        if !self.fenced {
            client.put_with(LIST, text, usual()).await?;
            return Ok(Told::Done(json!(element), ()));
        }
        let txn = Txn::default()
            .compare(LOCK, Expect::Revision(token))
            .then(Operation::put(LIST, text));
        Ok(match client.txn(txn, usual()).await?.succeeded {
            true => Told::Done(json!(element), ()),
            false => Told::Refused,
        })
    }
}

/// Reads the list at some node.
pub(super) async fn read(caller: &mut Caller, strays_percent: usize) {
    let client = caller.client(strays_percent);
    let ask = Ask {
        f: "read",
        key: None,
        value: Json::Null,
    };
    let read = caller.call(ask, async {
        let entry = client.get(LIST).await?.entry;
        let list = entry.as_ref().map(list).unwrap_or_default();
        Ok(Told::Done(json!(list), ()))
    });
    read.await;
}

fn usual() -> WriteOptions {
    WriteOptions::default()
}

fn until(entry: &Entry) -> u64 {
    let text = std::str::from_utf8(&entry.value).unwrap_or_default();
    text.parse().unwrap_or(FREE)
}

pub(super) fn list(entry: &Entry) -> Vec<i64> {
    // What cannot be read is told as an element that nobody added.
    serde_json::from_slice(&entry.value).unwrap_or_else(|_| vec![i64::MIN])
}

#[async_trait]
impl Workload for Lock {
    async fn step(&self, caller: &mut Caller) {
        if caller.random.percent(10) {
            return read(caller, STRAYS_PERCENT).await;
        }
        let client = caller.client(STRAYS_PERCENT);
        // Who does not get the lock does nothing that could be right or wrong.
        let Ok(Some(token)) = self.acquire(&client).await else {
            return;
        };
        let element = self.keys.value();
        let ask = Ask {
            f: "add",
            key: None,
            value: json!(element),
        };
        let (least, most) = match caller.random.percent(HELD_UP_PERCENT) {
            true => HELD_UP,
            false => THINKS,
        };
        let thinks = caller.random.between(least, most);
        caller
            .call(ask, self.add(&client, token, element, thinks))
            .await;
        Self::release(&client, token).await;
    }

    async fn finish(&self, caller: &mut Caller) {
        read(caller, STRAYS_PERCENT).await;
    }

    fn model(&self) -> (Model, Options) {
        set_without_stale_reads()
    }
}

/// Nothing that was added is lost, and each read is as of a moment while it was under way.
pub(super) fn set_without_stale_reads() -> (Model, Options) {
    let options = Options {
        consistency: Some("linearizable".to_owned()),
        ..Options::default()
    };
    (Model::SetFull, options)
}
