//! The recording of a run, in memory, and the models that it is held against.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_jepsen::history::operations;
use quorate_jepsen::{Budget, Verdict, check};
use serde_json::{Value as Json, json};

use crate::trace::Trace;
use crate::work::Work;

/// Memory of one check, bytes.
const MEMORY_MAX_BYTES: usize = 1 << 30;
/// Steps of one check are not counted: histories are short. It is given up after so many looks at
/// the deadline, each some thousand steps.
const LOOKS_MAX: u64 = 20_000;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It took effect.
    Ok,
    /// It did not, and will not.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// What a client is about to do.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) client: u64,
    pub(crate) f: &'static str,
    /// Of a call of one key.
    pub(crate) key: Option<i64>,
    pub(crate) value: Json,
}

/// The recording of one kind of work. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct Tape {
    work: Work,
    trace: Trace,
    events: Arc<Mutex<Events>>,
}

#[derive(Default)]
struct Events {
    lines: String,
    count: u64,
    ok: u64,
}

impl Tape {
    pub(crate) fn new(work: Work, trace: Trace) -> Tape {
        Tape {
            work,
            trace,
            events: Arc::default(),
        }
    }

    pub(crate) fn work(&self) -> Work {
        self.work
    }

    /// Calls that took effect.
    pub(crate) fn ok(&self) -> u64 {
        self.events.lock().ok
    }

    pub(crate) fn begin(&self, call: &Call) {
        self.event(call, "invoke", &call.value);
    }

    pub(crate) fn end(&self, call: &Call, end: End, value: &Json) {
        let kind = match end {
            End::Ok => "ok",
            End::Fail => "fail",
            End::Unknown => "info",
        };
        self.event(call, kind, value);
        self.events.lock().ok += u64::from(end == End::Ok);
    }

    fn event(&self, call: &Call, kind: &str, value: &Json) {
        let Call { client, f, key, .. } = call;
        let work = self.work.name();
        self.trace.line(|| {
            let key = key.map_or(String::new(), |key| format!(" {key}"));
            format!("client {client} {kind} {work} {f}{key} {value}")
        });
        let mut events = self.events.lock();
        let mut event = json!({
            "index": events.count,
            "process": client,
            "type": kind,
            "f": f,
            "value": value,
        });
        if let Some(key) = key {
            event["key"] = json!(key);
        }
        events.count += 1;
        events.lines.push_str(&event.to_string());
        events.lines.push('\n');
    }

    /// What is wrong with the recording.
    pub(crate) fn judge(&self) -> Vec<String> {
        let lines = self.events.lock().lines.clone();
        if lines.is_empty() {
            // With fewer clients than kinds of work some of it has none.
            return Vec::new();
        }
        // Fewer clients than kinds of work: some have none.
        if lines.is_empty() {
            return Vec::new();
        }
        let looks = std::cell::Cell::new(0_u64);
        let expired = || {
            looks.set(looks.get() + 1);
            looks.get() > LOOKS_MAX
        };
        let mut budget = Budget::new(&expired, MEMORY_MAX_BYTES);
        let (model, options) = self.work.model();
        let operations = operations(Cursor::new(lines), Path::new("history.jsonl"));
        let name = self.work.name();
        match check(operations, model, &options, &mut budget) {
            Err(error) => vec![format!("{name}: not to be checked: {error}")],
            Ok(report) if report.verdict == Verdict::Invalid => {
                let findings = report.findings.iter();
                let told = findings.map(|finding| {
                    let key = finding.key.as_deref().unwrap_or("");
                    format!("{name}: {} {key}: {}", finding.anomaly, finding.summary)
                });
                told.collect()
            }
            Ok(_) => Vec::new(),
        }
    }
}
