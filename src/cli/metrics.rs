//! `quorate metrics`: what nodes count, fetched from their HTTP ports.

use std::io;
use std::time::Duration;

use clap::Args;
use quorate_proto::v1::NodeStatus;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::CliError;
use super::exit::Exit;
use super::global::Session;

/// Largest answer that is read, bytes.
const METRICS_MAX_BYTES: u64 = 64 << 20;

#[derive(Args, Debug)]
#[command(after_help = "Example:
  quorate metrics | grep fsync
  quorate metrics --node 2 --output json")]
pub(super) struct MetricsArgs {
    /// Of this node [default: the one that answers]
    #[arg(long, value_name = "ID")]
    node: Option<u64>,
}

pub(super) async fn run(args: MetricsArgs, session: Session) -> Result<(), CliError> {
    let Session { client, mut output } = session;
    let status = client.admin().status().await?;
    let wanted = args.node.unwrap_or(status.answered_by);
    let node = find(&status.nodes, wanted)?;
    let text = timeout(client.timeout(), fetch(&node.http))
        .await
        .unwrap_or_else(|_| Err(timed_out(client.timeout())))
        .map_err(|error| {
            CliError::refused(
                Exit::Unavailable,
                format!("node {wanted} at http://{}/metrics: {error}", node.http),
                "`quorate status` shows which nodes answer",
            )
        })?;
    match output.is_json() {
        true => output.json(&json!({"node": wanted, "metrics": samples(&text)}))?,
        false => output.bytes(text.as_bytes())?,
    }
    output.flush()
}

fn find(nodes: &[NodeStatus], id: u64) -> Result<&NodeStatus, CliError> {
    nodes.iter().find(|node| node.id == id).ok_or_else(|| {
        CliError::refused(
            Exit::NotFound,
            format!("no node {id} in this cluster"),
            "`quorate status` shows the nodes",
        )
    })
}

fn timed_out(after: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer within {after:?}"),
    )
}

/// HTTP/1.0: the answer is not in chunks, and ends with the connection.
async fn fetch(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(METRICS_MAX_BYTES)
        .read_to_end(&mut answer)
        .await?;
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> io::Result<String> {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("it answered `{status}`")));
    }
    Ok(body.to_owned())
}

/// Samples by their name with labels.
fn samples(text: &str) -> Map<String, Value> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, value) = line.trim().rsplit_once(' ')?;
            let number: f64 = value.parse().ok()?;
            Some((name.to_owned(), json!(number)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_an_answer_of_200_is_one() {
        assert_eq!(
            body("HTTP/1.0 200 OK\r\nA: b\r\n\r\nx 1\n").unwrap(),
            "x 1\n"
        );
        let error = body("HTTP/1.1 404 Not Found\r\n\r\n").unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
        assert!(body("garbage").is_err());
    }

    #[test]
    fn samples_keep_their_labels() {
        let samples = samples("# TYPE a counter\na{op=\"put get\"} 3\nb 0.5\n");
        assert_eq!(samples["a{op=\"put get\"}"], 3.0);
        assert_eq!(samples["b"], 0.5);
        assert_eq!(samples.len(), 2);
    }
}
