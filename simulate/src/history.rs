//! The recording of a run, in memory, and the models that it is held against.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_jepsen::history::operations;
use quorate_jepsen::{Budget, Verdict, check};
use serde_json::{Value as Json, json};

use crate::trace::{CallLine, Trace};
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

/// Something that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub text: String,
    /// Of which key, with its keyspace before it: `mixed/key-3`.
    pub key: Option<String>,
    /// The calls that show it.
    pub steps: Vec<String>,
}

impl Found {
    /// Something that is of no key.
    pub(crate) fn other(text: String) -> Found {
        Found {
            text,
            ..Found::default()
        }
    }
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

impl Call {
    /// One that is of no single key.
    pub(crate) fn keyless(client: u64, f: &'static str, value: Json) -> Call {
        Call {
            client,
            f,
            key: None,
            value,
        }
    }
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
        let named = key.map_or(String::new(), |key| format!(" {key}"));
        let mut events = self.events.lock();
        let text = format!("client {client} {kind} {work} {f}{named} {value}");
        self.trace.call(&text, || CallLine {
            begins: kind == "invoke",
            client: *client,
            key: match key {
                Some(key) => format!("{}/key-{key}", self.work.keyspace()),
                None => self.work.keyspace().to_owned(),
            },
            number: events.count + 1,
            text: told(call, kind, value),
        });
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
    pub(crate) fn judge(&self) -> Vec<Found> {
        let lines = self.events.lock().lines.clone();
        if lines.is_empty() {
            // With fewer clients than kinds of work some of it has none.
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
            Err(error) => vec![Found::other(format!("{name}: not to be checked: {error}"))],
            Ok(report) if report.verdict == Verdict::Invalid => {
                let findings = report.findings.iter();
                let told = findings.map(|finding| {
                    let key = finding.key.as_deref();
                    let (anomaly, summary) = (&finding.anomaly, &finding.summary);
                    Found {
                        text: format!("{name}: {anomaly} {}: {summary}", key.unwrap_or("")),
                        key: key.map(|key| format!("{}/key-{key}", self.work.keyspace())),
                        steps: finding.steps.clone(),
                    }
                });
                told.collect()
            }
            Ok(_) => Vec::new(),
        }
    }
}

/// A call's beginning or end as a reader is told it.
fn told(call: &Call, kind: &str, value: &Json) -> String {
    let Call { f, key, .. } = call;
    let key = key.map_or(String::new(), |key| format!(" key-{key}"));
    let written = match value {
        Json::Object(fields) => {
            let value = fields
                .get("value")
                .map_or(String::new(), |value| format!(" = {value}"));
            let seen = fields.get("context").and_then(Json::as_array);
            let seen = seen.filter(|seen| !seen.is_empty());
            let seen = seen.map(|seen| format!(", having seen {}", Json::from(seen.clone())));
            format!("{value}{}", seen.unwrap_or_default())
        }
        Json::Null => String::new(),
        other => format!(" = {other}"),
    };
    match kind {
        "invoke" => format!("{f}{key}{written}"),
        "ok" if f.ends_with("read") => format!("{}{written}", key.trim_start()),
        "ok" => format!("{f}{key}{written} is done"),
        "fail" => format!("{f}{key}{written} is not done, and will not be"),
        _ => format!("{f}{key}{written} is done, or not: nobody knows"),
    }
}
