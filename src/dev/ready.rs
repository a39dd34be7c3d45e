//! When a local cluster is ready, and how others hear of it.
//!
//! Ready means: a linearizable put has succeeded, and nodes answer reads at their own ports.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use quorate_client::{Client, ClientError, ClientOptions, ReadOptions, WriteOptions};
use quorate_types::{Api, KeyspaceOptions, Ladder, Level, Mode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::error::DevError;
use super::folder::write_atomically;
use super::topology::Topology;
use crate::cli::server::ETCD_KEYSPACE_DEFAULT;

/// Time of one try of the put; it is repeated until it succeeds.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(20);
/// How long a node may take to answer at its own port once the cluster serves.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// The keyspace that always exists.
const KEYSPACE: &str = "default";
/// Written and deleted again; no name that a user's key would have.
const KEY: &str = "\u{0}quorate-dev-ready";

/// Waits until the cluster serves. Returns the nodes that do not answer by themselves.
pub(super) async fn wait(topology: &Topology) -> Vec<u64> {
    while put_once(&topology.endpoints()).await.is_err() {
        sleep(TRY_PAUSE).await;
    }
    make_etcd_keyspace(topology).await;
    let asked = topology.nodes.iter().map(|node| async {
        let answers = timeout(NODE_TIMEOUT, answers(node.listen.to_string()));
        (node.id, answers.await.is_ok())
    });
    join_all(asked)
        .await
        .into_iter()
        .filter(|(_, answers)| !answers)
        .map(|(id, _)| id)
        .collect()
}

fn client(endpoints: Vec<String>) -> Result<Client, ClientError> {
    Client::connect(ClientOptions {
        endpoints,
        keyspace: KEYSPACE.to_owned(),
        timeout: TRY_TIMEOUT,
        ..ClientOptions::default()
    })
}

async fn put_once(endpoints: &[String]) -> Result<(), ClientError> {
    let client = client(endpoints.to_vec())?;
    let options = WriteOptions {
        ladder: Some(Ladder::from(Level::Linearizable)),
        ..WriteOptions::default()
    };
    client.put_with(KEY, "", options.clone()).await?;
    client.delete_with(KEY, options).await?;
    Ok(())
}

/// What etcd's clients see is there from the beginning, or from an earlier run.
async fn make_etcd_keyspace(topology: &Topology) {
    if topology.etcd_endpoints().is_empty() {
        return;
    }
    let replication = u8::try_from(topology.nodes.len()).unwrap_or(u8::MAX);
    let options = KeyspaceOptions {
        mode: Mode::Strong,
        api: Api::Etcd,
        replication: replication.min(KeyspaceOptions::default().replication),
        ..KeyspaceOptions::default()
    };
    let make = async || {
        let client = client(topology.endpoints())?;
        let admin = client.admin();
        match admin.keyspace(ETCD_KEYSPACE_DEFAULT).await {
            Ok(Some(_)) => Ok(()),
            // One that is missing is an error, too.
            Ok(None) | Err(_) => {
                let made = admin.create_keyspace(ETCD_KEYSPACE_DEFAULT, &options);
                made.await.map(|_| ())
            }
        }
    };
    while make().await.is_err() {
        sleep(TRY_PAUSE).await;
    }
}

async fn answers(endpoint: String) {
    let read = async |endpoint: String| {
        let options = ReadOptions {
            ladder: Some(Ladder::from(Level::Linearizable)),
            ..ReadOptions::default()
        };
        client(vec![endpoint])?.get_with(KEY, options).await
    };
    while read(endpoint.clone()).await.is_err() {
        sleep(TRY_PAUSE).await;
    }
}

/// Writes the ready file; `pids` are those of the nodes, in their order.
pub(super) fn write_file(path: &Path, topology: &Topology, pids: &[u32]) -> Result<(), DevError> {
    let text = format!("{}\n", description(topology, pids));
    write_atomically(path, text.as_bytes())
}

fn description(topology: &Topology, pids: &[u32]) -> Value {
    let nodes = topology.nodes.iter().zip(pids).map(|(node, pid)| {
        json!({
            "id": node.id,
            "pid": pid,
            "endpoint": node.listen.to_string(),
            "http": node.http.to_string(),
            "dir": node.dir.display().to_string(),
        })
    });
    json!({
        "endpoints": topology.endpoints(),
        "etcd": topology.etcd_endpoints(),
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_ready_file_has_the_fields_of_the_interface() {
        let topology = Topology::plan(2, 0, 0, &[], Path::new("/data")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        write_file(&path, &topology, &[11, 12]).unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["endpoints"].as_array().unwrap().len(), 2);
        assert_eq!(read["etcd"].as_array().unwrap().len(), 2);
        assert_eq!(read["nodes"][1]["id"], 2);
        assert_eq!(read["nodes"][1]["pid"], 12);
        assert_eq!(read["nodes"][1]["dir"], "/data/node-2");
        assert_eq!(read["nodes"][0]["endpoint"], read["endpoints"][0]);
        assert!(read["nodes"][0]["http"].as_str().unwrap().contains(':'));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
