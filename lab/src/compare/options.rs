//! What a comparison is to do, checked before anything is started.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use quorate_types::format_duration;

use super::results::Comparison;
use crate::error::LabError;
use crate::hosts::HostsKind;
use crate::plan::NODES_MAX;

/// Longest phase of a comparison.
const PHASE_MAX: Duration = Duration::from_secs(3600);
/// Shortest time in which something can be seen.
const PHASE_MIN: Duration = Duration::from_secs(1);
/// Shortest and longest time that a call may take.
const TIMEOUT_RANGE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));
const RATE_MAX: f64 = 20_000.0;
/// The program's name where it is looked for.
const ETCD: &str = "etcd";
const ETCD_HINT: &str = "name the program with --etcd-binary FILE or ETCD=FILE, or have it in PATH: \
     your system's package (on Debian etcd-server), a release of etcd, or \
     `tests/side-by-side/run etcd`, which builds one from Go modules";

/// Which store is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// Quorate, at all its levels.
    Quorate,
    /// etcd, for the operations that it has.
    Etcd,
}

/// How the nodes are cut in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutShape {
    /// Two sides that are as large as each other, or nearly.
    Halves,
    /// The leader apart from all others.
    Leader,
}

/// On which side the leader is when it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderSide {
    /// With the majority, which goes on.
    Majority,
    /// With the minority: the others have to elect one first.
    Minority,
}

fn named<T: Copy>(text: &str, known: [(&str, T); 2]) -> Result<T, String> {
    let found = known.iter().find(|(name, _)| *name == text);
    let names = known.map(|(name, _)| name).join(" and ");
    found
        .map(|(_, kind)| *kind)
        .ok_or(format!("known are {names}"))
}

impl TargetKind {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quorate => "quorate",
            Self::Etcd => ETCD,
        }
    }
}

impl CutShape {
    const fn name(self) -> &'static str {
        match self {
            Self::Halves => "halves",
            Self::Leader => "leader",
        }
    }
}

impl LeaderSide {
    const fn name(self) -> &'static str {
        match self {
            Self::Majority => "majority",
            Self::Minority => "minority",
        }
    }
}

impl FromStr for TargetKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(
            text,
            [Self::Quorate, Self::Etcd].map(|kind| (kind.name(), kind)),
        )
    }
}

impl FromStr for CutShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(
            text,
            [Self::Halves, Self::Leader].map(|kind| (kind.name(), kind)),
        )
    }
}

impl FromStr for LeaderSide {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(
            text,
            [Self::Majority, Self::Minority].map(|kind| (kind.name(), kind)),
        )
    }
}

/// What can be asked for.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Which store.
    pub target: TargetKind,
    /// etcd's program; none: it is looked for.
    pub etcd_binary: Option<PathBuf>,
    /// How many nodes.
    pub nodes: usize,
    /// Replicas of the keys; none: 3 of Quorate, all of etcd.
    pub replication: Option<u8>,
    /// How they are cut in two.
    pub cut: CutShape,
    /// Where the leader is then.
    pub leader: LeaderSide,
    /// How long all is whole before.
    pub before: Duration,
    /// How long it is cut.
    pub cut_time: Duration,
    /// How long calls go on after the heal.
    pub after: Duration,
    /// Calls a second, all levels and both sides together.
    pub rate_per_second: f64,
    /// How long a call may take.
    pub timeout: Duration,
    /// Which choices are made.
    pub seed: u64,
    /// Where nodes live; none: namespaces where they can be had, else proxies.
    pub hosts: Option<HostsKind>,
    /// Folder of all that the run leaves.
    pub dir: PathBuf,
    /// The program whose `server` command is a node.
    pub program: PathBuf,
    /// Keep the nodes' data also where all went well.
    pub keep_data: bool,
    /// Results of earlier comparisons that the report is to show beside this one's.
    pub beside: Vec<PathBuf>,
}

