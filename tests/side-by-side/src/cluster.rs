//! Three nodes of Quorate under `quorate dev`, and loads on them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate::bench::{BenchError, LoadOptions, QuorateTarget, Report, preload};
use quorate_client::{Client, ClientOptions};
use quorate_types::{KeyspaceOptions, Ladder, Level, Partitioning};
use serde_json::Value;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::cell::{Cell, Work};
use crate::empty::EmptyTarget;
use crate::error::CompareError;
use crate::store::{Counter, LOOK_PAUSE, NODES, Store, run_counted, spawn, stop, wait_for_end};

/// How long the cluster may take until it serves.
const READY_MAX: Duration = Duration::from_secs(30);
/// Ranges of the keyspace that is spread.
const SPREAD_RANGES: u16 = 16;

/// A running cluster of Quorate.
#[derive(Debug)]
pub struct Quorate {
    dev: Child,
    pids: Vec<u32>,
    endpoints: Vec<String>,
}

impl Quorate {
    /// Starts `quorate dev` with its data in `dir`, and makes the keyspaces of the loads.
    ///
    /// # Errors
    ///
    /// It does not start or serve in time, or refuses a keyspace.
    pub async fn start(program: &Path, dir: &Path) -> Result<Self, CompareError> {
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
        let (endpoints, pids) = parse_ready(&text)?;
        let quorate = Self {
            dev,
            pids,
            endpoints,
        };
        quorate.create_keyspaces().await?;
        Ok(quorate)
    }

    async fn create_keyspaces(&self) -> Result<(), CompareError> {
        let admin = Client::connect(self.client(1))?.admin();
        for ranges in [1, SPREAD_RANGES] {
            let partitioning = match ranges {
                1 => Partitioning::Ordered,
                _ => Partitioning::Hash(ranges),
            };
            let options = KeyspaceOptions {
                partitioning,
                ..KeyspaceOptions::default()
            };
            admin.create_keyspace(&keyspace(ranges), &options).await?;
        }
        Ok(())
    }

    fn client(&self, ranges: u16) -> ClientOptions {
        ClientOptions {
            endpoints: self.endpoints.clone(),
            keyspace: keyspace(ranges),
            ..ClientOptions::default()
        }
    }

    fn target(&self, work: Work, ranges: u16) -> QuorateTarget {
        let level = match work {
            Work::StaleGet => Level::Stale,
            Work::Put | Work::Get | Work::Empty => Level::Linearizable,
        };
        QuorateTarget {
            client: self.client(ranges),
            read: Some(Ladder::from(level)),
            write: Some(Ladder::from(Level::Linearizable)),
            fence: false,
        }
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

/// Endpoints and processes.
fn parse_ready(text: &[u8]) -> Result<(Vec<String>, Vec<u32>), CompareError> {
    let lacks = |field| CompareError::ReadyFile { field };
    let value: Value = serde_json::from_slice(text).map_err(|_| lacks("JSON"))?;
    let nodes = value["nodes"].as_array().ok_or_else(|| lacks("nodes"))?;
    let endpoints: Option<Vec<String>> = (nodes.iter())
        .map(|node| node["endpoint"].as_str().map(str::to_owned))
        .collect();
    let pids: Option<Vec<u32>> = (nodes.iter())
        .map(|node| node["pid"].as_u64().and_then(|pid| pid.try_into().ok()))
        .collect();
    Ok((
        endpoints.ok_or_else(|| lacks("endpoint"))?,
        pids.ok_or_else(|| lacks("pid"))?,
    ))
}

impl Store for Quorate {
    const NAME: &'static str = "Quorate";

    fn pids(&self) -> &[u32] {
        &self.pids
    }

    async fn fill(&self, options: &LoadOptions) -> Result<(), BenchError> {
        preload(&self.target(Work::Put, 1), options, |_| ()).await
    }

    async fn load(
        &self,
        cell: Cell,
        options: LoadOptions,
        counter: Counter,
    ) -> Result<Report, BenchError> {
        if cell.work == Work::Empty {
            let target = EmptyTarget::new(self.endpoints.clone());
            return run_counted(target, &options, counter).await;
        }
        run_counted(self.target(cell.work, cell.ranges), &options, counter).await
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
        let text = br#"{"nodes":[{"id":1,"pid":7,"endpoint":"127.0.0.1:1"}]}"#;
        let (endpoints, pids) = parse_ready(text).unwrap();
        assert_eq!((endpoints[0].as_str(), pids), ("127.0.0.1:1", vec![7]));
        let error = parse_ready(br#"{"nodes":[{"id":1,"pid":7}]}"#).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
    }
}
