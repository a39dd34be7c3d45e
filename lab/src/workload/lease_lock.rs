//! The client library's lock, a key that goes with its holder's lease, around a list in another key:
//! the holder reads the list, and writes it back with one element more. Some holders are held up
//! past their lease, as a process is that stands still: nobody keeps the lease meanwhile, the next
//! holder works, and then they write what they had prepared. The fencing token is demanded by the
//! write; the control leaves that out, and loses elements that were acknowledged.

use std::time::Duration;

use async_trait::async_trait;
use quorate_client::{Client, ClientError, Fence, Fenced, WriteOptions};
use quorate_jepsen::{Model, Options};
use serde_json::json;

use super::Workload;
use super::keys::Keys;
use super::lock::{LIST, list, read, set_without_stale_reads};
use crate::caller::{Ask, Caller, Told};

const STRAYS_PERCENT: usize = 15;
const LOCK: &str = "lease-lock";
/// The shortest that there is.
const TTL: Duration = Duration::from_secs(1);
/// How long one waits for the lock before it does something else.
const WAIT: Duration = Duration::from_millis(500);
/// How long a holder takes between reading and writing.
const THINKS: (Duration, Duration) = (Duration::ZERO, Duration::from_millis(20));
/// And how long one does that is held up: so many of a hundred. A lease that nobody keeps may stay
/// up to two seconds longer than its time.
const HELD_UP: (Duration, Duration) = (Duration::from_millis(1_200), Duration::from_millis(3_000));
const HELD_UP_PERCENT: usize = 10;

/// The workload.
pub(super) struct LeaseLock {
    fenced: bool,
    keys: Keys,
}

impl LeaseLock {
    pub(super) fn new(fenced: bool) -> Self {
        Self {
            fenced,
            keys: Keys::new(1, u64::MAX),
        }
    }

    /// Reads the list and writes it with one element more, as the holder of a lock.
    async fn add(
        &self,
        client: &Client,
        fence: &Fence,
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
            client.put_with(LIST, text, WriteOptions::default()).await?;
            return Ok(Told::Done(json!(element), ()));
        }
        let put = client.put_fenced(fence, LIST, text, WriteOptions::default());
        Ok(match put.await? {
            Fenced::Done { .. } => Told::Done(json!(element), ()),
            Fenced::MovedOn { .. } => Told::Refused,
        })
    }
}

#[async_trait]
impl Workload for LeaseLock {
    async fn step(&self, caller: &mut Caller) {
        if caller.random.percent(10) {
            return read(caller, STRAYS_PERCENT).await;
        }
        let client = caller.client(STRAYS_PERCENT);
        // Who does not get the lock does nothing that could be right or wrong.
        let Ok(Some(held)) = client.lock(LOCK, "a caller", TTL, WAIT).await else {
            return;
        };
        let fence = held.fence.clone();
        let element = self.keys.value();
        let ask = Ask {
            f: "add",
            key: None,
            value: json!(element),
        };
        let is_held_up = caller.random.percent(HELD_UP_PERCENT);
        let (kept, (least, most)) = if is_held_up {
            // A process that stands still keeps no lease: it is left to its time.
            drop(held);
            (None, HELD_UP)
        } else {
            (Some(held), THINKS)
        };
        let thinks = caller.random.between(least, most);
        let add = self.add(&client, &fence, element, thinks);
        caller.call(ask, add).await;
        if let Some(held) = kept {
            // If it is not free now, it is when its lease is over.
            let _ = held.unlock().await;
        }
    }

    async fn finish(&self, caller: &mut Caller) {
        read(caller, STRAYS_PERCENT).await;
    }

    fn model(&self) -> (Model, Options) {
        set_without_stale_reads()
    }
}