/// A comparison that can be done.
#[derive(Clone, Debug)]
pub struct ComparePlan {
    pub(crate) options: CompareOptions,
    pub(crate) hosts: HostsKind,
    pub(crate) replication: u8,
    /// The program of a node.
    pub(crate) program: PathBuf,
    /// Earlier comparisons.
    pub(crate) beside: Vec<Comparison>,
}

impl ComparePlan {
    /// Checks what can be checked before anything is started.
    ///
    /// # Errors
    ///
    /// [`LabError::Refused`] names what does not fit.
    pub async fn new(options: CompareOptions) -> Result<Self, LabError> {
        let nodes = options.nodes;
        if !(3..=NODES_MAX).contains(&nodes) {
            let what = format!("--nodes {nodes} is not from 3 to {NODES_MAX}");
            return Err(LabError::refused(
                what,
                "a cut takes two sides, and one of them a majority",
            ));
        }
        let phases = [
            ("--before", options.before),
            ("--cut-time", options.cut_time),
            ("--after", options.after),
        ];
        for (flag, time) in phases {
            within(flag, time, PHASE_MIN, PHASE_MAX)?;
        }
        within(
            "--call-timeout",
            options.timeout,
            TIMEOUT_RANGE.0,
            TIMEOUT_RANGE.1,
        )?;
        if !(options.rate_per_second > 0.0 && options.rate_per_second <= RATE_MAX) {
            let what = format!("--rate {} is no rate", options.rate_per_second);
            return Err(LabError::refused(
                what,
                format!("above 0, at most {RATE_MAX}"),
            ));
        }
        let all = u8::try_from(nodes).expect("a run has a few nodes");
        let replication = match (options.target, options.replication) {
            (TargetKind::Etcd, Some(asked)) if asked != all => {
                let what = format!("etcd has a replica on each of its {nodes} nodes, not {asked}");
                return Err(LabError::refused(what, "leave --replication away"));
            }
            (TargetKind::Etcd, _) => all,
            (TargetKind::Quorate, asked) => asked.unwrap_or(3),
        };
        if !(3..=all).contains(&replication) {
            let what = format!("--replication {replication} is not from 3 to {nodes}");
            return Err(LabError::refused(what, ""));
        }
        let beside = options.beside.iter().map(|path| earlier(path));
        let beside = beside.collect::<Result<_, _>>()?;
        let hosts = HostsKind::choose(options.hosts, &[]).await?;
        let program = match options.target {
            TargetKind::Quorate => options.program.clone(),
            TargetKind::Etcd => {
                etcd_hosts(hosts)?;
                etcd_program(options.etcd_binary.as_deref())?
            }
        };
        Ok(Self {
            options,
            hosts,
            replication,
            program,
            beside,
        })
    }

    /// How long it is before, cut and after, all together.
    pub fn load_time(&self) -> Duration {
        self.options.before + self.options.cut_time + self.options.after
    }

    /// The command that does the same again.
    pub(crate) fn command(&self) -> String {
        let options = &self.options;
        format!(
            "quorate jepsen compare --target {} --nodes {} --replication {} --cut {} --leader {} \
             --before {} --cut-time {} --after {} --rate {} --call-timeout {} --seed {} --hosts {}",
            options.target.name(),
            options.nodes,
            self.replication,
            options.cut.name(),
            options.leader.name(),
            format_duration(options.before),
            format_duration(options.cut_time),
            format_duration(options.after),
            options.rate_per_second,
            format_duration(options.timeout),
            options.seed,
            self.hosts.name(),
        )
    }
}

fn within(flag: &str, time: Duration, least: Duration, most: Duration) -> Result<(), LabError> {
    if (least..=most).contains(&time) {
        return Ok(());
    }
    let [time, least, most] = [time, least, most].map(format_duration);
    let what = format!("{flag} {time} is not from {least} to {most}");
    Err(LabError::refused(what, ""))
}

