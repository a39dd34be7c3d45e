//! `quorate ring`: each node's share of the ring, and where ranges lie on it.

use clap::Args;
use quorate_proto::v1;
use quorate_types::ring::{Ring, RingNode};
use quorate_types::{NodeId, RangeId};
use serde_json::{Value, json};

use super::error::CliError;
use super::global::Session;
use super::output::Output;
use super::table::table;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate ring
  quorate ring --ranges --of default

A range's primaries hold it; its stand-ins, in this order, take writes for primaries that are
away.")]
pub(super) struct RingArgs {
    /// Each range with its primaries and stand-ins instead
    #[arg(long)]
    ranges: bool,
    /// Only ranges of this keyspace
    #[arg(long, value_name = "KEYSPACE", requires = "ranges")]
    of: Option<String>,
}

pub(super) async fn run(args: RingArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let admin = client.admin();
    let shares = admin.ring().await?;
    if args.ranges {
        let of = args.of.as_deref().unwrap_or_default();
        let ranges = admin.ranges(of, false).await?;
        print_ranges(&mut output, &shares, &ranges)?;
    } else {
        print_shares(&mut output, &shares)?;
    }
    output.flush()
}

fn print_shares(output: &mut Output, shares: &[v1::RingShare]) -> Result<(), CliError> {
    if output.is_json() {
        let shares = shares.iter().map(|share| {
            json!({
                "node": share.node,
                "zone": share.zone,
                "weight": share.weight,
                "share": share.share,
                "replicas": share.replicas,
            })
        });
        return output.json(&json!({"shares": shares.collect::<Vec<_>>()}));
    }
    let rows = shares.iter().map(|share| {
        [
            share.node.to_string(),
            share.zone.clone(),
            share.weight.to_string(),
            format!("{:.1} %", share.share * 100.0),
            share.replicas.to_string(),
        ]
    });
    let heads = ["node", "zone", "weight", "share", "replicas"];
    output.line(table(&heads, rows))
}

fn print_ranges(
    output: &mut Output,
    shares: &[v1::RingShare],
    ranges: &[v1::RangeStatus],
) -> Result<(), CliError> {
    let ring = ring_of(shares);
    if output.is_json() {
        let ranges = ranges.iter().map(|range| {
            json!({
                "id": range.id,
                "keyspace": range.keyspace,
                "primaries": primaries(range),
                "stand_ins": stand_ins(&ring, range),
            })
        });
        return output.json(&json!({"ranges": ranges.collect::<Vec<Value>>()}));
    }
    let rows = ranges.iter().map(|range| {
        [
            range.id.to_string(),
            range.keyspace.clone(),
            joined(&primaries(range)),
            joined(&stand_ins(&ring, range)),
        ]
    });
    output.line(table(
        &["range", "keyspace", "primaries", "stand-ins"],
        rows,
    ))
}

fn ring_of(shares: &[v1::RingShare]) -> Ring {
    Ring::new(shares.iter().map(|share| RingNode {
        id: NodeId(share.node),
        zone: share.zone.clone(),
        weight: share.weight,
    }))
}

fn primaries(range: &v1::RangeStatus) -> Vec<NodeId> {
    let nodes = range.replicas.iter().map(|replica| NodeId(replica.node));
    nodes.collect()
}

/// The catalog says who holds a range; all others stand in, in the order of its walk.
fn stand_ins(ring: &Ring, range: &v1::RangeStatus) -> Vec<NodeId> {
    let primaries = primaries(range);
    let count = u8::try_from(primaries.len()).unwrap_or(u8::MAX);
    let placement = ring.place(RangeId(range.id), count);
    let walk = placement.primaries.into_iter().chain(placement.stand_ins);
    walk.filter(|node| !primaries.contains(node)).collect()
}

fn joined(nodes: &[NodeId]) -> String {
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    match nodes.is_empty() {
        true => "-".to_owned(),
        false => nodes.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_does_not_hold_a_range_stands_in() {
        let shares: Vec<v1::RingShare> = (1..=5)
            .map(|node| v1::RingShare {
                node,
                zone: format!("z{node}"),
                weight: 1,
                ..v1::RingShare::default()
            })
            .collect();
        let replicas = [2, 4, 5].map(|node| v1::ReplicaStatus {
            node,
            ..v1::ReplicaStatus::default()
        });
        let range = v1::RangeStatus {
            id: 9,
            replicas: replicas.into(),
            ..v1::RangeStatus::default()
        };
        assert_eq!(joined(&primaries(&range)), "2, 4, 5");
        let mut others = stand_ins(&ring_of(&shares), &range);
        others.sort();
        assert_eq!(others, [NodeId(1), NodeId(3)]);
    }
}
