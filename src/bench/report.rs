//! What was measured: counts, and latencies in a histogram of three significant digits.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Different error messages that are kept apart; further ones only count.
const ERROR_KINDS_MAX: usize = 16;
/// Longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(86_400);
/// Digits of a latency that are kept.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Takes down the requests of one client.
#[derive(Clone, Debug)]
pub struct Recorder {
    latency_us: Histogram<u64>,
    errors: u64,
    messages: BTreeMap<String, u64>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            latency_us: Histogram::new(SIGNIFICANT_DIGITS)
                .expect("three digits are what the histogram takes"),
            errors: 0,
            messages: BTreeMap::new(),
        }
    }
}

impl Recorder {
    /// A request that succeeded after so long.
    pub fn succeeded(&mut self, latency: Duration) {
        let micros = latency.min(LATENCY_MAX).as_micros() as u64;
        self.latency_us
            .record(micros.max(1))
            .expect("the histogram grows to take in any latency up to the longest");
    }

    /// A request that failed.
    pub fn failed(&mut self, message: String) {
        self.errors += 1;
        self.note(message, 1);
    }

    fn note(&mut self, message: String, times: u64) {
        if self.messages.len() < ERROR_KINDS_MAX || self.messages.contains_key(&message) {
            *self.messages.entry(message).or_default() += times;
        }
    }

    /// Takes over what another one has.
    pub fn merge(&mut self, other: Self) {
        self.latency_us
            .add(&other.latency_us)
            .expect("a histogram that resizes takes in any other of the same digits");
        self.errors += other.errors;
        for (message, times) in other.messages {
            self.note(message, times);
        }
    }

    /// Closes the record.
    pub fn report(self, elapsed: Duration) -> Report {
        let quantile = |q| self.latency_us.value_at_quantile(q);
        let ops = self.latency_us.len();
        let mut messages: Vec<(String, u64)> = self.messages.into_iter().collect();
        messages.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        Report {
            ops,
            errors: self.errors,
            ops_per_second: ops as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE),
            elapsed,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: self.latency_us.max(),
            mean_us: self.latency_us.mean(),
            messages,
        }
    }
}

/// The result of a measurement. Latencies are those of requests that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Requests that succeeded.
    pub ops: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Successes over the time that was measured.
    pub ops_per_second: f64,
    /// From the first request that counts to the last answer.
    pub elapsed: Duration,
    /// Half of the requests took at most so long.
    pub p50_us: u64,
    /// 90 of 100.
    pub p90_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// 999 of 1,000.
    pub p999_us: u64,
    /// The slowest.
    pub max_us: u64,
    /// The mean.
    pub mean_us: f64,
    /// What errors said, the most frequent first.
    pub messages: Vec<(String, u64)>,
}

impl Report {
    /// As JSON; callers add what they know of the setup.
    pub fn json(&self) -> Value {
        json!({
            "ops": self.ops,
            "errors": self.errors,
            "ops_per_s": rounded(self.ops_per_second),
            "elapsed_s": rounded(self.elapsed.as_secs_f64()),
            "latency_us": {
                "p50": self.p50_us,
                "p90": self.p90_us,
                "p99": self.p99_us,
                "p999": self.p999_us,
                "max": self.max_us,
                "mean": rounded(self.mean_us),
            },
        })
    }
}

/// To a tenth: further digits are noise.
fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_fields_of_the_interface() {
        let mut one = Recorder::default();
        for micros in 1..=1000 {
            one.succeeded(Duration::from_micros(micros));
        }
        let mut other = Recorder::default();
        other.failed("no".to_owned());
        other.failed("no".to_owned());
        one.merge(other);
        let report = one.report(Duration::from_secs(2));
        assert_eq!(report.messages, [("no".to_owned(), 2)]);
        let json = report.json();
        assert_eq!(json["ops"], 1000);
        assert_eq!(json["errors"], 2);
        assert_eq!(json["ops_per_s"], 500.0);
        assert_eq!(json["latency_us"]["p50"], 500);
        assert_eq!(json["latency_us"]["p99"], 990);
        assert_eq!(json["latency_us"]["p999"], 999);
        assert_eq!(json["latency_us"]["max"], 1000);
    }

    #[test]
    fn messages_are_bounded() {
        let mut recorder = Recorder::default();
        for n in 0..1000 {
            recorder.failed(format!("message {n}"));
        }
        let report = recorder.report(Duration::from_secs(1));
        assert_eq!(
            (report.errors, report.messages.len()),
            (1000, ERROR_KINDS_MAX)
        );
    }
}
