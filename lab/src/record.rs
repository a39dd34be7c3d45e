//! The recording: each event is on its way to the file before the next one is taken.
//!
//! The order of lines is the order of events, so the time is taken under the lock. Beside the
//! file, what came of the calls is counted per slice of time, for the report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::error::LabError;

/// Calls are counted in slices of time that long.
pub(crate) const SLICE: Duration = Duration::from_millis(250);

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It took effect.
    Ok,
    /// It did not: a condition did not hold, which is an answer.
    Refused,
    /// It did not, since it was not served.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// What calls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ok: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) unknown: u64,
}

impl Counts {
    fn add(&mut self, end: End) {
        match end {
            End::Ok => self.ok += 1,
            End::Refused => self.refused += 1,
            End::Failed => self.failed += 1,
            End::Unknown => self.unknown += 1,
        }
    }

    /// All calls that ended.
    pub(crate) fn total(&self) -> u64 {
        self.ok + self.refused + self.failed + self.unknown
    }

    /// The share of calls that were answered, in percent.
    pub(crate) fn served_percent(&self) -> f64 {
        (self.ok + self.refused) as f64 * 100.0 / self.total().max(1) as f64
    }
}

struct Tape {
    file: File,
    index: u64,
    failed: Option<io::Error>,
    counts: Counts,
    slices: Vec<Counts>,
    problems: BTreeMap<String, u64>,
}

/// A history that is being written.
pub(crate) struct Recorder {
    begin: Instant,
    tape: Mutex<Tape>,
}

/// What is recorded beside an event's kind.
pub(crate) struct Line<'a> {
    pub(crate) process: Json,
    pub(crate) f: &'a str,
    pub(crate) key: Option<i64>,
    pub(crate) value: &'a Json,
}

impl Recorder {
    /// Begins a new file; time begins now.
    pub(crate) fn create(path: &Path) -> Result<Self, LabError> {
        let file = File::create(path).map_err(|error| LabError::file(path, error))?;
        Ok(Self {
            begin: Instant::now(),
            tape: Mutex::new(Tape {
                file,
                index: 0,
                failed: None,
                counts: Counts::default(),
                slices: Vec::new(),
                problems: BTreeMap::new(),
            }),
        })
    }

    /// Time since the recording began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(crate) fn invoke(&self, line: &Line<'_>) {
        self.write(&mut self.tape(), "invoke", line);
    }

    /// Records an end, and what was the matter where it was not served.
    pub(crate) fn end(&self, line: &Line<'_>, end: End, problem: Option<&str>) {
        let kind = match end {
            End::Ok => "ok",
            End::Refused | End::Failed => "fail",
            End::Unknown => "info",
        };
        let mut tape = self.tape();
        self.write(&mut tape, kind, line);
        tape.counts.add(end);
        let slice = self.begin.elapsed().as_millis() / SLICE.as_millis();
        let slice = usize::try_from(slice).expect("runs take hours at most");
        if tape.slices.len() <= slice {
            tape.slices.resize(slice + 1, Counts::default());
        }
        tape.slices[slice].add(end);
        if let Some(problem) = problem {
            *tape.problems.entry(problem.to_owned()).or_default() += 1;
        }
    }

    /// Something that is no call of a client: checkers pass over it.
    pub(crate) fn remark(&self, who: &str, f: &str, value: &Json) {
        let line = Line {
            process: json!(who),
            f,
            key: None,
            value,
        };
        self.write(&mut self.tape(), "info", &line);
    }

    fn write(&self, tape: &mut Tape, kind: &str, line: &Line<'_>) {
        let nanoseconds = u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut event = json!({
            "index": tape.index,
            "time": nanoseconds,
            "process": line.process,
            "type": kind,
            "f": line.f,
            "value": line.value,
        });
        if let Some(key) = line.key {
            event["key"] = json!(key);
        }
        tape.index += 1;
        let mut text = event.to_string();
        text.push('\n');
        if let Err(error) = tape.file.write_all(text.as_bytes()) {
            tape.failed.get_or_insert(error);
        }
    }

    fn tape(&self) -> MutexGuard<'_, Tape> {
        let tape = self.tape.lock();
        tape.expect("nobody panics while recording")
    }

    /// All counts so far.
    pub(crate) fn counts(&self) -> Counts {
        self.tape().counts
    }

    /// Counts by slice of time.
    pub(crate) fn slices(&self) -> Vec<Counts> {
        self.tape().slices.clone()
    }

    /// What was the matter with calls that were not served, counted.
    pub(crate) fn problems(&self) -> BTreeMap<String, u64> {
        self.tape().problems.clone()
    }

    /// The first error of the file, if there was one: then the recording is not whole.
    pub(crate) fn failure(&self) -> Option<io::Error> {
        self.tape().failed.take()
    }
}
