//! What a comparison came to, as plain values: `results.json` is this, and the report is drawn of
//! nothing else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::probe::Act;
use crate::results::Outcome;

/// The form of `results.json`; another one is not read.
pub(crate) const FORMAT: u32 = 1;

/// All that is known of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub(crate) format: u32,
    pub(crate) outcome: String,
    /// What is wrong with the store.
    pub(crate) breaches: Vec<String>,
    /// Why the run does not tell.
    pub(crate) doubts: Vec<String>,
    pub(crate) setup: Setup,
    pub(crate) cut: CutTold,
    /// Levels, reads first; each with the majority's side, then the minority's.
    pub(crate) rows: Vec<Row>,
    pub(crate) ledger: LedgerTold,
    pub(crate) repair: Repair,
    /// After the heal: how long until all nodes served by themselves and held the same; none: it
    /// was not waited for, or did not come.
    pub(crate) recovered_ms: Option<f64>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The store, with its version where it has one.
    pub(crate) target: String,
    pub(crate) nodes: usize,
    pub(crate) replication: usize,
    pub(crate) hosts: String,
    pub(crate) seed: u64,
    pub(crate) rate_per_second: f64,
    /// A call that is not answered within this has failed.
    pub(crate) timeout_ms: u64,
    /// What the numbers must be read with.
    pub(crate) remarks: Vec<String>,
    /// The command that does the same again.
    pub(crate) command: String,
    pub(crate) took_ms: u64,
}

/// The cut, and the time around it, in milliseconds since what counts began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CutTold {
    pub(crate) begin_ms: f64,
    pub(crate) end_ms: f64,
    pub(crate) whole_ms: f64,
    /// Nodes of the side with the majority, then of the other.
    pub(crate) sides: [Vec<usize>; 2],
    pub(crate) primaries: Vec<usize>,
    /// Who led when it was cut.
    pub(crate) leader: Option<usize>,
    /// How it is known to have happened.
    pub(crate) proof: Option<String>,
}

/// One level.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) act: Act,
    pub(crate) level: String,
    /// Rungs of its ladder.
    pub(crate) rungs: usize,
    pub(crate) sides: [Part; 2],
    /// Of writes.
    pub(crate) written: Option<WrittenTold>,
}

/// What became of one level's writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WrittenTold {
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    /// Keys that both sides wrote.
    pub(crate) contended_keys: usize,
    /// Of these, those that had several values in the end.
    pub(crate) conflicts: usize,
}

/// One level on one side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// Before, during and after the cut.
    pub(crate) phases: [Phase; 3],
    /// From the cut, from the heal, to the end of the first call that began after it and was
    /// served; none: there was none.
    pub(crate) first_after_cut_ms: Option<f64>,
    pub(crate) first_after_heal_ms: Option<f64>,
    /// The longest stretch of the cut in which no call was served.
    pub(crate) silence_ms: f64,
    /// Of reads, in all phases: behind writes that a majority decides, and behind those that any
    /// node takes.
    pub(crate) behind: [Option<BehindTold>; 2],
    /// What was the matter with calls that were not served.
    pub(crate) problems: BTreeMap<String, u64>,
    pub(crate) course: Course,
}

/// What calls of one phase came to. Latencies are those of calls that were served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) calls: u64,
    /// By rung of the ladder.
    pub(crate) done: Vec<u64>,
    pub(crate) refused: u64,
    pub(crate) silent: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

impl Phase {
    /// The share of calls that were served; none if there were none.
    pub(crate) fn served(&self) -> Option<f64> {
        let done: u64 = self.done.iter().sum();
        (self.calls > 0).then(|| done as f64 / self.calls as f64)
    }
}

/// How far reads were behind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BehindTold {
    pub(crate) reads: u64,
    /// Reads that were behind at all.
    pub(crate) stale: u64,
    pub(crate) p50_ms: f64,
    pub(crate) max_ms: f64,
    pub(crate) max_versions: usize,
}

/// Calls over time, by slices of when they began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Course {
    pub(crate) slice_ms: u64,
    /// Served on the first rung, and on lower ones.
    pub(crate) done: Vec<u32>,
    pub(crate) lower: Vec<u32>,
    pub(crate) refused: Vec<u32>,
    pub(crate) silent: Vec<u32>,
    /// Of those that were served.
    pub(crate) p50_ms: Vec<Option<f64>>,
    pub(crate) max_ms: Vec<Option<f64>>,
    /// The oldest read, behind strong writes and behind eventual ones.
    pub(crate) behind_ms: [Vec<Option<f64>>; 2],
}

/// What was written, and what of it was found in the end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LedgerTold {
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    /// Values that were read though nobody wrote them.
    pub(crate) from_nowhere: usize,
    /// Keys that were read in the end, and reads of them.
    pub(crate) keys: usize,
    pub(crate) last_reads: usize,
    pub(crate) conflicts: usize,
}

/// What it took to bring both sides together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Repair {
    /// Bytes by what moved them, from the beginning to the end; empty: the store does not tell.
    pub(crate) bytes: BTreeMap<String, u64>,
}

impl Repair {
    pub(crate) fn total_bytes(&self) -> u64 {
        self.bytes.values().sum()
    }
}

impl Comparison {
    /// What it says of the store.
    pub fn outcome(&self) -> Outcome {
        match (self.breaches.is_empty(), self.doubts.is_empty()) {
            (false, _) => Outcome::Broken,
            (true, false) => Outcome::Open,
            (true, true) => Outcome::Held,
        }
    }

    /// What is wrong with the store.
    pub fn breaches(&self) -> &[String] {
        &self.breaches
    }

    /// Why the run does not tell.
    pub fn doubts(&self) -> &[String] {
        &self.doubts
    }

    /// For programs: `results.json`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("all of it are plain values with texts as names")
    }

    /// What `results.json` holds.
    ///
    /// # Errors
    ///
    /// In words: it is not JSON, or not of this form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let comparison: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match comparison.format {
            FORMAT => Ok(comparison),
            other => Err(format!("its form is {other}, and {FORMAT} is read here")),
        }
    }
}
