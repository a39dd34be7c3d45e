//! What a run is to do, checked before anything is started.

use std::path::PathBuf;
use std::time::Duration;

use quorate_types::{Ack, Copies, Ladder, Level, Mode};

use crate::error::LabError;
use crate::foreign::ForeignStore;
use crate::hosts::HostsKind;
use crate::nemesis::Nemesis;
use crate::workload::WorkloadKind;

/// Most nodes of a run.
pub const NODES_MAX: usize = 9;
/// Nodes that stand ready where data is damaged.
const SPARES: usize = 2;
/// Longest run.
pub const TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Most clients at once.
pub const CLIENTS_MAX: usize = 200;

/// What can be asked for; the rest has defaults.
#[derive(Clone, Debug)]
pub struct PlanOptions {
    /// What clients do.
    pub workload: WorkloadKind,
    /// What is done to the nodes; none: nothing.
    pub nemeses: Vec<Nemesis>,
    /// How many nodes.
    pub nodes: usize,
    /// How long clients work.
    pub time: Duration,
    /// Which choices are made.
    pub seed: u64,
    /// The level of calls; none: the workload's own.
    pub level: Option<Ladder>,
    /// Where nodes live; none: namespaces where they can be had, else proxies.
    pub hosts: Option<HostsKind>,
    /// Folder of all that the run leaves.
    pub dir: PathBuf,
    /// The program whose `server` command is a node.
    pub program: PathBuf,
    /// How many clients work at once.
    pub clients: usize,
    /// Calls a second, all clients together.
    pub rate_per_second: f64,
    /// The mode of the workload's keyspace; none: the workload's own.
    pub mode: Option<Mode>,
    /// Primaries of each range; none: the workload's own.
    pub replication: Option<u8>,
    /// A run in which a smaller share of calls was answered does not count, percent.
    pub served_min_percent: u8,
    /// The store under test, if it is not Quorate.
    pub foreign: Option<ForeignStore>,
    /// Keep the nodes' data after a run in which all went well.
    pub keep_data: bool,
    /// Attempts without an answer are made again by workloads that do not by themselves, since
    /// another coordinator would make a second write of it.
    pub retries: bool,
    /// What else each node is told on its command line.
    pub node_arguments: Vec<String>,
}

/// A run that can be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) options: PlanOptions,
    pub(crate) hosts: HostsKind,
}

impl Plan {
    /// Checks what can be checked before anything is started.
    ///
    /// # Errors
    ///
    /// [`LabError::Refused`] names what does not fit.
    pub async fn new(options: PlanOptions) -> Result<Self, LabError> {
        within("--nodes", options.nodes, 1, NODES_MAX)?;
        within("--clients", options.clients, 1, CLIENTS_MAX)?;
        if options.time.is_zero() || options.time > TIME_MAX {
            let what = format!("--time {:?} is not within {TIME_MAX:?}", options.time);
            return Err(LabError::refused(what, ""));
        }
        if !(options.rate_per_second > 0.0 && options.rate_per_second <= 100_000.0) {
            let what = format!("--rate {} is no rate", options.rate_per_second);
            return Err(LabError::refused(what, "above 0, at most 100000"));
        }
        for nemesis in &options.nemeses {
            nemesis.check(options.nodes)?;
        }
        check_copies(&options)?;
        let hosts = HostsKind::choose(options.hosts, &options.nemeses).await?;
        let plan = Self { options, hosts };
        // A workload that does not know the level, or a keyspace that does not serve it.
        plan.options.workload.check(&plan.options)?;
        Ok(plan)
    }

    /// Nodes that can take the place of lost ones.
    pub(crate) fn spares(&self) -> usize {
        match self.options.nemeses.contains(&Nemesis::BitFlip) {
            true => SPARES,
            false => 0,
        }
    }

    /// Where the nodes will live.
    pub fn hosts(&self) -> HostsKind {
        self.hosts
    }

    /// What was asked for.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// The command that does the same again.
    pub fn command(&self) -> String {
        let options = &self.options;
        let nemeses: Vec<&str> = options
            .nemeses
            .iter()
            .map(|nemesis| nemesis.name())
            .collect();
        let nemeses = if nemeses.is_empty() {
            "none".to_owned()
        } else {
            nemeses.join(",")
        };
        let mut command = format!(
            "quorate jepsen run --workload {} --nemesis {nemeses} --nodes {} --time {} --seed {} \
             --hosts {} --clients {} --rate {}",
            options.workload.name(),
            options.nodes,
            quorate_types::format_duration(options.time),
            options.seed,
            self.hosts.name(),
            options.clients,
            options.rate_per_second,
        );
        if let Some(store) = &options.foreign {
            command += &format!(" --node '{}' --client '{}'", store.node, store.client);
        }
        if let Some(level) = &options.level {
            command += &format!(" --level '{level}'");
        }
        if let Some(mode) = options.mode {
            command += &format!(" --mode {mode}");
        }
        if let Some(replication) = options.replication {
            command += &format!(" --replication {replication}");
        }
        if options.retries {
            command += " --retries";
        }
        for argument in &options.node_arguments {
            command += &format!(" {argument}");
        }
        command
    }
}

/// Damage of one node's data is none of the cluster's only where each write is elsewhere, too; and
/// a write that need not be on any disk may be lost with the power.
fn check_copies(options: &PlanOptions) -> Result<(), LabError> {
    let has = |nemesis| options.nemeses.contains(&nemesis);
    let own = options.workload.own_level();
    let levels = options
        .level
        .iter()
        .flat_map(Ladder::rungs)
        .map(|rung| rung.level);
    for level in levels.chain(own.filter(|_| options.level.is_none())) {
        let Level::Eventual { copies, ack, .. } = level else {
            continue;
        };
        if has(Nemesis::BitFlip) && matches!(copies, Copies::One | Copies::Count(1)) {
            let what = format!("a write at {level} may be on the one disk that bit-flip damages");
            return Err(LabError::refused(what, "try --level eventual:quorum"));
        }
        let cuts = has(Nemesis::PowerCut) || has(Nemesis::PowerCutAll);
        if cuts && ack == Ack::Memory {
            let what = format!("a write at {level} may be lost in a power cut");
            return Err(LabError::refused(what, "try a level without `,memory`"));
        }
    }
    let replication = options.replication.map_or(options.nodes, usize::from);
    if has(Nemesis::BitFlip) && replication < 3 {
        let what = format!("bit-flip takes 3 replicas of each range, not {replication}");
        return Err(LabError::refused(what, ""));
    }
    Ok(())
}

fn within(flag: &str, number: usize, least: usize, most: usize) -> Result<(), LabError> {
    if (least..=most).contains(&number) {
        return Ok(());
    }
    let what = format!("{flag} {number} is not from {least} to {most}");
    Err(LabError::refused(what, ""))
}
