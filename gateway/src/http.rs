//! The HTTP port: metrics, health, readiness, and what the replicas here are doing.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use quorate_proto::internal::ReplicaReport;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::connections::{Connections, LimitedListener};
use crate::gateway::Gateway;
use crate::metrics::observe_admission;

/// Prometheus' own name for its text.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Open connections of the HTTP port.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

#[derive(Clone)]
struct Shared {
    gateway: Gateway,
    metrics: PrometheusHandle,
}

/// The pages of one node.
pub fn router(gateway: Gateway, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
        .route("/debug/ranges", get(show_ranges))
        .with_state(Shared { gateway, metrics })
}

/// Serves the pages until `stopped`.
///
/// # Errors
///
/// The listener's.
pub async fn serve_http(
    gateway: Gateway,
    metrics: PrometheusHandle,
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = LimitedListener {
        listener,
        connections: Connections::new("http", HTTP_CONNECTIONS_MAX),
    };
    axum::serve(listener, router(gateway, metrics))
        .with_graceful_shutdown(stopped)
        .await
}

async fn show_metrics(State(shared): State<Shared>) -> impl IntoResponse {
    observe_admission(shared.gateway.admission());
    shared.metrics.run_upkeep();
    (
        [("content-type", METRICS_CONTENT_TYPE)],
        shared.metrics.render(),
    )
}

/// The process lives: it answers.
async fn show_health() -> &'static str {
    "ok\n"
}

async fn show_readiness(State(shared): State<Shared>) -> (StatusCode, String) {
    match shared.gateway.ready() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn show_ranges(State(shared): State<Shared>) -> Json<Value> {
    let node = shared.gateway.node();
    let report = node.local_report(false, "").await;
    let ranges: Vec<Value> = report.replicas.iter().map(range_shown).collect();
    Json(json!({ "node": node.node_id().0, "ranges": ranges }))
}

fn range_shown(report: &ReplicaReport) -> Value {
    let replica = report.replica.clone().unwrap_or_default();
    json!({
        "range": report.range,
        "leader": report.leader,
        "role": replica.role,
        "term": replica.term,
        "applied": replica.applied,
        "committed": replica.committed,
        "durable": replica.durable,
        "quiet": replica.quiet,
        "revision": report.revision,
        "closed": report.closed,
    })
}
