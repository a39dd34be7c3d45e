//! Three nodes of Quorate under `quorate dev`, and loads on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate::bench::{BenchError, LoadOptions, QuorateTarget, Report, preload};
use quorate_client::{Client, ClientOptions};
use quorate_types::{self as types, KeyspaceOptions, Ladder, Level, Mode, Partitioning};
use serde_json::Value;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::cell::{Ack, Cell, Copies, Work};
use crate::empty::EmptyTarget;
use crate::error::CompareError;
use crate::etcd::leader;
use crate::etcd_api::{EtcdTarget, load_by_etcd_api};
use crate::store::{Counter, LOOK_PAUSE, NODES, Store, run_counted, spawn, stop, wait_for_end};

/// How long the cluster may take until it serves.
const READY_MAX: Duration = Duration::from_secs(30);
/// Ranges of the keyspace that is spread.
const SPREAD_RANGES: u16 = 16;

/// Keyspace of the loads without consensus.
const EVENTUAL: &str = "bench-eventual";

/// Which path of Quorate is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// With consensus.
    Strong,
    /// Without.
    Eventual,
    /// With consensus, by etcd's API.
    Etcd,
}

/// A running cluster of Quorate.
#[derive(Debug)]
pub struct Quorate {
    dev: Child,
    plane: Plane,
    pids: Vec<u32>,
    endpoints: Vec<String>,
    etcd_endpoints: Vec<String>,
}

impl Quorate {
    /// Starts `quorate dev` with its data in `dir`, and makes the keyspaces of the loads.
    ///
    /// # Errors
    ///
    /// It does not start or serve in time, or refuses a keyspace.
    pub async fn start(program: &Path, plane: Plane, dir: &Path) -> Result<Self, CompareError> {
        let ready = dir.join("ready.json");
        let args = [
            "dev".to_owned(),
            format!("--nodes={NODES}"),
            format!("--dir={}", dir.join("quorate").display()),
            "--port=0".to_owned(),
            format!("--ready-file={}", ready.display()),
        ];
        let log = dir.join("quorate.log");
        let mut dev = spawn(program, &args, &log)?;
        wait_for_file(&ready, &mut dev, &log).await?;
        let text = std::fs::read(&ready).map_err(CompareError::io("read the ready file"))?;
        let ready = parse_ready(&text)?;
        let mut quorate = Self {
            dev,
            plane,
            pids: ready.pids,
            endpoints: ready.endpoints,
            etcd_endpoints: ready.etcd_endpoints,
        };
        quorate.create_keyspaces().await?;
        if plane == Plane::Etcd {
            quorate.leader_first().await?;
        }
        Ok(quorate)
    }

