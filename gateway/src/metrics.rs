//! What the gateway counts: requests by operation, level and code, their latencies, and how full
//! the edge is. Handles are looked up once, so that counting a request costs two additions.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, gauge, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::KeyspaceView;
use tonic::Code;

use crate::admission::Admission;

/// Upper bounds of latency histograms, seconds.
const LATENCY_BUCKETS_SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0,
];

const OPERATIONS: [&str; 15] = [
    "get",
    "put",
    "delete",
    "scan",
    "batch",
    "compare_and_set",
    "txn",
    "history",
    "outcome",
    "update",
    "await_converged",
    "lease_grant",
    "lease_keep_alive",
    "lease_revoke",
    "lease_show",
];
const LEVELS: [&str; 6] = [
    "none",
    "linearizable",
    "bounded",
    "session",
    "stale",
    "eventual",
];

/// Rungs of ladders, counted from the top; the last stands for all below.
const RUNGS: [&str; 5] = ["0", "1", "2", "3", "more"];

/// Keyspaces whose conflicts are counted by name; those with later ids are counted together.
const KEYSPACES_NAMED: u32 = 256;

/// Counts a read that found concurrent values beside each other.
pub fn conflict_seen(keyspace: &KeyspaceView) {
    counter!("quorate_conflicts_seen_total", "keyspace" => named(keyspace)).increment(1);
}

/// Counts a write that was answered with concurrent values beside its own.
pub fn conflict_made(keyspace: &KeyspaceView) {
    counter!("quorate_conflicts_made_total", "keyspace" => named(keyspace)).increment(1);
}

fn named(keyspace: &KeyspaceView) -> String {
    match keyspace.id.0 < KEYSPACES_NAMED {
        true => keyspace.name.clone(),
        false => "others".to_owned(),
    }
}

/// A recorder for Prometheus, with buckets for everything in seconds.
///
/// # Errors
///
/// None in practice: [`BuildError`] of a buckets' table that is empty.
pub fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let buckets = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new();
    let builder = builder.set_buckets_for_metric(buckets, LATENCY_BUCKETS_SECONDS)?;
    Ok(builder.build_recorder())
}

/// Makes a [`recorder`] the process's one. Once for each process, before the first gateway.
///
/// # Errors
///
/// [`BuildError`] if the process has a recorder already.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let recorder = recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)?;
    Ok(handle)
}

/// An operation, as metrics label it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationLabel(usize);

impl OperationLabel {
    /// Of a request.
    pub fn of(request: &Request) -> OperationLabel {
        OperationLabel(match request {
            Request::Get(_) => 0,
            Request::Put(_) => 1,
            Request::Delete(_) => 2,
            Request::Scan(_) => 3,
            Request::Batch(_) => 4,
            Request::CompareAndSet(_) => 5,
            Request::Txn(_) => 6,
            Request::History(_) => 7,
            Request::Outcome(_) => 8,
            Request::Update(_) => 9,
            Request::AwaitConverged(_) => 10,
            Request::LeaseGrant(_) => 11,
            Request::LeaseKeepAlive(_) => 12,
            Request::LeaseRevoke(_) => 13,
            Request::LeaseShow(_) => 14,
        })
    }
}

struct Meter {
    served: Counter,
    seconds: Histogram,
    rungs: [OnceLock<Counter>; RUNGS.len()],
}

/// The handles of one gateway.
pub struct Meters {
    by_operation: [[OnceLock<Meter>; LEVELS.len()]; OPERATIONS.len()],
    forwarded: OnceLock<Counter>,
}

impl Default for Meters {
    fn default() -> Self {
        Self::new()
    }
}

impl Meters {
    /// No handle is looked up yet: the recorder may come later.
    pub fn new() -> Meters {
        Meters {
            by_operation: Default::default(),
            forwarded: OnceLock::new(),
        }
    }

    /// Counts a request that was served.
    pub fn served(&self, operation: OperationLabel, response: &Response, took: Duration) {
        let level = level_of(response);
        let meter = self.by_operation[operation.0][level].get_or_init(|| {
            let (op, level) = (OPERATIONS[operation.0], LEVELS[level]);
            Meter {
                served: counter!("quorate_gateway_requests_total", "op" => op, "level" => level, "code" => "OK"),
                seconds: histogram!("quorate_gateway_request_seconds", "op" => op, "level" => level),
                rungs: Default::default(),
            }
        });
        let rung = receipt_of(response).map_or(0, |receipt| receipt.rung);
        let rung = usize::try_from(rung).map_or(RUNGS.len() - 1, |at| at.min(RUNGS.len() - 1));
        let met = meter.rungs[rung].get_or_init(|| {
            let (op, level) = (OPERATIONS[operation.0], LEVELS[level]);
            counter!("quorate_gateway_rungs_total", "op" => op, "level" => level, "rung" => RUNGS[rung])
        });
        met.increment(1);
        meter.served.increment(1);
        meter.seconds.record(took.as_secs_f64());
    }

    /// Counts a request that another gateway sent on to this node.
    pub fn forwarded(&self) {
        let counter = self
            .forwarded
            .get_or_init(|| counter!("quorate_gateway_forwarded_total"));
        counter.increment(1);
    }

    /// Counts a request that was refused or failed.
    pub fn failed(&self, operation: OperationLabel, code: Code) {
        let op = OPERATIONS[operation.0];
        let code = code_name(code);
        counter!("quorate_gateway_requests_total", "op" => op, "level" => "none", "code" => code)
            .increment(1);
    }
}

/// Brings the gauges of the edge up to date, for a scrape.
pub fn observe_admission(admission: &Admission) {
    let set = |name: &'static str, value: usize| gauge!(name).set(value as f64);
    set("quorate_gateway_requests_in_flight", admission.requests());
    set("quorate_gateway_request_bytes", admission.request_bytes());
    set("quorate_gateway_answer_bytes", admission.answer_bytes());
}

/// The place of an answer's level in [`LEVELS`]: its number on the wire.
fn level_of(response: &Response) -> usize {
    let rung: Option<&v1::Rung> = receipt_of(response).and_then(|receipt| receipt.level.as_ref());
    rung.and_then(|rung| usize::try_from(rung.level).ok())
        .filter(|at| *at < LEVELS.len())
        .unwrap_or(0)
}

fn receipt_of(response: &Response) -> Option<&v1::Receipt> {
    let receipt = match response {
        Response::Get(answer) => &answer.receipt,
        Response::Put(answer) => &answer.receipt,
        Response::Delete(answer) => &answer.receipt,
        Response::Scan(answer) => &answer.receipt,
        Response::Batch(answer) => &answer.receipt,
        Response::CompareAndSet(answer) => &answer.receipt,
        Response::Txn(answer) => &answer.receipt,
        Response::History(answer) => &answer.receipt,
        Response::Outcome(answer) => &answer.receipt,
        Response::AwaitConverged(answer) => &answer.receipt,
        Response::Update(answer) => &answer.receipt,
        Response::LeaseGrant(answer) => &answer.receipt,
        Response::LeaseKeepAlive(answer) => &answer.receipt,
        Response::LeaseRevoke(answer) => &answer.receipt,
        Response::LeaseShow(answer) => &answer.receipt,
        Response::Error(_) => return None,
    };
    receipt.as_ref()
}

/// The code as gRPC's own documents write it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
