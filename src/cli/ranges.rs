//! `quorate ranges`: ranges and their replicas, asked of the nodes that hold them.

use clap::Args;
use quorate_proto::v1;
use serde_json::{Map, Value, json};

use super::error::CliError;
use super::global::Session;
use super::json::put_bytes;
use super::table::table;
use crate::transfer::shown;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate ranges
  quorate ranges --of default --output json

JSON has each replica's hash of its logical state: two replicas with the same hash_applied have
the same hash.")]
pub(super) struct RangesArgs {
    /// Only those of this keyspace
    #[arg(long, value_name = "KEYSPACE")]
    of: Option<String>,
    /// Hash each replica's state, which reads all of it [default: with JSON only]
    #[arg(long)]
    hash: bool,
    /// Do not hash
    #[arg(long, conflicts_with = "hash")]
    no_hash: bool,
}

pub(super) async fn run(args: RangesArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let hash = args.hash || (output.is_json() && !args.no_hash);
    let of = args.of.as_deref().unwrap_or_default();
    let ranges = client.admin().ranges(of, hash).await?;
    if output.is_json() {
        let list: Vec<Value> = ranges.iter().map(as_json).collect();
        output.json(&json!({"ranges": list}))?;
        return output.flush();
    }
    let mut heads = vec![
        "range", "keyspace", "part", "replica", "role", "term", "applied", "behind", "durable",
    ];
    if hash {
        heads.push("hash");
    }
    let rows = ranges.iter().flat_map(|range| {
        let siblings = ranges.iter().filter(|it| it.keyspace == range.keyspace);
        let part = part(range, siblings.count() == 1);
        let replicas = range.replicas.iter();
        replicas.map(move |replica| row(range, &part, replica, hash))
    });
    output.line(table(&heads, rows))?;
    output.flush()
}

/// Which of the keyspace's keys it holds; `only`: it is the keyspace's one range.
fn part(range: &v1::RangeStatus, only: bool) -> String {
    if only {
        return "all".to_owned();
    }
    if range.start.is_empty() && range.end.is_empty() {
        return format!("bucket {}", range.bucket);
    }
    format!("{:?}..{:?}", shown(&range.start), shown(&range.end))
}

fn row(
    range: &v1::RangeStatus,
    part: &str,
    replica: &v1::ReplicaStatus,
    hash: bool,
) -> Vec<String> {
    let mut role = replica.role.clone();
    if replica.quiet {
        role.push_str(", quiet");
    }
    let mut row = vec![
        range.id.to_string(),
        range.keyspace.clone(),
        part.to_owned(),
        replica.node.to_string(),
        role,
        replica.term.to_string(),
        replica.applied.to_string(),
        replica
            .committed
            .saturating_sub(replica.applied)
            .to_string(),
        replica.durable.to_string(),
    ];
    if hash {
        row.push(format!("{}@{}", replica.hash, replica.hash_applied));
    }
    row
}

fn as_json(range: &v1::RangeStatus) -> Value {
    let replicas = range.replicas.iter().map(|replica| {
        json!({
            "node": replica.node,
            "role": replica.role,
            "term": replica.term,
            "applied": replica.applied,
            "committed": replica.committed,
            "durable": replica.durable,
            "hash": replica.hash,
            "hash_applied": replica.hash_applied,
            "quiet": replica.quiet,
            "eventual": replica.eventual.as_ref().map(|eventual| json!({
                "hash": eventual.hash,
                "filled": eventual.filled,
                "record_bytes": eventual.record_bytes,
                "hints": eventual.hints,
                "hint_bytes": eventual.hint_bytes,
                "counted_hints": eventual.counted_hints,
                "gaps": eventual.gaps,
                "overlay_rows": eventual.overlay_rows,
                "overlay_age_ms": eventual.overlay_age_ms,
            })),
        })
    });
    let mut object = Map::new();
    put_bytes(&mut object, "start", &range.start);
    put_bytes(&mut object, "end", &range.end);
    for (name, value) in [
        ("id", json!(range.id)),
        ("keyspace", json!(range.keyspace)),
        ("bucket", json!(range.bucket)),
        ("leader", json!(range.leader)),
        ("revision", json!(range.revision)),
        ("closed", json!(range.closed)),
        ("replicas", replicas.collect()),
    ] {
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn ranges_have_applied_and_hash_for_each_replica() {
        let range = v1::RangeStatus {
            id: 4,
            keyspace: "default".to_owned(),
            start: Bytes::from_static(b"a"),
            end: Bytes::from_static(b"\xff"),
            leader: 2,
            replicas: vec![v1::ReplicaStatus {
                node: 2,
                role: "leader".to_owned(),
                applied: 9,
                hash: "abcd".to_owned(),
                hash_applied: 9,
                ..v1::ReplicaStatus::default()
            }],
            ..v1::RangeStatus::default()
        };
        let json = as_json(&range);
        assert_eq!(json["id"], 4);
        assert_eq!(json["start"], "a");
        assert_eq!(json["end_base64"], "/w==");
        assert_eq!(json["replicas"][0]["applied"], 9);
        assert_eq!(json["replicas"][0]["hash"], "abcd");
        assert_eq!(json["replicas"][0]["hash_applied"], 9);
    }
}
