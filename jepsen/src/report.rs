//! What a check found: a verdict, and what is wrong, in words and as JSON.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::budget::Spent;
use crate::history::{Operation, Process};
use crate::picture::Picture;

/// Findings of one name that are told in full; further ones are counted.
pub const FINDINGS_SHOWN_MAX: usize = 5;

/// The answer to whether a history fits a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Valid,
    /// It does not, and the findings say why.
    Invalid,
    /// Not known: something ran out before the answer was certain.
    Unknown,
}

impl Verdict {
    /// The verdict of a whole with two parts.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Invalid, _) | (_, Self::Invalid) => Self::Invalid,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Valid, Self::Valid) => Self::Valid,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
        })
    }
}

/// Who did an operation, and where the file says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    process: Option<i64>,
    invoked: u64,
    completed: Option<u64>,
}

impl Place {
    /// The place of an operation.
    pub fn of(operation: &Operation) -> Self {
        Self {
            process: match operation.process {
                Process::Client(number) => Some(number),
                Process::Unnamed | Process::Other(_) => None,
            },
            invoked: operation.invoked.line,
            completed: operation.completed.map(|moment| moment.line),
        }
    }

    /// Who did it, as a row of a timeline.
    pub fn row(&self) -> String {
        self.process.map_or_else(
            || "no process".to_owned(),
            |process| format!("process {process}"),
        )
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(process) = self.process {
            write!(f, "process {process}, ")?;
        }
        match self.completed {
            Some(completed) => write!(f, "lines {}–{completed}", self.invoked),
            None => write!(f, "line {}, never completed", self.invoked),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name: `G-single`, `nonlinearizable`, `lost`.
    pub anomaly: String,
    /// The key that it is about, where keys are checked apart.
    pub key: Option<String>,
    /// What is wrong, in one sentence.
    pub summary: String,
    /// The smallest piece of the history that shows it, step by step.
    pub steps: Vec<String>,
    /// The same as a picture, where there is one.
    pub picture: Option<Picture>,
}

impl Finding {
    /// A finding.
    pub fn new(anomaly: impl Into<String>, summary: impl Into<String>) -> Self {
        Self {
            anomaly: anomaly.into(),
            key: None,
            summary: summary.into(),
            steps: Vec::new(),
            picture: None,
        }
    }

    /// With the steps that show it.
    #[must_use]
    pub fn steps(mut self, steps: Vec<String>) -> Self {
        self.steps = steps;
        self
    }

    /// With a picture of it.
    #[must_use]
    pub fn picture(mut self, picture: Picture) -> Self {
        self.picture = Some(picture);
        self
    }

    fn to_json(&self) -> Json {
        let mut object = Map::new();
        object.insert("anomaly".into(), json!(self.anomaly));
        if let Some(key) = &self.key {
            object.insert("key".into(), json!(key));
        }
        object.insert("summary".into(), json!(self.summary));
        object.insert("steps".into(), json!(self.steps));
        Json::Object(object)
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The answer.
    pub verdict: Verdict,
    /// Operations looked at.
    pub operations: u64,
    /// What is wrong; of each name at most [`FINDINGS_SHOWN_MAX`].
    pub findings: Vec<Finding>,
    /// How often each anomaly was found, by name, in the order of being found.
    pub counts: Vec<(String, u64)>,
    /// The weakest consistency models that are ruled out, where the checker knows.
    pub ruled_out: Vec<&'static str>,
    /// Why the answer is not known.
    pub unknown: Option<String>,
    /// What else a reader should know; nothing that makes the history invalid.
    pub remarks: Vec<String>,
}

impl Report {
    /// A report in which nothing is wrong so far.
    pub fn valid(operations: u64) -> Self {
        Self {
            verdict: Verdict::Valid,
            operations,
            findings: Vec::new(),
            counts: Vec::new(),
            ruled_out: Vec::new(),
            unknown: None,
            remarks: Vec::new(),
        }
    }

    /// Adds what makes the history invalid.
    pub fn invalid(&mut self, finding: Finding) {
        self.verdict = Verdict::Invalid;
        self.mention(finding);
    }

    /// Adds a finding that by itself decides nothing.
    pub fn mention(&mut self, finding: Finding) {
        let at = self
            .counts
            .iter()
            .position(|(name, _)| *name == finding.anomaly);
        let at = at.unwrap_or_else(|| {
            self.counts.push((finding.anomaly.clone(), 0));
            self.counts.len() - 1
        });
        self.counts[at].1 += 1;
        if self.counts[at].1 <= FINDINGS_SHOWN_MAX as u64 {
            self.findings.push(finding);
        }
    }

    /// Says that the answer is not known, unless it is known to be invalid.
    pub fn unknown(&mut self, spent: Spent) {
        self.verdict = self.verdict.and(Verdict::Unknown);
        self.unknown.get_or_insert_with(|| spent.to_string());
    }

    /// Says that the answer is not known for a reason of the model's own.
    #[must_use]
    pub fn not_known(mut self, because: &str) -> Self {
        self.verdict = self.verdict.and(Verdict::Unknown);
        self.unknown.get_or_insert_with(|| because.to_owned());
        self
    }

    /// Takes in the report of one key.
    pub fn absorb(&mut self, key: &str, part: Self) {
        self.verdict = self.verdict.and(part.verdict);
        self.operations += part.operations;
        for (name, count) in part.counts {
            match self.counts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += count,
                None => self.counts.push((name, count)),
            }
        }
        for mut finding in part.findings {
            let shown = self.findings.iter();
            let shown = shown
                .filter(|other| other.anomaly == finding.anomaly)
                .count();
            if shown < FINDINGS_SHOWN_MAX {
                finding.key = Some(key.to_owned());
                self.findings.push(finding);
            }
        }
        for model in part.ruled_out {
            if !self.ruled_out.contains(&model) {
                self.ruled_out.push(model);
            }
        }
        let remarks = part.remarks.into_iter();
        self.remarks
            .extend(remarks.map(|remark| format!("key {key}: {remark}")));
        self.remarks.truncate(FINDINGS_SHOWN_MAX);
        self.unknown = self.unknown.take().or(part.unknown);
    }

    /// For programs.
    pub fn to_json(&self, model: &str) -> Json {
        let counts = self.counts.iter();
        let counts: Map<String, Json> = counts
            .map(|(name, count)| (name.clone(), json!(count)))
            .collect();
        let findings: Vec<Json> = self.findings.iter().map(Finding::to_json).collect();
        json!({
            "model": model,
            "verdict": self.verdict.to_string(),
            "operations": self.operations,
            "anomalies": counts,
            "findings": findings,
            "ruled_out": self.ruled_out,
            "unknown_because": self.unknown,
            "remarks": self.remarks,
        })
    }

    /// For people.
    pub fn to_text(&self, model: &str) -> String {
        let mut text = format!(
            "{}: {model}, {} operations\n",
            self.verdict, self.operations
        );
        if let Some(because) = &self.unknown {
            text += &format!("not known: {because}\n");
        }
        for finding in &self.findings {
            let key = finding.key.as_ref();
            let key = key.map(|key| format!(" (key {key})")).unwrap_or_default();
            text += &format!("\n{}{key}: {}\n", finding.anomaly, finding.summary);
            for step in &finding.steps {
                text += &format!("  - {step}\n");
            }
        }
        for (name, count) in &self.counts {
            if *count > FINDINGS_SHOWN_MAX as u64 {
                text += &format!("\n{name}: {count} times in all\n");
            }
        }
        if !self.ruled_out.is_empty() {
            let models = self.ruled_out.join(", ");
            text += &format!("\nruled out: {models}, and whatever is stronger\n");
        }
        for remark in &self.remarks {
            text += &format!("\nremark: {remark}\n");
        }
        text
    }
}
