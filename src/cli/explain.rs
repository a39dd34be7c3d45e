//! `quorate explain`: what each level would get now, and what would have to fail for it to be
//! refused.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use quorate_client::level_from_wire;
use quorate_proto::v1;
use serde_json::{Value, json};

use super::error::CliError;
use super::global::Session;
use super::input;
use super::output::Output;
use super::table::table;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate explain greeting
  quorate explain --keyspace orders
  quorate explain greeting --endpoints 127.0.0.1:7454 --output json

The answer is that of one node: of two sides of a cut, each has its own. What is said of the cost is
what such requests took there lately. VISIBLE is an estimate (PBS): how long after an eventual
put was acknowledged 999 of 1,000 gets see it; a bound is never an estimate.")]
pub(super) struct ExplainArgs {
    /// The key, byte for byte [default: whichever range of the keyspace is worst off]
    key: Option<OsString>,
}

pub(super) async fn run(args: ExplainArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let key = args.key.as_ref().map(|key| input::argument(key));
    let admin = client.admin();
    let answer = admin.explain(client.keyspace_name(), key).await?;
    match output.is_json() {
        true => output.json(&as_json(&answer))?,
        false => print(&mut output, &answer)?,
    }
    output.flush()
}

fn level_text(level: &v1::LevelOutlook) -> String {
    let rung = level.level.unwrap_or_default();
    level_from_wire(&rung).map_or_else(|| "unknown".to_owned(), |level| level.to_string())
}

fn nodes(nodes: &[u64]) -> String {
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    nodes.join(", ")
}

/// Both, or a dash.
fn latency(p50: Option<u64>, p99: Option<u64>) -> String {
    match (p50, p99) {
        (Some(p50), Some(p99)) => format!("{} / {}", millis(p50), millis(p99)),
        (Some(_), None) | (None, Some(_)) | (None, None) => "-".to_owned(),
    }
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1_000.0)
}

fn age(level: &v1::LevelOutlook) -> String {
    let bound = level.staleness_ms.map(|millis| {
        let bound = Duration::from_millis(millis);
        format!("at most {bound:?}")
    });
    let estimate = level
        .visible_after_us
        .map(|after| format!("visible after {}", millis(after)));
    bound.or(estimate).unwrap_or_else(|| "-".to_owned())
}

fn print(output: &mut Output, answer: &v1::ExplainResponse) -> Result<(), CliError> {
    let (node, range, mode) = (answer.answered_by, answer.range, &answer.mode);
    output.line(format!(
        "range {range}, mode {mode}, as node {node} sees it now\n"
    ))?;
    let holders = answer.holders.iter().map(|holder| {
        let role = match (holder.primary, holder.leader) {
            (_, true) => "leader",
            (true, false) => "replica",
            (false, false) => "stand-in",
        };
        let is_here = holder.node == node;
        let state = match (is_here, holder.reachable) {
            (true, _) => "here",
            (false, true) => "in reach",
            (false, false) => "out of reach",
        };
        [
            holder.node.to_string(),
            role.to_owned(),
            state.to_owned(),
            latency(holder.read_p50_us, holder.read_p99_us),
            latency(holder.copy_p50_us, holder.copy_p99_us),
        ]
    });
    let heads = ["node", "role", "state", "read p50 / p99", "copy p50 / p99"];
    output.line(table(&heads, holders))?;
    output.line("")?;
    let levels = answer.levels.iter().map(|level| {
        let (now, why) = match level.servable {
            true => ("yes", format!("refused if {}", level.refused_if)),
            false => ("NO", level.problem.clone()),
        };
        [
            level.operation.clone(),
            level_text(level),
            now.to_owned(),
            nodes(&level.through),
            latency(level.p50_us, level.p99_us),
            age(level),
            why,
        ]
    });
    let heads = ["", "level", "now", "through", "p50 / p99", "age", "why"];
    output.line(table(&heads, levels))
}

fn as_json(answer: &v1::ExplainResponse) -> Value {
    let holders = answer.holders.iter().map(|holder| {
        json!({
            "node": holder.node,
            "primary": holder.primary,
            "reachable": holder.reachable,
            "leader": holder.leader,
            "read_us": {"p50": holder.read_p50_us, "p99": holder.read_p99_us},
            "copy_us": {"p50": holder.copy_p50_us, "p99": holder.copy_p99_us},
        })
    });
    let levels = answer.levels.iter().map(|level| {
        json!({
            "operation": level.operation,
            "level": level_text(level),
            "servable": level.servable,
            "problem": level.problem,
            "through": level.through,
            "refused_if": level.refused_if,
            "latency_us": {"p50": level.p50_us, "p99": level.p99_us},
            "staleness_ms": level.staleness_ms,
            "visible_after_us_estimate": level.visible_after_us,
        })
    });
    json!({
        "answered_by": answer.answered_by,
        "mode": answer.mode,
        "range": answer.range,
        "holders": holders.collect::<Vec<_>>(),
        "levels": levels.collect::<Vec<_>>(),
    })
}