    /// As with etcd: a client that has only one endpoint of its own asks the leader.
    async fn leader_first(&mut self) -> Result<(), CompareError> {
        let begin = Instant::now();
        loop {
            if let Ok(Some(leader)) = leader(&self.etcd_endpoints).await {
                self.etcd_endpoints.rotate_left(leader);
                return Ok(());
            }
            if begin.elapsed() > READY_MAX {
                return Err(CompareError::NotReady {
                    store: Self::NAME,
                    waited: READY_MAX,
                });
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    async fn create_keyspaces(&self) -> Result<(), CompareError> {
        let admin = Client::connect(self.client(keyspace(1)))?.admin();
        for (name, options) in keyspaces(self.plane) {
            admin.create_keyspace(&name, &options).await?;
        }
        Ok(())
    }

    fn client(&self, keyspace: String) -> ClientOptions {
        ClientOptions {
            endpoints: self.endpoints.clone(),
            keyspace,
            ..ClientOptions::default()
        }
    }

    fn target(&self, work: Work, ranges: u16) -> QuorateTarget {
        let (keyspace, level) = match work {
            Work::Put | Work::Get | Work::Watch | Work::Empty => {
                (keyspace(ranges), Level::Linearizable)
            }
            Work::StaleGet => (keyspace(ranges), Level::Stale),
            Work::EventualPut(copies, ack) => (EVENTUAL.to_owned(), eventual(copies, ack)),
            Work::EventualGet(copies) => (EVENTUAL.to_owned(), eventual(copies, Ack::Disk)),
        };
        QuorateTarget {
            client: self.client(keyspace),
            read: (!work.is_put()).then(|| Ladder::from(level)),
            write: work.is_put().then(|| Ladder::from(level)),
            fence: false,
        }
    }
}

/// The keyspaces of a path, with their options.
fn keyspaces(plane: Plane) -> Vec<(String, KeyspaceOptions)> {
    let spread = |ranges| match ranges {
        1 => Partitioning::Ordered,
        ranges => Partitioning::Hash(ranges),
    };
    let strong = |ranges| KeyspaceOptions {
        partitioning: spread(ranges),
        ..KeyspaceOptions::default()
    };
    match plane {
        Plane::Strong => [1, SPREAD_RANGES]
            .map(|ranges| (keyspace(ranges), strong(ranges)))
            .to_vec(),
        // Keys that are spread by their hashes, as those of such stores are.
        Plane::Eventual => {
            let options = KeyspaceOptions {
                mode: Mode::Eventual,
                ..strong(SPREAD_RANGES)
            };
            vec![(EVENTUAL.to_owned(), options)]
        }
        // `dev` has made it.
        Plane::Etcd => Vec::new(),
    }
}

fn eventual(copies: Copies, ack: Ack) -> Level {
    Level::Eventual {
        copies: match copies {
            Copies::One => types::Copies::One,
            Copies::Quorum => types::Copies::Quorum,
        },
        strict: false,
        ack: match ack {
            Ack::Disk => types::Ack::Disk,
            Ack::Memory => types::Ack::Memory,
        },
    }
}

fn keyspace(ranges: u16) -> String {
    format!("bench-{ranges}")
}

async fn wait_for_file(ready: &Path, dev: &mut Child, log: &Path) -> Result<(), CompareError> {
    let begin = Instant::now();
    while !ready.exists() {
        let ended = dev.try_wait().map_err(CompareError::io("watch quorate"))?;
        if ended.is_some() {
            return Err(CompareError::Ended {
                store: Quorate::NAME,
                log: PathBuf::from(log),
            });
        }
        if begin.elapsed() > READY_MAX {
            return Err(CompareError::NotReady {
                store: Quorate::NAME,
                waited: READY_MAX,
            });
        }
        sleep(LOOK_PAUSE).await;
    }
    Ok(())
}

/// What the ready file says.
#[derive(Debug)]
struct Ready {
    endpoints: Vec<String>,
    etcd_endpoints: Vec<String>,
    pids: Vec<u32>,
}

fn parse_ready(text: &[u8]) -> Result<Ready, CompareError> {
    let lacks = |field| CompareError::ReadyFile { field };
    let value: Value = serde_json::from_slice(text).map_err(|_| lacks("JSON"))?;
    let nodes = value["nodes"].as_array().ok_or_else(|| lacks("nodes"))?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let endpoints: Option<Vec<String>> = nodes.iter().map(|node| text(&node["endpoint"])).collect();
    let pids: Option<Vec<u32>> = (nodes.iter())
        .map(|node| node["pid"].as_u64().and_then(|pid| pid.try_into().ok()))
        .collect();
    let etcd_endpoints = value["etcd"].as_array();
    Ok(Ready {
        endpoints: endpoints.ok_or_else(|| lacks("endpoint"))?,
        etcd_endpoints: etcd_endpoints
            .map_or_else(Vec::new, |list| list.iter().filter_map(text).collect()),
        pids: pids.ok_or_else(|| lacks("pid"))?,
    })
}

impl Store for Quorate {
    const NAME: &'static str = "Quorate";

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    async fn fill(&self, options: &LoadOptions) -> Result<(), BenchError> {
        let work = match self.plane {
            Plane::Strong => Work::Put,
            Plane::Eventual => Work::EventualPut(Copies::Quorum, Ack::Disk),
            Plane::Etcd => {
                let target = EtcdTarget::new(&self.etcd_endpoints, Work::Put);
                return preload(&target, options, |_| ()).await;
            }
        };
        preload(&self.target(work, 1), options, |_| ()).await
    }

    async fn load(
        &self,
        cell: Cell,
        options: LoadOptions,
        counter: Counter,
    ) -> Result<Report, BenchError> {
        if self.plane == Plane::Etcd {
            return load_by_etcd_api(&self.etcd_endpoints, cell.work, &options, counter).await;
        }
        if cell.work == Work::Empty {
            let target = EmptyTarget::new(self.endpoints.clone());
            return run_counted(target, &options, counter).await;
        }
        run_counted(self.target(cell.work, cell.ranges), &options, counter).await
    }

    fn etcd_endpoints(&self) -> &[String] {
        &self.etcd_endpoints
    }

    async fn stop(self) -> Result<(), CompareError> {
        stop(vec![self.dev]).await?;
        wait_for_end(&self.pids).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_ready_file_names_ports_and_processes() {
        let text =
            br#"{"nodes":[{"id":1,"pid":7,"endpoint":"127.0.0.1:1"}],"etcd":["127.0.0.1:2"]}"#;
        let ready = parse_ready(text).unwrap();
        assert_eq!(ready.endpoints, ["127.0.0.1:1"]);
        assert_eq!(ready.etcd_endpoints, ["127.0.0.1:2"]);
        assert_eq!(ready.pids, [7]);
        let error = parse_ready(br#"{"nodes":[{"id":1,"pid":7}]}"#).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
    }
}
