//! What requests took lately, by level: a sample of gets and puts, for `explain`.
//!
//! Not here: the histograms that are exported (`metrics`), which never forget.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::v1::{self, pipeline_response::Response};

/// One request of so many is remembered.
const SAMPLE_EVERY: u32 = 8;
/// Requests of one kind that are remembered.
const RECENT_MAX: usize = 256;

/// Which requests are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// A put; else a get.
    pub(crate) is_put: bool,
    level: i32,
    copies: i32,
    copies_count: u32,
    strict: bool,
}

impl Kind {
    pub(crate) fn of(is_put: bool, rung: &v1::Rung) -> Kind {
        Kind {
            is_put,
            level: rung.level,
            copies: rung.copies,
            copies_count: rung.copies_count,
            strict: rung.strict,
        }
    }
}

/// Recent requests of one gateway.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    turn: AtomicU32,
    recent: Mutex<HashMap<Kind, VecDeque<Duration>>>,
}

impl Costs {
    /// A request was served.
    pub(crate) fn served(&self, response: &Response, took: Duration) {
        let (is_put, receipt) = match response {
            Response::Get(get) => (false, &get.receipt),
            Response::Put(put) => (true, &put.receipt),
            Response::Delete(_)
            | Response::Scan(_)
            | Response::Batch(_)
            | Response::CompareAndSet(_)
            | Response::Txn(_)
            | Response::History(_)
            | Response::Outcome(_)
            | Response::Update(_)
            | Response::AwaitConverged(_)
            | Response::LeaseGrant(_)
            | Response::LeaseKeepAlive(_)
            | Response::LeaseRevoke(_)
            | Response::LeaseShow(_)
            | Response::Error(_) => return,
        };
        if !self
            .turn
            .fetch_add(1, Ordering::Relaxed)
            .is_multiple_of(SAMPLE_EVERY)
        {
            return;
        }
        let Some(rung) = receipt.as_ref().and_then(|receipt| receipt.level.as_ref()) else {
            return;
        };
        let mut recent = self.recent.lock();
        let recent = recent.entry(Kind::of(is_put, rung)).or_default();
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(took);
    }

    /// What is remembered of a kind.
    pub(crate) fn recent(&self, kind: Kind) -> Vec<Duration> {
        let recent = self.recent.lock();
        recent.get(&kind).into_iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_kept_apart_and_old_requests_go() {
        let costs = Costs::default();
        let rung = |level: v1::Level| v1::Rung {
            level: level as i32,
            ..v1::Rung::default()
        };
        let get = |level, micros| {
            let receipt = Some(v1::Receipt {
                level: Some(rung(level)),
                ..v1::Receipt::default()
            });
            let get = v1::GetResponse {
                receipt,
                ..v1::GetResponse::default()
            };
            costs.served(&Response::Get(get), Duration::from_micros(micros));
        };
        for _ in 0..RECENT_MAX * SAMPLE_EVERY as usize {
            get(v1::Level::Stale, 1);
        }
        for _ in 0..RECENT_MAX * SAMPLE_EVERY as usize {
            get(v1::Level::Linearizable, 9);
        }
        let recent = |level| costs.recent(Kind::of(false, &rung(level)));
        assert_eq!(
            recent(v1::Level::Stale),
            [Duration::from_micros(1); RECENT_MAX]
        );
        assert_eq!(recent(v1::Level::Linearizable).len(), RECENT_MAX);
        assert!(recent(v1::Level::Bounded).is_empty());
    }
}
