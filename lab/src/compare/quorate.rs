//! Quorate under comparison: which levels, and how each is asked for.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quorate_client::{
    Client, ClientError, ClientOptions, Code, ReadOptions, Receipt, SESSION_BEGIN, WriteOptions,
};
use quorate_types::{Copies, Effect, KeyspaceOptions, Ladder, Level, Mode};

use super::http::Http;
use super::options::ComparePlan;
use super::probe::{Act, AgePromise, Plane, Probe};
use super::sample::{End, Side};
use super::sides::Standing;
use super::target::{Answer, Call, LastLevel, Target};
use crate::caller::{numbers, problem};
use crate::cluster::Cluster;
use crate::error::LabError;
use crate::hosts::Hosts;
use crate::recovery::recover;
use crate::run::make_keyspace;
use crate::workload::KEYSPACE;

const BOUND_MS: u64 = 5_000;
/// The last reads have all the time they need.
const LAST_MAX: Duration = Duration::from_secs(30);
const METRICS_MAX: Duration = Duration::from_secs(5);
/// What nodes count of what they move to come together, by its name in the results.
const REPAIRS: [(&str, &str); 2] = [
    ("repair of differences", "quorate_repair_bytes_total"),
    ("hand-over of hints", "quorate_hint_bytes_handed_over_total"),
];

/// Reads, and what each promises of age.
const READS: [(&str, AgePromise); 8] = [
    ("linearizable", AgePromise::Fresh),
    ("bounded:5s", AgePromise::Bounded { age_ms: BOUND_MS }),
    ("session", AgePromise::None),
    ("stale", AgePromise::None),
    ("eventual:one", AgePromise::None),
    ("eventual:quorum", AgePromise::None),
    ("eventual:all", AgePromise::None),
    ("linearizable@200ms > eventual:one", AgePromise::None),
];

/// Writes, and whether reads look at them.
const WRITES: [(&str, Option<Plane>); 7] = [
    ("linearizable", Some(Plane::Strong)),
    ("eventual:one", Some(Plane::Eventual)),
    ("eventual:quorum", None),
    ("eventual:quorum,strict", None),
    ("eventual:all", None),
    ("eventual:all,strict", None),
    ("linearizable@200ms > eventual:one", None),
];

/// A cluster that runs.
pub(crate) struct Quorate {
    cluster: Cluster,
    probes: Vec<Probe>,
    ladders: Vec<Ladder>,
    /// By node: those that are measured, and those of the last reads, which have their time.
    clients: Vec<Client>,
    readers: Vec<Client>,
    metrics: Vec<Http>,
    /// Sessions of each side that are not in use: a session does one thing at a time.
    sessions: [Mutex<Vec<Bytes>>; 2],
    replication: usize,
}

/// How the nodes are reached.
struct Ways {
    clients: Vec<Client>,
    readers: Vec<Client>,
    metrics: Vec<Http>,
}

impl Quorate {
    /// Starts the nodes, and makes the keyspace.
    pub(crate) async fn start(plan: &ComparePlan) -> Result<Self, LabError> {
        let options = &plan.options;
        let cluster =
            Cluster::start_on(plan.hosts, options.nodes, &options.dir, &plan.program).await?;
        let built = Self::build(plan, &cluster).await;
        match built {
            Ok(Ways {
                clients,
                readers,
                metrics,
            }) => {
                let reads = READS.map(|(level, promise)| Probe::read(level, promise));
                let writes = WRITES.map(|(level, shows)| Probe::write(level, shows));
                let probes: Vec<Probe> = reads.into_iter().chain(writes).collect();
                let ladder = |probe: &Probe| probe.level.parse().expect("levels are written above");
                Ok(Self {
                    ladders: probes.iter().map(ladder).collect(),
                    probes,
                    clients,
                    readers,
                    metrics,
                    sessions: Default::default(),
                    replication: plan.replication.into(),
                    cluster,
                })
            }
            Err(error) => {
                cluster.close().await;
                Err(error)
            }
        }
    }

