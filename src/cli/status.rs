//! `quorate status`: the nodes, as one of them sees the others.

use std::collections::HashMap;

use clap::Args;
use quorate_proto::v1;
use serde_json::{Value, json};

use super::error::CliError;
use super::global::Session;
use super::table::{bytes, table};

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate status
  quorate status --output json")]
pub(super) struct StatusArgs {}

pub(super) async fn run(session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let status = client.admin().status().await?;
    if output.is_json() {
        output.json(&as_json(&status))?;
        return output.flush();
    }
    output.line(format_args!(
        "cluster {}, catalog epoch {}, answered by node {}\n",
        status.cluster, status.catalog_epoch, status.answered_by
    ))?;
    let heads = [
        "node", "endpoint", "http", "zone", "state", "ranges", "leads", "lag", "log", "engine",
        "memory", "hints", "repair", "clock", "phi", "up",
    ];
    let seen = views_of(&status);
    output.line(table(
        &heads,
        status.nodes.iter().map(|node| row(node, &seen)),
    ))?;
    output.flush()
}

/// How the node that answered sees the others.
fn views_of(status: &v1::StatusResponse) -> HashMap<u64, v1::PeerView> {
    let answered = (status.nodes.iter()).find(|node| node.id == status.answered_by);
    let views = answered.map_or(&[][..], |node| &node.peers);
    views.iter().map(|view| (view.node, *view)).collect()
}

/// How suspicious a node is, and whether it comes and goes.
fn phi(view: Option<&v1::PeerView>) -> String {
    match view {
        None => "-".to_owned(),
        Some(view) if view.reachable && !view.steady => format!("{:.1}, flaps", view.phi),
        Some(view) => format!("{:.1}", view.phi),
    }
}

fn state(node: &v1::NodeStatus) -> String {
    match (node.reachable, node.trouble.is_empty()) {
        (false, _) => "unreachable".to_owned(),
        (true, true) => "serves".to_owned(),
        (true, false) => node.trouble.clone(),
    }
}

fn row(node: &v1::NodeStatus, seen: &HashMap<u64, v1::PeerView>) -> [String; 16] {
    let known = |text: String| match node.reachable {
        true => text,
        false => "-".to_owned(),
    };
    [
        node.id.to_string(),
        node.endpoint.clone(),
        node.http.clone(),
        node.zone.clone(),
        state(node),
        known(node.ranges.to_string()),
        known(node.leaders.to_string()),
        known(node.apply_lag.to_string()),
        known(bytes(node.log_bytes)),
        known(bytes(node.engine_bytes)),
        known(bytes(node.memory_bytes)),
        known(node.hints.to_string()),
        known(format!("{:.1} s", node.repair_lag_ms as f64 / 1e3)),
        known(format!("{:+} ms", node.clock_offset_ms)),
        phi(seen.get(&node.id)),
        known(format!("{} s", node.uptime_seconds)),
    ]
}

fn view_as_json(view: &v1::PeerView) -> Value {
    json!({
        "node": view.node,
        "phi": (view.phi * 100.0).round() / 100.0,
        "reachable": view.reachable,
        "steady": view.steady,
        "returns": view.returns,
    })
}

fn as_json(status: &v1::StatusResponse) -> Value {
    let nodes = status.nodes.iter().map(|node| {
        json!({
            "id": node.id,
            "endpoint": node.endpoint,
            "http": node.http,
            "zone": node.zone,
            "weight": node.weight,
            "reachable": node.reachable,
            "version": node.version,
            "uptime_seconds": node.uptime_seconds,
            "ranges": node.ranges,
            "leaders": node.leaders,
            "log_bytes": node.log_bytes,
            "engine_bytes": node.engine_bytes,
            "memory_bytes": node.memory_bytes,
            "apply_lag": node.apply_lag,
            "trouble": node.trouble,
            "clock_offset_ms": node.clock_offset_ms,
            "hints": node.hints,
            "hint_bytes": node.hint_bytes,
            "repair_lag_ms": node.repair_lag_ms,
            "peers": node.peers.iter().map(view_as_json).collect::<Vec<_>>(),
        })
    });
    json!({
        "cluster": status.cluster,
        "catalog_epoch": status.catalog_epoch,
        "answered_by": status.answered_by,
        "nodes": nodes.collect::<Vec<_>>(),
    })
}
