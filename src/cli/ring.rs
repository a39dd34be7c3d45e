//! `quorate ring`: each node's share of the ring.

use clap::Args;
use serde_json::json;

use super::error::CliError;
use super::global::Session;
use super::table::table;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate ring")]
pub(super) struct RingArgs {}

pub(super) async fn run(session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let shares = client.admin().ring().await?;
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
        output.json(&json!({"shares": shares.collect::<Vec<_>>()}))?;
        return output.flush();
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
    output.line(table(&heads, rows))?;
    output.flush()
}