    async fn build(plan: &ComparePlan, cluster: &Cluster) -> Result<Ways, LabError> {
        let keyspace = KeyspaceOptions {
            mode: Mode::Mixed,
            replication: plan.replication,
            ..KeyspaceOptions::default()
        };
        make_keyspace(cluster, &keyspace).await?;
        let timeout = plan.options.timeout;
        let client = |endpoint| {
            Client::connect(ClientOptions {
                endpoints: vec![endpoint],
                keyspace: KEYSPACE.to_owned(),
                timeout,
                attempt_timeout: timeout,
                retries: false,
                ..ClientOptions::default()
            })
        };
        let clients: Result<_, _> = cluster.endpoints().into_iter().map(client).collect();
        let metrics = cluster.ids().into_iter();
        let metrics = metrics.map(|id| Http::new(cluster.hosts().http(id)));
        let endpoints = cluster.endpoints().into_iter();
        let readers = endpoints.map(|endpoint| cluster.client(&[endpoint], KEYSPACE, LAST_MAX));
        Ok(Ways {
            clients: clients.map_err(LabError::Prepare)?,
            readers: readers.collect::<Result<_, _>>()?,
            metrics: metrics.collect(),
        })
    }

    async fn read(&self, call: &Call, client: &Client) -> Result<Answer, ClientError> {
        let ladder = self.ladders[call.probe].clone();
        let session = ladder
            .rungs()
            .iter()
            .any(|rung| rung.level == Level::Session);
        let token = match session {
            true => self.take_session(call.side),
            false => Bytes::new(),
        };
        let options = ReadOptions {
            ladder: Some(ladder),
            token: token.clone(),
            ..ReadOptions::default()
        };
        let got = client.get_with(call.key.clone(), options).await;
        if session {
            let next = got.as_ref().ok().map(|got| &got.receipt.session_token);
            let next = next.filter(|token| !token.is_empty()).unwrap_or(&token);
            self.free_sessions(call.side).push(next.clone());
        }
        let got = got?;
        Ok(Answer::done(got.receipt.rung, numbers(&got)))
    }

    async fn write(&self, call: &Call, value: i64, client: &Client) -> Result<Answer, ClientError> {
        let options = WriteOptions {
            ladder: Some(self.ladders[call.probe].clone()),
            ..WriteOptions::default()
        };
        let written = client.put_with(call.key.clone(), value.to_string(), options);
        let Receipt { rung, .. } = written.await?.receipt;
        Ok(Answer::done(rung, Vec::new()))
    }

    fn free_sessions(&self, side: Side) -> std::sync::MutexGuard<'_, Vec<Bytes>> {
        let free = self.sessions[side.place()].lock();
        free.expect("nobody panics while taking a session")
    }

    fn take_session(&self, side: Side) -> Bytes {
        self.free_sessions(side).pop().unwrap_or(SESSION_BEGIN)
    }
}

/// What a failed call was: told, or not answered in time.
fn failed(error: &ClientError) -> Answer {
    let came_to = match error {
        ClientError::Lost(_) => End::Silent,
        ClientError::Server(server) if server.code == Code::DeadlineExceeded => End::Silent,
        ClientError::Server(_) | ClientError::Invalid(_) => End::Refused,
    };
    let may_apply = match error.effect() {
        Effect::None => false,
        Effect::Applied | Effect::Unknown => true,
    };
    Answer::failed(came_to, may_apply, problem(error))
}

/// The samples of one counter in a page of metrics, whatever their labels, together.
fn counted(page: &str, name: &str) -> u64 {
    let of_name = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    };
    let values = page.lines().filter(of_name);
    let values = values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.map(|value| value as u64).sum()
}

