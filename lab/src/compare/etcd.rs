//! etcd under comparison: its processes in the same namespaces, and the operations that it has, by
//! the JSON gateway on its client port.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_types::chain;
use serde_json::{Value as Json, json};
use tokio::process::Command;
use tokio::sync::Mutex;

use super::http::{Http, HttpError};
use super::options::ComparePlan;
use super::probe::{Act, AgePromise, Plane, Probe};
use super::sample::End;
use super::sides::Standing;
use super::target::{Answer, Call, LastLevel, Target};
use crate::caller::number;
use crate::error::LabError;
use crate::hosts::{Hosts, Meet};
use crate::node::Node;

/// A cluster that has just been started serves after this, or never.
const READY_MAX: Duration = Duration::from_secs(60);
/// After the heal: each member serves, and all hold the same.
const RECOVER_MAX: Duration = Duration::from_secs(60);
const ASK_MAX: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// A member ends with the process that started it (util-linux).
const END_WITH_PARENT: [&str; 3] = ["setpriv", "--pdeathsig", "KILL"];

/// Where its gateway has the hash of all keys: from 3.5 on, and before.
const HASH_PATHS: [&str; 2] = ["/v3/maintenance/hashkv", "/v3/maintenance/hash"];

/// Its place among the probes.
const SERIALIZABLE_READ: usize = 1;

/// A cluster that runs.
pub(crate) struct Etcd {
    hosts: Arc<dyn Hosts>,
    nodes: Vec<Mutex<Node>>,
    /// By node.
    clients: Vec<Http>,
    probes: Vec<Probe>,
    timeout: Duration,
    version: String,
}

/// What a member tells of itself.
struct Status {
    member: String,
    leader: String,
}

impl Etcd {
    /// Starts all members, and waits until they serve.
    pub(crate) async fn start(plan: &ComparePlan) -> Result<Self, LabError> {
        let options = &plan.options;
        let hosts = plan.hosts.open(options.nodes, Meet::WithClients).await?;
        let ids = 1..=options.nodes;
        let log = |id| options.dir.join(format!("node-{id}.log"));
        let mut etcd = Self {
            nodes: ids
                .clone()
                .map(|id| Mutex::new(Node::new(id, log(id))))
                .collect(),
            clients: ids.map(|id| Http::new(hosts.http(id))).collect(),
            probes: vec![
                Probe::read("linearizable", AgePromise::Fresh),
                Probe::read("serializable", AgePromise::None),
                Probe::write("linearizable", Some(Plane::Strong)),
            ],
            hosts,
            timeout: options.timeout,
            version: String::new(),
        };
        match etcd
            .start_all(&plan.program, &options.dir.join("data"))
            .await
        {
            Ok(version) => {
                etcd.version = version;
                Ok(etcd)
            }
            Err(error) => {
                etcd.close().await;
                Err(error)
            }
        }
    }