/// What an earlier comparison came to.
fn earlier(path: &Path) -> Result<Comparison, LabError> {
    let text = std::fs::read_to_string(path).map_err(|error| LabError::file(path, error))?;
    Comparison::parse(&text).map_err(|problem| {
        let what = format!("{} is no comparison's results: {problem}", path.display());
        LabError::refused(what, "name the results.json of an earlier one")
    })
}

fn etcd_hosts(hosts: HostsKind) -> Result<(), LabError> {
    match hosts {
        HostsKind::Netns => Ok(()),
        HostsKind::Proxy => {
            // A relay for each pair would be another address of the same member for each peer.
            let what = "members of etcd are known by one address each, so relays cannot be put between them";
            let hint = "it takes --hosts netns: Linux, root, `ip` (iproute2) and `nft` (nftables)";
            Err(LabError::refused(what, hint))
        }
    }
}

/// The program that was named, or the first in PATH.
fn etcd_program(named: Option<&Path>) -> Result<PathBuf, LabError> {
    if let Some(path) = named {
        let path = std::path::absolute(path).map_err(|error| LabError::file(path, error))?;
        if path.is_file() {
            return Ok(path);
        }
        let what = format!("there is no program {}", path.display());
        return Err(LabError::refused(what, ETCD_HINT));
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&folders).map(|folder| folder.join(ETCD));
    let found = programs.find(|path| path.is_file());
    found.ok_or_else(|| LabError::refused("no etcd was found", ETCD_HINT))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn options() -> CompareOptions {
        CompareOptions {
            target: TargetKind::Quorate,
            etcd_binary: None,
            nodes: 5,
            replication: None,
            cut: CutShape::Halves,
            leader: LeaderSide::Minority,
            before: Duration::from_secs(10),
            cut_time: Duration::from_secs(20),
            after: Duration::from_secs(15),
            rate_per_second: 300.0,
            timeout: Duration::from_secs(1),
            seed: 1,
            hosts: Some(HostsKind::Proxy),
            dir: PathBuf::from("run"),
            program: PathBuf::from("quorate"),
            keep_data: false,
            beside: Vec::new(),
        }
    }

    async fn refused(change: impl FnOnce(&mut CompareOptions)) -> String {
        let mut options = options();
        change(&mut options);
        let error = ComparePlan::new(options).await.unwrap_err();
        format!("{error}; {}", error.hint())
    }

    #[tokio::test]
    async fn what_does_not_fit_is_named_before_anything_starts() {
        assert!(ComparePlan::new(options()).await.is_ok());
        let said = refused(|options| options.nodes = 2).await;
        assert!(said.contains("--nodes 2"), "{said}");
        let said = refused(|options| options.cut_time = Duration::ZERO).await;
        assert!(said.contains("--cut-time 0"), "{said}");
        let said = refused(|options| options.rate_per_second = f64::NAN).await;
        assert!(said.contains("--rate"), "{said}");
        let said = refused(|options| options.replication = Some(6)).await;
        assert!(said.contains("--replication 6"), "{said}");
        let said = refused(|options| options.beside = vec![PathBuf::from("Cargo.toml")]).await;
        assert!(
            said.contains("Cargo.toml is no comparison's results"),
            "{said}"
        );
        let said = refused(|options| options.target = TargetKind::Etcd).await;
        assert!(said.contains("netns"), "{said}");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_with_how_to_get_one() {
        let missing = etcd_program(Some(Path::new("no/such/etcd"))).unwrap_err();
        assert!(missing.hint().contains("--etcd-binary"), "{missing}");
    }

    #[test]
    fn names_are_read_as_they_are_told() {
        for kind in [TargetKind::Quorate, TargetKind::Etcd] {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        assert!("thirds".parse::<CutShape>().is_err());
        assert_eq!("majority".parse(), Ok(LeaderSide::Majority));
    }
}
