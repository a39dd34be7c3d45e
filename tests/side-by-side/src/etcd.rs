//! Three nodes of etcd.

use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::Client;
use quorate::bench::{BenchError, LoadOptions, Report, preload};
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::cell::{Cell, Work};
use crate::error::CompareError;
use crate::etcd_api::{EtcdTarget, load_by_etcd_api};
use crate::store::{Counter, LOOK_PAUSE, NODES, Store, free_addresses, spawn, stop};

/// How long the first election may take.
const READY_MAX: Duration = Duration::from_secs(30);

/// A running cluster of etcd with its defaults.
#[derive(Debug)]
pub struct Etcd {
    children: Vec<Child>,
    pids: Vec<u32>,
    /// The leader's first: a client that has only one of its own asks the fastest.
    endpoints: Vec<String>,
}

impl Etcd {
    /// Starts nodes with their data in `dir`, and waits until they serve.
    ///
    /// # Errors
    ///
    /// A node does not start, or there is no leader in time.
    pub async fn start(program: &Path, dir: &Path) -> Result<Self, CompareError> {
        let addresses = free_addresses(2 * NODES)?;
        let urls: Vec<String> = addresses.iter().map(|it| format!("http://{it}")).collect();
        let (clients, peers) = urls.split_at(NODES);
        let members: Vec<String> = (peers.iter().enumerate())
            .map(|(node, peer)| format!("node-{node}={peer}"))
            .collect();
        let mut children = Vec::with_capacity(NODES);
        for node in 0..NODES {
            let args = arguments(dir, node, &clients[node], &peers[node], &members.join(","));
            let log = dir.join(format!("etcd-{node}.log"));
            children.push(spawn(program, &args, &log)?);
        }
        let mut etcd = Self {
            pids: children.iter().filter_map(Child::id).collect(),
            children,
            endpoints: clients.to_vec(),
        };
        etcd.wait_until_ready(&dir.join("etcd-0.log")).await?;
        Ok(etcd)
    }

    async fn wait_until_ready(&mut self, log: &Path) -> Result<(), CompareError> {
        let begin = Instant::now();
        loop {
            match leader(&self.endpoints).await {
                Ok(Some(leader)) => {
                    self.endpoints.rotate_left(leader);
                    return Ok(());
                }
                Ok(None) | Err(_) => sleep(LOOK_PAUSE).await,
            }
            for child in &mut self.children {
                let ended = child.try_wait().map_err(CompareError::io("watch etcd"))?;
                if ended.is_some() {
                    let log = PathBuf::from(log);
                    return Err(CompareError::Ended {
                        store: Self::NAME,
                        log,
                    });
                }
            }
            if begin.elapsed() > READY_MAX {
                return Err(CompareError::NotReady {
                    store: Self::NAME,
                    waited: READY_MAX,
                });
            }
        }
    }
}

fn arguments(dir: &Path, node: usize, client: &str, peer: &str, members: &str) -> Vec<String> {
    let data = dir.join(format!("etcd-{node}"));
    [
        ("name", format!("node-{node}")),
        ("data-dir", data.display().to_string()),
        ("listen-client-urls", client.to_owned()),
        ("advertise-client-urls", client.to_owned()),
        ("listen-peer-urls", peer.to_owned()),
        ("initial-advertise-peer-urls", peer.to_owned()),
        ("initial-cluster", members.to_owned()),
        ("initial-cluster-state", "new".to_owned()),
        ("log-level", "error".to_owned()),
    ]
    .map(|(name, value)| format!("--{name}={value}"))
    .to_vec()
}

/// Which endpoint is the leader's, once a put succeeds.
pub async fn leader(endpoints: &[String]) -> Result<Option<usize>, etcd_client::Error> {
    for (number, endpoint) in endpoints.iter().enumerate() {
        let mut client = Client::connect([endpoint], None).await?;
        let status = client.status().await?;
        let own = status.header().map(|header| header.member_id());
        if status.leader() != 0 && own == Some(status.leader()) {
            client.put("ready", "", None).await?;
            return Ok(Some(number));
        }
    }
    Ok(None)
}

impl Store for Etcd {
    const NAME: &'static str = "etcd";

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    async fn fill(&self, options: &LoadOptions) -> Result<(), BenchError> {
        preload(
            &EtcdTarget::new(&self.endpoints, Work::Put),
            options,
            |_| (),
        )
        .await
    }

    async fn load(
        &self,
        cell: Cell,
        options: LoadOptions,
        counter: Counter,
    ) -> Result<Report, BenchError> {
        load_by_etcd_api(&self.endpoints, cell.work, &options, counter).await
    }

    fn etcd_endpoints(&self) -> &[String] {
        &self.endpoints
    }

    async fn stop(self) -> Result<(), CompareError> {
        stop(self.children).await
    }
}
