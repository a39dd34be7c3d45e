//! Copies of writes on their way to other nodes. While a message to a node is under way, what is
//! to follow of the same range waits, and then goes in one message: under load one message, one
//! request to the receiver's log and one answer serve many writes.
//!
//! Not here: which nodes a write goes to, and when it has enough holders (`spread`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::internal::{
    Stores, StoresTaken, eventual_request::Request, eventual_response::Response,
};
use quorate_types::{NodeId, RangeId};
use tokio::time::Instant;

use crate::node::Inner;
use crate::seam::PeerFailure;
use crate::spread::Spreading;

/// A holder that has not stored a write after this is taken for unreachable.
const STORE_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages of one lane that are under way at once.
const MESSAGES_UNDER_WAY_MAX: usize = 16;
/// A message follows the one that is under way if it would be full, or if that one takes this
/// long: the node is far then, rather than busy.
const FAR_AFTER: Duration = Duration::from_millis(10);
/// A write whose client waits for no other holder waits so long for others to go with it: each
/// message costs its receiver a sync.
const COMPANY_PATIENCE: Duration = Duration::from_millis(1);
/// Writes in one message: their receiver takes them in while others wait for the replica.
const BATCH_STORES_MAX: usize = 128;
/// Bytes in one message; the write that crosses it is the last.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// Writes that wait for one lane; past it a node is taken for unreachable.
const WAITING_STORES_MAX: usize = 16_384;
/// Bytes of them.
const WAITING_BYTES_MAX: usize = 32 << 20;
/// Answers that are handed on before others get their turn.
const ANSWERS_AT_ONCE_MAX: usize = 64;

/// Whose writes go together: those of one range to one node that are answered at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LaneName {
    to: NodeId,
    range: RangeId,
    memory: bool,
}

struct Waiting {
    write: Arc<Spreading>,
    since: Instant,
}

/// When a sender takes what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Now,
    /// After [`COMPANY_PATIENCE`].
    Soon,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    senders: usize,
    /// A sender has begun, and not looked yet.
    coming: Option<Start>,
    /// When the last message went.
    sent: Option<Instant>,
}

impl Lane {
    fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_STORES_MAX && self.bytes < WAITING_BYTES_MAX
    }

    /// Whether one more sender is to begin.
    fn begin_sender(&mut self, start: Start) -> bool {
        let is_coming = self.coming == Some(Start::Now) || self.coming == Some(start);
        let is_full = self.waiting.len() >= BATCH_STORES_MAX || self.bytes >= BATCH_BYTES_MAX;
        let is_far = self.sent.is_some_and(|sent| sent.elapsed() >= FAR_AFTER);
        let may_send = self.senders == usize::from(self.coming.is_some()) || is_full || is_far;
        let begins = !is_coming && may_send && self.senders < MESSAGES_UNDER_WAY_MAX;
        if begins {
            self.senders += 1;
            self.coming = Some(start);
        }
        begins
    }

    fn take(&mut self) -> Vec<Waiting> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_STORES_MAX
            && bytes < BATCH_BYTES_MAX
            && let Some(next) = self.waiting.pop_front()
        {
            bytes += next.write.bytes();
            batch.push(next);
        }
        self.bytes -= bytes;
        // Without gaps in between, the receiver's clock covers each as it comes.
        batch.sort_by_key(|waiting| waiting.write.dot);
        batch
    }
}

/// All lanes of a node. One that is not used takes no room.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<LaneName, Lane>>);

impl Lanes {
    /// What the next message carries; nothing: the sender ends.
    fn next(&self, name: LaneName) -> Vec<Waiting> {
        let mut lanes = self.0.lock();
        let Some(lane) = lanes.get_mut(&name) else {
            return Vec::new();
        };
        lane.coming = None;
        let batch = lane.take();
        lane.sent = Some(Instant::now());
        if batch.is_empty() {
            lane.senders -= 1;
            if lane.senders == 0 {
                lanes.remove(&name);
            }
        }
        batch
    }
}

impl Inner {
    /// Sends a write to a node, which is told to it when it has answered, or does not.
    pub(crate) fn send_store(self: &Arc<Self>, to: NodeId, write: Arc<Spreading>) {
        let name = LaneName {
            to,
            range: write.range,
            memory: write.memory,
        };
        let mut lanes = self.lanes.0.lock();
        let lane = lanes.entry(name).or_default();
        if !lane.has_room() {
            drop(lanes);
            return write.answered(self, to, Err(&PeerFailure::NotSent(to)));
        }
        lane.bytes += write.bytes();
        let start = match write.is_awaited {
            true => Start::Now,
            false => Start::Soon,
        };
        let since = Instant::now();
        lane.waiting.push_back(Waiting { write, since });
        let begins = lane.begin_sender(start);
        drop(lanes);
        if begins {
            tokio::spawn(self.clone().send_stores(name, start));
        }
    }

    /// Sends what waits, message by message, until nothing does.
    async fn send_stores(self: Arc<Self>, name: LaneName, start: Start) {
        // Writes whose sync ended together come one after the other: all take the same message.
        match start {
            Start::Now => tokio::task::yield_now().await,
            Start::Soon => tokio::time::sleep(COMPANY_PATIENCE).await,
        }
        loop {
            let mut batch = self.lanes.next(name);
            if batch.is_empty() {
                return;
            }
            let late = |waiting: &Waiting| waiting.since.elapsed() >= STORE_TIMEOUT;
            let given_up: Vec<_> = batch.extract_if(.., |waiting| late(waiting)).collect();
            let failure = Err(PeerFailure::NotSent(name.to));
            self.tell(name, given_up, &failure).await;
            if !batch.is_empty() {
                let taken = self.ask_to_store(name, &batch).await;
                if let (Ok(_), Some(first)) = (&taken, batch.first()) {
                    self.copy_latencies.answered(name.to, first.since.elapsed());
                }
                self.tell(name, batch, &taken).await;
            }
        }
    }

    async fn ask_to_store(
        &self,
        LaneName { to, range, memory }: LaneName,
        batch: &[Waiting],
    ) -> Result<StoresTaken, PeerFailure> {
        let stores = batch.iter().map(|waiting| waiting.write.store());
        let request = Request::Stores(Stores {
            stores: stores.collect(),
            memory,
        });
        match self.ask(to, range, request, STORE_TIMEOUT).await? {
            Response::StoresTaken(taken) => Ok(taken),
            _ => Err(PeerFailure::NoAnswer(to)),
        }
    }

    /// Tells writes what became of their copies.
    async fn tell(
        self: &Arc<Self>,
        LaneName { to, range, .. }: LaneName,
        batch: Vec<Waiting>,
        taken: &Result<StoresTaken, PeerFailure>,
    ) {
        if let Err(error) = taken
            && !batch.is_empty()
        {
            tracing::debug!(%range, %error, writes = batch.len(), "writes were not taken");
        }
        for (place, waiting) in batch.iter().enumerate() {
            let refused = taken.as_ref().ok().and_then(|taken| {
                let mut refused = taken.refused.iter();
                refused.find(|refused| usize::try_from(refused.place) == Ok(place))
            });
            let refused = refused.map(|refused| PeerFailure::Refused {
                node: to,
                problem: refused.problem.clone(),
            });
            let answer = match (taken, &refused) {
                (Err(failure), _) | (Ok(_), Some(failure)) => Err(failure),
                (Ok(taken), None) => Ok(taken.primary),
            };
            waiting.write.answered(self, to, answer);
            if (place + 1) % ANSWERS_AT_ONCE_MAX == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}
