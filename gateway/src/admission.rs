//! The edge: how many requests, and how many bytes of them, one node works on at a time. Past a
//! limit the answer is `RESOURCE_EXHAUSTED` with a delay, before any work is done.
//!
//! Counters only, no queue: whoever is refused comes again. Not here: limits of one stream
//! (`pipeline`), and what a range's log can take (its own refusal passes through).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quorate_types::Effect;

use crate::errors::GatewayError;

/// Requests in work on one node, unless configured otherwise.
pub const REQUESTS_MAX_DEFAULT: usize = 16_384;
/// Bytes of requests in work on one node, unless configured otherwise.
pub const REQUEST_BYTES_MAX_DEFAULT: usize = 256 << 20;
/// Bytes of large answers that clients have not taken yet, unless configured otherwise.
pub const ANSWER_BYTES_MAX_DEFAULT: usize = 256 << 20;
/// Events in one message of a watch, unless configured otherwise.
pub const WATCH_EVENTS_MAX_DEFAULT: usize = 1024;

/// The limits of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in work.
    pub requests_max: usize,
    /// Bytes of keys and values of requests in work.
    pub request_bytes_max: usize,
    /// Bytes of large answers not yet taken.
    pub answer_bytes_max: usize,
    /// Events in one message of a watch.
    pub watch_events_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_max: REQUESTS_MAX_DEFAULT,
            request_bytes_max: REQUEST_BYTES_MAX_DEFAULT,
            answer_bytes_max: ANSWER_BYTES_MAX_DEFAULT,
            watch_events_max: WATCH_EVENTS_MAX_DEFAULT,
        }
    }
}

/// What is in work now.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    request_bytes: AtomicUsize,
    answer_bytes: AtomicUsize,
}

/// The gate of one node.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Limits,
    counts: Arc<Counts>,
}

/// Room for one request; given back when dropped.
#[derive(Debug)]
pub struct Admitted {
    counts: Arc<Counts>,
    bytes: usize,
}

/// Room for one large answer; given back when dropped.
#[derive(Debug)]
pub struct AnswerRoom {
    counts: Arc<Counts>,
    bytes: usize,
}

impl Admission {
    /// An empty gate.
    pub fn new(limits: Limits) -> Admission {
        Admission {
            limits,
            counts: Arc::default(),
        }
    }

    /// Admits a request of that many bytes. One that finds the gate empty always passes, so no
    /// request is too large for ever.
    ///
    /// # Errors
    ///
    /// `OVERLOADED`: a limit would be crossed.
    pub fn admit(&self, bytes: usize) -> Result<Admitted, GatewayError> {
        let requests = self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let queued = self
            .counts
            .request_bytes
            .fetch_add(bytes, Ordering::Relaxed);
        // From here on the guard gives both back.
        let admitted = Admitted {
            counts: Arc::clone(&self.counts),
            bytes,
        };
        if requests >= self.limits.requests_max {
            return Err(overloaded(
                "the number of requests in work",
                self.limits.requests_max,
                "requests",
            ));
        }
        if queued > 0 && queued + bytes > self.limits.request_bytes_max {
            let max = self.limits.request_bytes_max;
            return Err(overloaded("the size of requests in work", max, "bytes"));
        }
        Ok(admitted)
    }

    /// Room for a large answer until the client has taken it. `effect`: what its request did.
    ///
    /// # Errors
    ///
    /// `OVERLOADED`: clients have not taken what was answered before.
    pub fn answer(&self, bytes: usize, effect: Effect) -> Result<AnswerRoom, GatewayError> {
        let waiting = self.counts.answer_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = AnswerRoom {
            counts: Arc::clone(&self.counts),
            bytes,
        };
        if waiting > 0 && waiting + bytes > self.limits.answer_bytes_max {
            let limit = format!("{} bytes", self.limits.answer_bytes_max).into();
            let what = "the size of answers that clients have not taken";
            return Err(GatewayError::Overloaded {
                what,
                limit,
                effect,
            });
        }
        Ok(room)
    }

    /// Events in one message of a watch.
    pub fn watch_events_max(&self) -> usize {
        self.limits.watch_events_max
    }

    /// Requests in work.
    pub fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// Bytes of requests in work.
    pub fn request_bytes(&self) -> usize {
        self.counts.request_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of large answers not yet taken.
    pub fn answer_bytes(&self) -> usize {
        self.counts.answer_bytes.load(Ordering::Relaxed)
    }
}

fn overloaded(what: &'static str, max: usize, unit: &str) -> GatewayError {
    GatewayError::Overloaded {
        what,
        limit: format!("{max} {unit}").into(),
        effect: Effect::None,
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.counts.requests.fetch_sub(1, Ordering::Relaxed);
        self.counts
            .request_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Drop for AnswerRoom {
    fn drop(&mut self) {
        self.counts
            .answer_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn gate() -> Admission {
        Admission::new(Limits {
            requests_max: 2,
            request_bytes_max: 100,
            answer_bytes_max: 100,
            ..Limits::default()
        })
    }

    #[test]
    fn the_count_is_limited_and_given_back() {
        let gate = gate();
        let first = gate.admit(1).unwrap();
        let _second = gate.admit(1).unwrap();
        let refused = gate.admit(1).unwrap_err();
        assert!(refused.to_string().contains("2 requests"));
        assert_eq!((gate.requests(), gate.request_bytes()), (2, 2));
        drop(first);
        assert!(gate.admit(1).is_ok());
    }

    #[test]
    fn bytes_are_limited_but_a_single_large_request_passes() {
        let gate = gate();
        let large = gate.admit(1000).unwrap();
        assert!(gate.admit(1).unwrap_err().to_string().contains("100 bytes"));
        drop(large);
        assert!(gate.admit(1).is_ok());
        assert_eq!((gate.requests(), gate.request_bytes()), (0, 0));
    }

    #[test]
    fn answers_wait_for_their_readers() {
        let gate = gate();
        let untaken = gate.answer(90, Effect::None).unwrap();
        assert!(gate.answer(20, Effect::Applied).is_err());
        drop(untaken);
        assert!(gate.answer(20, Effect::Applied).is_ok());
        assert_eq!(gate.answer_bytes(), 0);
    }
}
