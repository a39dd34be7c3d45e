//! What a run came to: whether it counts, and what it says of the store.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use quorate_jepsen::Verdict;
use serde_json::{Value as Json, json};

use crate::judge::Judgement;
use crate::nemesis::Fault;
use crate::plan::Plan;
use crate::record::Counts;
use crate::recovery::Recovery;

/// What a run says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store kept its promise, and came back.
    Held,
    /// It did not.
    Broken,
    /// The run does not tell: no verdict, faults that did not happen, too few calls answered.
    Open,
}

impl Outcome {
    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Broken => "broken",
            Self::Open => "open",
        }
    }
}

/// All that is known of a run.
pub struct Results {
    pub(crate) plan: Plan,
    pub(crate) judgement: Judgement,
    pub(crate) counts: Counts,
    pub(crate) slices: Vec<Counts>,
    pub(crate) problems: BTreeMap<String, u64>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) recovery: Option<Recovery>,
    /// What the store said or did that is not as it should be, beside the recording.
    pub(crate) breaches: Vec<String>,
    pub(crate) interrupted: bool,
    pub(crate) took: Duration,
}

impl Results {
    /// What the run says of the store.
    pub fn outcome(&self) -> Outcome {
        let verdict = self.judgement.report.verdict;
        let control = self.plan.options.workload.is_control();
        let back = self.recovery.as_ref().is_none_or(Recovery::is_whole);
        match verdict {
            _ if !self.breaches.is_empty() => Outcome::Broken,
            _ if !back => Outcome::Broken,
            Verdict::Invalid if !control => Outcome::Broken,
            Verdict::Unknown => Outcome::Open,
            // A control that finds nothing tells nothing.
            Verdict::Valid if control => Outcome::Open,
            Verdict::Valid | Verdict::Invalid if !self.doubts().is_empty() => Outcome::Open,
            Verdict::Valid | Verdict::Invalid => Outcome::Held,
        }
    }

    /// Why the run does not count, whatever the verdict.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.interrupted {
            doubts.push("it was interrupted".to_owned());
        }
        for nemesis in &self.plan.options.nemeses {
            let proven = |fault: &&Fault| fault.nemesis == *nemesis && fault.proof.is_some();
            if self.faults.iter().filter(proven).count() == 0 {
                let name = nemesis.name();
                doubts.push(format!("no fault of {name} is known to have happened"));
            }
        }
        let (served, least) = (
            self.counts.served_percent(),
            self.plan.options.served_min_percent,
        );
        if served < f64::from(least) {
            doubts.push(format!(
                "{served:.0} % of calls were answered, not {least} %"
            ));
        }
        doubts
    }

    /// How many calls ended, and the share of them that was answered, in percent.
    pub fn calls(&self) -> (u64, f64) {
        (self.counts.total(), self.counts.served_percent())
    }

    /// The verdict on the recording.
    pub fn verdict(&self) -> Verdict {
        self.judgement.report.verdict
    }

    /// Faults that are known to have happened.
    pub fn faults_proven(&self) -> usize {
        let proven = self.faults.iter().filter(|fault| fault.proof.is_some());
        proven.count()
    }

    /// Anomalies by name, and what did not come back.
    pub fn findings(&self) -> Vec<String> {
        let counts = self.judgement.report.counts.iter();
        let anomalies = counts.map(|(name, count)| format!("{name} ×{count}"));
        let recovery = self.recovery.iter().flat_map(Recovery::problems);
        let breaches = self.breaches.iter().cloned();
        anomalies.chain(recovery).chain(breaches).collect()
    }

    /// Whether it was told to stop before its time.
    pub fn was_interrupted(&self) -> bool {
        self.interrupted
    }

    /// The folder of the run.
    pub fn dir(&self) -> &PathBuf {
        &self.plan.options.dir
    }

    /// The run's plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// For programs.
    pub fn to_json(&self) -> Json {
        let options = &self.plan.options;
        let model = self.judgement.model.name();
        let nemeses: Vec<&str> = options
            .nemeses
            .iter()
            .map(|nemesis| nemesis.name())
            .collect();
        let faults: Vec<Json> = self.faults.iter().map(Fault::to_json).collect();
        json!({
            "outcome": self.outcome().name(),
            "doubts": self.doubts(),
            "workload": options.workload.name(),
            "control": options.workload.is_control(),
            "nemeses": nemeses,
            "hosts": self.plan.hosts.name(),
            "nodes": options.nodes,
            "seed": options.seed,
            "level": options.level.as_ref().map(ToString::to_string),
            "command": self.plan.command(),
            "calls": {
                "ok": self.counts.ok,
                "refused": self.counts.refused,
                "failed": self.counts.failed,
                "unknown": self.counts.unknown,
                "served_percent": self.counts.served_percent(),
            },
            "problems": self.problems,
            "faults": faults,
            "breaches": self.breaches,
            "recovery": self.recovery.as_ref().map(Recovery::to_json),
            "check": self.judgement.report.to_json(model),
            "check_ms": self.judgement.took.as_millis() as u64,
            "took_ms": self.took.as_millis() as u64,
        })
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let options = &self.plan.options;
        let counts = &self.counts;
        let mut text = format!(
            "{}: {} on {} nodes ({}), seed {}\n\
             calls: {} ok, {} refused, {} failed, {} unknown; {:.1} % answered\n",
            self.outcome().name(),
            options.workload.name(),
            options.nodes,
            self.plan.hosts.name(),
            options.seed,
            counts.ok,
            counts.refused,
            counts.failed,
            counts.unknown,
            counts.served_percent(),
        );
        for (problem, count) in &self.problems {
            text += &format!("  {problem}: {count}\n");
        }
        text += &format!(
            "faults: {}, {} proven\n",
            self.faults.len(),
            self.faults_proven()
        );
        if let Some(recovery) = &self.recovery {
            text += &match (&recovery.same, recovery.is_whole()) {
                (Some(Ok(after)), true) => {
                    format!("recovery: replicas the same after {after:.1?}\n")
                }
                (None, true) => {
                    "recovery: all nodes serve; replicas were not looked at\n".to_owned()
                }
                _ => format!("recovery: {}\n", recovery.problems().join("; ")),
            };
        }
        for breach in &self.breaches {
            text += &format!("wrong: {breach}\n");
        }
        for doubt in self.doubts() {
            text += &format!("does not count: {doubt}\n");
        }
        text += &self.judgement.report.to_text(self.judgement.model.name());
        text += &format!("again: {}\n", self.plan.command());
        text
    }
}