    async fn start_all(&self, program: &Path, data: &Path) -> Result<String, LabError> {
        std::fs::create_dir_all(data).map_err(|error| LabError::file(data, error))?;
        for id in self.ids() {
            let command = self.command(id, program, data.join(format!("node-{id}")));
            self.nodes[id - 1].lock().await.start(command)?;
        }
        self.wait_until_ready().await?;
        let version = self.clients[0].get("/version").await.unwrap_or_default();
        let version: Json = serde_json::from_str(&version).unwrap_or_default();
        Ok(version["etcdserver"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    fn ids(&self) -> Vec<usize> {
        (1..=self.nodes.len()).collect()
    }

    fn peer_url(&self, id: usize) -> String {
        format!("http://{}", self.hosts.listen(id))
    }

    fn command(&self, id: usize, program: &Path, dir: PathBuf) -> Command {
        let [wrapper, arguments @ ..] = END_WITH_PARENT;
        let mut command = self.hosts.command(id, Path::new(wrapper));
        command.args(arguments).arg(program);
        let (peer, client) = (self.peer_url(id), format!("http://{}", self.hosts.http(id)));
        let members = self.ids().into_iter();
        let members = members.map(|id| format!("node-{id}={}", self.peer_url(id)));
        let members: Vec<String> = members.collect();
        command.arg(format!("--name=node-{id}"));
        command.arg(format!("--data-dir={}", dir.display()));
        command.arg(format!("--listen-peer-urls={peer}"));
        command.arg(format!("--initial-advertise-peer-urls={peer}"));
        command.arg(format!("--listen-client-urls={client}"));
        command.arg(format!("--advertise-client-urls={client}"));
        command.arg(format!("--initial-cluster={}", members.join(",")));
        command.args([
            "--initial-cluster-state=new",
            "--initial-cluster-token=quorate-lab",
        ]);
        command
    }

    async fn wait_until_ready(&self) -> Result<(), LabError> {
        let serving = self.serving(READY_MAX).await;
        serving.map_err(|problems| LabError::NotReady {
            waited_seconds: READY_MAX.as_secs(),
            problem: problems.join("; "),
        })
    }

    /// Waits until each member takes a put by itself.
    async fn serving(&self, longest: Duration) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + longest;
        let waiting = self.ids().into_iter().map(async |id| {
            loop {
                let problem = match self.put(id, "lab/ready", "yes", ASK_MAX).await {
                    Ok(_) => return Ok(()),
                    Err(problem) => problem,
                };
                if Instant::now() >= deadline || !self.nodes[id - 1].lock().await.is_running() {
                    return Err(format!("member {id} does not serve: {problem}"));
                }
                tokio::time::sleep(LOOK_PAUSE).await;
            }
        });
        let served = futures::future::join_all(waiting).await;
        let problems: Vec<String> = served.into_iter().filter_map(Result::err).collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// Asks a member, and says in words what was wrong.
    async fn ask(
        &self,
        id: usize,
        path: &str,
        asked: Json,
        most: Duration,
    ) -> Result<Json, String> {
        let answer = tokio::time::timeout(most, self.clients[id - 1].post(path, &asked)).await;
        match answer {
            Ok(answer) => answer.map_err(|error| chain(&error)),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn put(&self, id: usize, key: &str, value: &str, most: Duration) -> Result<Json, String> {
        self.ask(id, "/v3/kv/put", put_request(key, value), most)
            .await
    }

    async fn status(&self, id: usize) -> Option<Status> {
        let path = "/v3/maintenance/status";
        let status = self.ask(id, path, json!({}), ASK_MAX).await.ok()?;
        let text = |value: &Json| Some(value.as_str()?.to_owned());
        Some(Status {
            member: text(&status["header"]["member_id"])?,
            leader: text(&status["leader"])?,
        })
    }

    /// The hash of all that a member holds.
    async fn hash(&self, id: usize) -> Result<Json, String> {
        let mut problem = String::new();
        for path in HASH_PATHS {
            match self.ask(id, path, json!({}), ASK_MAX).await {
                Ok(hash) => return Ok(hash),
                Err(other) => problem = other,
            }
        }
        Err(problem)
    }

    /// Whether all members hold the same, or how not.
    async fn same(&self) -> Result<(), String> {
        let mut hashes = Vec::new();
        for id in self.ids() {
            let hash = self.hash(id).await?;
            hashes.push((hash["header"]["revision"].clone(), hash["hash"].clone()));
        }
        match hashes.iter().all(|hash| *hash == hashes[0]) {
            true => Ok(()),
            false => Err(format!("members differ: {hashes:?}")),
        }
    }
}

fn put_request(key: &str, value: &str) -> Json {
    json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)})
}

fn range_request(key: &str, serializable: bool) -> Json {
    json!({"key": STANDARD.encode(key), "serializable": serializable})
}

/// The numbers that a range's answer holds; what is none is told as it is damaged.
fn values(answer: &Json) -> Vec<i64> {
    let rows = answer["kvs"].as_array().into_iter().flatten();
    let value = |row: &Json| STANDARD.decode(row["value"].as_str().unwrap_or_default());
    rows.map(|row| number(&value(row).unwrap_or_default()))
        .collect()
}

/// What a failed call was. A write that was refused may have been proposed before.
fn failed(error: &HttpError) -> Answer {
    let (came_to, problem) = match error {
        HttpError::Status { body, .. } => {
            let body: Json = serde_json::from_str(body).unwrap_or_default();
            let message = body["message"].as_str().unwrap_or("an error without words");
            let silent = message.contains("timed out") || message.contains("deadline");
            (
                if silent { End::Silent } else { End::Refused },
                message.to_owned(),
            )
        }
        HttpError::Connect(_)
        | HttpError::Broken(_)
        | HttpError::Body(_)
        | HttpError::Request(_) => (End::Silent, chain(error)),
    };
    Answer::failed(came_to, true, problem)
}

#[async_trait]
impl Target for Etcd {
    fn name(&self) -> String {
        format!("etcd {}", self.version).trim_end().to_owned()
    }

    fn probes(&self) -> &[Probe] {
        &self.probes
    }

    fn rungs(&self, _probe: usize) -> usize {
        1
    }

    fn remarks(&self) -> Vec<String> {
        vec![
            "A member on each node. Through the JSON gateway on its client port, which adds a hop within \
             the member: latencies are not those of its gRPC clients."
                .to_owned(),
        ]
    }

    fn hosts(&self) -> &dyn Hosts {
        &*self.hosts
    }

    async fn standing(&self) -> Result<Standing, LabError> {
        let mut leads = None;
        for id in self.ids() {
            let status = self.status(id).await;
            if status.is_some_and(|status| status.member == status.leader) {
                leads = Some(id);
            }
        }
        Ok(Standing {
            nodes: self.ids(),
            primaries: self.ids(),
            leader: leads,
        })
    }

    async fn perform(&self, call: &Call) -> Answer {
        let client = &self.clients[call.node - 1];
        let (path, asked) = match (self.probes[call.probe].act, call.value) {
            (Act::Write, Some(value)) => ("/v3/kv/put", put_request(&call.key, &value.to_string())),
            (Act::Read, _) | (Act::Write, None) => {
                let serializable = call.probe == SERIALIZABLE_READ;
                ("/v3/kv/range", range_request(&call.key, serializable))
            }
        };
        match tokio::time::timeout(self.timeout, client.post(path, &asked)).await {
            Ok(Ok(answer)) => Answer::done(0, values(&answer)),
            Ok(Err(error)) => failed(&error),
            Err(_) => Answer::failed(End::Silent, true, "no answer in time".to_owned()),
        }
    }

    async fn last(&self, node: usize, key: &str, level: LastLevel) -> Result<Vec<i64>, String> {
        let serializable = level == LastLevel::Local;
        let asked = range_request(key, serializable);
        let answer = self.ask(node, "/v3/kv/range", asked, RECOVER_MAX).await?;
        Ok(values(&answer))
    }

    async fn repaired(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    async fn heal(&self) -> Result<(), LabError> {
        self.hosts.cut(&Default::default()).await
    }

    async fn recover(&self) -> Result<Duration, Vec<String>> {
        let begin = Instant::now();
        self.serving(RECOVER_MAX).await?;
        while let Err(problem) = self.same().await {
            if begin.elapsed() > RECOVER_MAX {
                return Err(vec![problem]);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(begin.elapsed())
    }

    async fn close(&self) {
        for node in &self.nodes {
            // A process that cannot be killed ends with this one.
            let _ = node.lock().await.kill().await;
        }
        self.hosts.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_travel_in_base64() {
        assert_eq!(
            put_request("own/2", "17"),
            json!({"key": "b3duLzI=", "value": "MTc="})
        );
        assert_eq!(range_request("a", true)["serializable"], true);
        let answer = json!({"header": {}, "kvs": [{"key": "YQ==", "value": "MTc="}], "count": "1"});
        assert_eq!(values(&answer), [17]);
        assert_eq!(values(&json!({"header": {}})), [0; 0]);
        assert_eq!(values(&json!({"kvs": [{"value": "eA=="}]})), [i64::MIN]);
    }

    #[test]
    fn what_it_refuses_is_told_apart_from_what_takes_too_long() {
        let check = |message: &str, expected| {
            let body = json!({"error": message, "code": 14, "message": message}).to_string();
            let answer = failed(&HttpError::Status { status: 503, body });
            assert_eq!(answer.came_to, expected, "{message}");
            assert!(answer.may_apply);
        };
        check("etcdserver: no leader", End::Refused);
        check("etcdserver: request timed out", End::Silent);
    }
}