#[async_trait]
impl Target for Quorate {
    fn name(&self) -> String {
        "Quorate".to_owned()
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn rungs(&self, probe: usize) -> usize {
        self.ladders[probe].rungs().len()
    }

    fn remarks(&self) -> Vec<String> {
        let primaries = self.replication;
        vec![
            format!(
                "One range with {primaries} primaries. Levels of the log ask a majority of these; eventual ones \
                 take any node, unless they are strict: then primaries alone count."
            ),
            "Strong levels do not show an eventual write before the log has absorbed it, which takes a \
             leader that can be reached: so they are behind eventual writes of the other side for as \
             long as it is cut. They are never behind strong ones, where they promise that."
                .to_owned(),
        ]
    }

    fn hosts(&self) -> &dyn Hosts {
        self.cluster.hosts()
    }

    async fn standing(&self) -> Result<Standing, LabError> {
        let endpoints = self.cluster.endpoints();
        let client = self.cluster.client(&endpoints, KEYSPACE, LAST_MAX)?;
        let ranges = client.admin().ranges(KEYSPACE, false).await;
        let ranges = ranges.map_err(LabError::Prepare)?;
        let range = ranges.first();
        let replicas = range.into_iter().flat_map(|range| &range.replicas);
        let number = |node: u64| usize::try_from(node).expect("a run has a few nodes");
        Ok(Standing {
            nodes: self.cluster.ids(),
            primaries: replicas.map(|replica| number(replica.node)).collect(),
            leader: range
                .filter(|range| range.leader > 0)
                .map(|range| number(range.leader)),
        })
    }

    async fn perform(&self, call: &Call) -> Answer {
        let client = &self.clients[call.node - 1];
        let answer = match (self.probes[call.probe].act, call.value) {
            (Act::Write, Some(value)) => self.write(call, value, client).await,
            (Act::Read, _) | (Act::Write, None) => self.read(call, client).await,
        };
        answer.unwrap_or_else(|error| failed(&error))
    }

    async fn last(&self, node: usize, key: &str, level: LastLevel) -> Result<Vec<i64>, String> {
        let level = match level {
            LastLevel::Local => Level::eventual(Copies::One),
            LastLevel::Decided => Level::Linearizable,
        };
        let options = ReadOptions {
            ladder: Some(level.into()),
            ..ReadOptions::default()
        };
        let client = &self.readers[node - 1];
        let got = client.get_with(key.to_owned(), options).await;
        got.map(|got| numbers(&got))
            .map_err(|error| error.to_string())
    }

    async fn repaired(&self) -> BTreeMap<String, u64> {
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for node in &self.metrics {
            // A node that does not tell has been told of by its calls.
            let page = tokio::time::timeout(METRICS_MAX, node.get("/metrics")).await;
            let page = page.ok().and_then(Result::ok).unwrap_or_default();
            for (what, counter) in REPAIRS {
                *bytes.entry(what.to_owned()).or_default() += counted(&page, counter);
            }
        }
        bytes
    }

    async fn heal(&self) -> Result<(), LabError> {
        self.cluster.heal().await
    }

    async fn recover(&self) -> Result<Duration, Vec<String>> {
        let recovery = recover(&self.cluster, Some(Mode::Mixed)).await;
        match (&recovery.same, recovery.is_whole()) {
            (Some(Ok(after)), true) => Ok(*after),
            _ => Err(recovery.problems()),
        }
    }

    async fn close(&self) {
        self.cluster.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_levels_are_levels() {
        for (level, _) in READS {
            let ladder: Result<Ladder, _> = level.parse();
            let rungs = ladder.map(|ladder| ladder.rungs().to_vec());
            assert!(rungs.is_ok_and(|rungs| rungs.iter().all(|rung| rung.level.read().is_ok())));
        }
        for (level, _) in WRITES {
            let ladder: Result<Ladder, _> = level.parse();
            let rungs = ladder.map(|ladder| ladder.rungs().to_vec());
            assert!(rungs.is_ok_and(|rungs| rungs.iter().all(|rung| rung.level.write().is_ok())));
        }
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        let page = "# TYPE a counter\na 3\na{node=\"2\"} 4\nab 100\n";
        assert_eq!(counted(page, "a"), 7);
        assert_eq!(counted(page, "b"), 0);
    }
}
