//! After the last fault: everything serves again within a bound, and replicas are the same.

use std::time::{Duration, Instant};

use quorate_proto::v1::{NodeStatus, RangeStatus, ReplicaStatus};
use quorate_types::Mode;
use serde_json::{Value as Json, json};

use crate::cluster::Cluster;
use crate::workload::KEYSPACE;

/// Each node serves a linearizable put by itself within this after the heal.
const SERVES_MAX: Duration = Duration::from_secs(20);
/// In what is said of replicas that hold other things than each other.
const DIFFER: &str = "differ";
/// Where the same ones do for so long, they stay so.
const STILL_MAX: Duration = Duration::from_secs(25);
/// Replicas hold the same within this after that, and nothing waits to be handed over or decided.
const SAME_MAX: Duration = Duration::from_secs(45);
const LOOK_PAUSE: Duration = Duration::from_millis(250);
const ASK_MAX: Duration = Duration::from_secs(10);

/// How the cluster came back.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    /// By node: after how long it served, or why it did not.
    pub(crate) serves: Vec<(usize, Result<Duration, String>)>,
    /// After how long replicas were the same, or how they were not; none: there is no way to look.
    pub(crate) same: Option<Result<Duration, String>>,
}

impl Recovery {
    /// Whether all of it came back in time.
    pub(crate) fn is_whole(&self) -> bool {
        self.same.as_ref().is_none_or(Result::is_ok)
            && self.serves.iter().all(|(_, serves)| serves.is_ok())
    }

    /// What is not as it should be.
    pub(crate) fn problems(&self) -> Vec<String> {
        let silent = self.serves.iter().filter_map(|(node, serves)| {
            let problem = serves.as_ref().err()?;
            Some(format!("node {node} does not serve again: {problem}"))
        });
        let differ = self.same.as_ref().and_then(|same| same.as_ref().err());
        let differ = differ.map(|problem| format!("replicas do not come to rest: {problem}"));
        silent.chain(differ).collect()
    }

    pub(crate) fn to_json(&self) -> Json {
        let told = |result: &Result<Duration, String>| match result {
            Ok(after) => json!({"ms": after.as_millis() as u64}),
            Err(problem) => json!({"problem": problem}),
        };
        let serves = self.serves.iter().map(|(node, serves)| {
            let mut serves = told(serves);
            serves["node"] = json!(node);
            serves
        });
        json!({"serves": serves.collect::<Vec<_>>(), "same": self.same.as_ref().map(told)})
    }
}

/// Waits for the cluster to come back; everything has been healed before.
/// Replicas are looked at in keyspaces of a mode; none: of a store that is not ours, whose replicas
/// nobody can look at.
pub(crate) async fn recover(cluster: &Cluster, mode: Option<Mode>) -> Recovery {
    let begin = Instant::now();
    let serving = cluster.ids().into_iter().map(async |id| {
        let serves = cluster.serves(id, SERVES_MAX).await;
        (id, serves.map(|_| begin.elapsed()))
    });
    let serves = futures::future::join_all(serving).await;
    let same = match (mode, serves.iter().any(|(_, serves)| serves.is_err())) {
        (None, _) => None,
        (Some(_), true) => Some(Err("not looked at, since nodes are missing".to_owned())),
        (Some(mode), false) => Some(same(cluster, mode, begin).await),
    };
    Recovery { serves, same }
}

async fn same(cluster: &Cluster, mode: Mode, begin: Instant) -> Result<Duration, String> {
    let deadline = Instant::now() + SAME_MAX;
    let mut last = String::new();
    let mut since = Instant::now();
    let mut is_delivered = false;
    loop {
        let rest = match is_delivered {
            true => rest(cluster, mode).await.map(|()| true),
            false => delivered(cluster).await.map(|()| false),
        };
        let problem = match rest {
            Ok(true) => return Ok(begin.elapsed()),
            // Whoever was sent it takes it up before the first look at what replicas hold.
            Ok(false) => {
                is_delivered = true;
                "what was sent has only just arrived".to_owned()
            }
            Err(problem) => problem,
        };
        // Damage may be found only now, when all is read.
        let replaced = cluster.replace_lost().await;
        replaced.map_err(|error| error.to_string())?;
        if problem != last || !problem.contains(DIFFER) {
            (last, since) = (problem.clone(), Instant::now());
        }
        if Instant::now() >= deadline || since.elapsed() >= STILL_MAX {
            return Err(problem);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Whether all that nodes have sent each other has arrived. A write that nobody waits for any more
/// may stand in a connection that was cut: the kernel tries again later and later, so that it comes
/// seconds after the heal, when replicas had long been the same.
async fn delivered(cluster: &Cluster) -> Result<(), String> {
    let bytes = cluster.hosts().on_their_way().await;
    match bytes.map_err(|error| error.to_string())? {
        0 => Ok(()),
        bytes => Err(format!("{bytes} bytes are on their way between nodes")),
    }
}

async fn rest(cluster: &Cluster, mode: Mode) -> Result<(), String> {
    let (nodes, ranges) = look(cluster).await?;
    nothing_kept(&nodes)?;
    ranges.iter().try_for_each(|range| at_rest(range, mode))
}

async fn look(cluster: &Cluster) -> Result<(Vec<NodeStatus>, Vec<RangeStatus>), String> {
    let client = cluster.client(&cluster.endpoints(), KEYSPACE, ASK_MAX);
    let admin = client.map_err(|error| error.to_string())?.admin();
    // First: what is handed over in between is with the replicas by then.
    let nodes = admin.status().await;
    let nodes = nodes.map_err(|error| error.to_string())?.nodes;
    let ranges = admin.ranges(KEYSPACE, true).await;
    let ranges = ranges.map_err(|error| error.to_string())?;
    match ranges.is_empty() {
        true => Err("the keyspace has no ranges".to_owned()),
        false => Ok((nodes, ranges)),
    }
}

/// Whether no stand-in keeps a write that the replicas may lack, however equal they are.
fn nothing_kept(nodes: &[NodeStatus]) -> Result<(), String> {
    nodes.iter().try_for_each(|node| match node.hints {
        _ if !node.reachable => Err(format!("node {} does not answer", node.id)),
        0 => Ok(()),
        hints => Err(format!("node {} keeps {hints} hints", node.id)),
    })
}

/// Whether all replicas of a range hold the same, and have nothing left to do.
fn at_rest(range: &RangeStatus, mode: Mode) -> Result<(), String> {
    let problem = |what: String| Err(format!("range {}: {what}", range.id));
    let Some((first, others)) = range.replicas.split_first() else {
        return problem("no replicas".to_owned());
    };
    if let Some(away) = range.replicas.iter().find(|one| one.role == "unreachable") {
        return problem(format!("node {} is not reached", away.node));
    }
    if mode != Mode::Eventual && first.hash.is_empty() {
        return problem(format!("node {} tells no hash", first.node));
    }
    for other in others {
        if mode != Mode::Eventual && first.hash_applied != other.hash_applied {
            let (a, b) = (first.hash_applied, other.hash_applied);
            return problem(format!(
                "nodes {} and {} are at {a} and {b}",
                first.node, other.node
            ));
        }
        if first.hash != other.hash {
            return problem(format!("nodes {} and {} differ", first.node, other.node));
        }
    }
    eventual_at_rest(&range.replicas).or_else(problem)
}

fn eventual_at_rest(replicas: &[ReplicaStatus]) -> Result<(), String> {
    let mut first: Option<&str> = None;
    for replica in replicas {
        let Some(eventual) = &replica.eventual else {
            continue;
        };
        let node = replica.node;
        if !eventual.filled {
            return Err(format!("node {node} is not filled"));
        }
        if eventual.overlay_rows > 0 {
            let rows = eventual.overlay_rows;
            return Err(format!(
                "node {node} has {rows} keys that the log has not decided"
            ));
        }
        match first {
            None => first = Some(&eventual.hash),
            Some(hash) if hash != eventual.hash => {
                return Err(format!("node {node}'s eventual plane differs"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: u64, hash: &str, applied: u64) -> ReplicaStatus {
        ReplicaStatus {
            node,
            role: "follower".to_owned(),
            hash: hash.to_owned(),
            hash_applied: applied,
            ..ReplicaStatus::default()
        }
    }

    #[test]
    fn replicas_at_rest_are_equal_at_one_position() {
        let range = |replicas| RangeStatus {
            replicas,
            ..RangeStatus::default()
        };
        let check = |replicas| at_rest(&range(replicas), Mode::Mixed);
        assert_eq!(check(vec![replica(1, "a", 7), replica(2, "a", 7)]), Ok(()));
        assert!(check(vec![replica(1, "a", 7), replica(2, "b", 7)]).is_err());
        assert!(check(vec![replica(1, "a", 7), replica(2, "a", 8)]).is_err());
        assert!(check(vec![replica(1, "", 7)]).is_err());
        assert!(check(Vec::new()).is_err());
    }

    #[test]
    fn a_stand_in_that_keeps_a_hint_is_not_at_rest() {
        let node = |id, hints| NodeStatus {
            id,
            hints,
            reachable: true,
            ..NodeStatus::default()
        };
        assert_eq!(nothing_kept(&[node(1, 0), node(2, 0)]), Ok(()));
        let kept = nothing_kept(&[node(1, 0), node(2, 3)]);
        assert_eq!(kept, Err("node 2 keeps 3 hints".to_owned()));
    }
}
