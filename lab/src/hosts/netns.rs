//! A network namespace for each node, all on one bridge; the kernel drops what is cut.
//!
//! Everything carries this process's id in its name. What a run that died has left is known by an
//! id that no process has any more, and removed by the next run; nothing else is touched.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::{Cut, Hosts, Strain, Strains};
use crate::error::LabError;

const NAMESPACE_MARK: &str = "quorate-lab-";
const LINK_MARK: &str = "qlab";
/// Ports in each namespace, where nobody else listens.
const GRPC_PORT: u16 = 7450;
const HTTP_PORT: u16 = 7451;
/// The last byte of the bridge's own address, which clients speak from.
const BRIDGE_HOST: u8 = 254;
/// Networks of 256 addresses that are tried before it is given up.
const NETWORKS_TRIED_MAX: u32 = 64;
const TABLE: &str = "inet quorate_lab";

/// The namespaces of one run.
pub(super) struct Netns {
    mark: u32,
    nodes: usize,
    network: [u8; 3],
    /// The cuts that are in force.
    cuts: Mutex<BTreeSet<Cut>>,
    strains: Mutex<Strains>,
    /// Packets dropped by rules that are gone.
    dropped: AtomicU64,
    strained: AtomicU64,
}

/// The two kinds of rules, each in a chain of its own, so that each counts for itself.
#[derive(Clone, Copy)]
enum Chain {
    Cut,
    Strain,
}

impl Chain {
    const fn name(self) -> &'static str {
        match self {
            Self::Cut => "cut",
            Self::Strain => "strain",
        }
    }
}

/// A limit lets as much through at once as comes within this, milliseconds.
const BURST_MS: u64 = 250;
/// The smallest that still lets a whole packet through.
const BURST_MIN_BYTES: u64 = 4 << 10;

/// Whether namespaces can be had here.
///
/// # Errors
///
/// What is missing, in words.
pub async fn preflight() -> Result<(), String> {
    if !cfg!(target_os = "linux") {
        return Err("this system is not Linux".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("it takes root".to_owned());
    }
    for (program, argument, package) in [("ip", "-V", "iproute2"), ("nft", "-v", "nftables")] {
        if run(program, &[argument], "").await.is_err() {
            return Err(format!("there is no `{program}` (package {package})"));
        }
    }
    let name = format!("{NAMESPACE_MARK}{}-try", std::process::id());
    let made = ip(&["netns", "add", &name]).await;
    let result = match made {
        Err(error) => Err(told("network namespaces", &error)),
        Ok(_) => in_namespace(&name, &["nft", "-f", "-"], &base_rules())
            .await
            .map(|_| ())
            .map_err(|error| told("packet filters", &error)),
    };
    // If it was not made there is nothing to delete.
    let _ = ip(&["netns", "del", &name]).await;
    result
}

fn told(what: &str, error: &LabError) -> String {
    format!("this kernel refuses {what}: {error}")
}

fn base_rules() -> String {
    let chain = |chain: Chain, priority| {
        let name = chain.name();
        format!(" chain {name} {{\n  type filter hook input priority {priority};\n }}\n")
    };
    let chains = chain(Chain::Cut, 0) + &chain(Chain::Strain, 1);
    format!("table {TABLE} {{\n{chains}}}\n")
}

impl Netns {
    /// Makes a namespace for each of so many nodes.
    pub(super) async fn open(nodes: usize) -> Result<Self, LabError> {
        remove_leftovers().await;
        let mark = std::process::id();
        let hosts = Self {
            mark,
            nodes,
            network: free_network(mark).await?,
            cuts: Mutex::default(),
            strains: Mutex::default(),
            dropped: AtomicU64::new(0),
            strained: AtomicU64::new(0),
        };
        match hosts.build().await {
            Ok(()) => Ok(hosts),
            Err(error) => {
                hosts.close().await;
                Err(error)
            }
        }
    }

    async fn build(&self) -> Result<(), LabError> {
        let bridge = self.bridge();
        let address = format!("{}/24", self.address(BRIDGE_HOST));
        ip(&["link", "add", &bridge, "type", "bridge"]).await?;
        ip(&["addr", "add", &address, "dev", &bridge]).await?;
        ip(&["link", "set", &bridge, "up"]).await?;
        for node in 1..=self.nodes {
            let (name, link) = (self.namespace(node), self.link(node));
            let address = format!("{}/24", self.node_address(node));
            ip(&["netns", "add", &name]).await?;
            ip(&[
                "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])
            .await?;
            ip(&["link", "set", &link, "master", &bridge, "up"]).await?;
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"]).await?;
            ip(&["-n", &name, "link", "set", "eth0", "up"]).await?;
            ip(&["-n", &name, "link", "set", "lo", "up"]).await?;
            in_namespace(&name, &["nft", "-f", "-"], &base_rules()).await?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{LINK_MARK}{}b", self.mark)
    }

    fn link(&self, node: usize) -> String {
        format!("{LINK_MARK}{}n{node}", self.mark)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{NAMESPACE_MARK}{}-{node}", self.mark)
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, host)
    }

    fn node_address(&self, node: usize) -> Ipv4Addr {
        self.address(u8::try_from(node).expect("a run has a few nodes"))
    }

    /// Packets that the rules of a chain in a namespace have struck.
    async fn struck_at(&self, node: usize, chain: Chain) -> Result<u64, LabError> {
        let list = ["nft", "list", "chain", "inet", "quorate_lab", chain.name()];
        let text = in_namespace(&self.namespace(node), &list, "").await?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let counted = words.windows(2).filter(|pair| pair[0] == "packets");
        Ok(counted.filter_map(|pair| pair[1].parse::<u64>().ok()).sum())
    }

    /// Has a chain of a namespace hold exactly these, each an address and what befalls its packets.
    async fn rule(
        &self,
        to: usize,
        chain: Chain,
        verdicts: &[(usize, String)],
    ) -> Result<(), LabError> {
        let name = chain.name();
        let mut rules = format!("flush chain {TABLE} {name}\n");
        for (from, verdict) in verdicts {
            let address = self.node_address(*from);
            rules += &format!("add rule {TABLE} {name} ip saddr {address} {verdict}\n");
        }
        in_namespace(&self.namespace(to), &["nft", "-f", "-"], &rules)
            .await
            .map(|_| ())
    }
}

/// What befalls the packets of a strained way; delays are not for this kind of hosts.
fn verdicts(from: usize, strain: &Strain) -> Vec<(usize, String)> {
    let mut verdicts = Vec::new();
    if strain.resets {
        verdicts.push("meta l4proto tcp counter reject with tcp reset".to_owned());
    }
    if strain.loss_percent > 0 {
        let percent = strain.loss_percent;
        verdicts.push(format!("numgen random mod 100 < {percent} counter drop"));
    }
    if let Some(rate) = strain.bytes_per_second {
        let burst = (rate * BURST_MS / 1000).max(BURST_MIN_BYTES);
        verdicts.push(format!(
            "limit rate over {rate} bytes/second burst {burst} bytes counter drop"
        ));
    }
    verdicts
        .into_iter()
        .map(|verdict| (from, verdict))
        .collect()
}

fn strains_at(strains: &Strains, to: usize) -> Vec<(Cut, Strain)> {
    let at = strains.iter().filter(|(way, _)| way.to == to);
    at.map(|(way, strain)| (*way, *strain)).collect()
}

fn who_is_cut(cuts: &BTreeSet<Cut>, to: usize) -> Vec<usize> {
    let towards = cuts.iter().filter(|cut| cut.to == to);
    towards.map(|cut| cut.from).collect()
}

#[async_trait]
impl Hosts for Netns {
    fn listen(&self, node: usize) -> SocketAddr {
        (self.node_address(node), GRPC_PORT).into()
    }

    fn http(&self, node: usize) -> SocketAddr {
        (self.node_address(node), HTTP_PORT).into()
    }

    fn detour(&self, _from: usize, _to: usize) -> Option<SocketAddr> {
        None
    }

    fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        // It replaces itself by the program: the process id is the node's.
        command.args(["netns", "exec", &self.namespace(node)]);
        command.arg(program);
        command
    }

    async fn cut(&self, wanted: &BTreeSet<Cut>) -> Result<(), LabError> {
        let mut cuts = self.cuts.lock().await;
        for to in 1..=self.nodes {
            let (before, after) = (who_is_cut(&cuts, to), who_is_cut(wanted, to));
            if before == after {
                continue;
            }
            if !before.is_empty() {
                // The counters go with the rules.
                let dropped = self.struck_at(to, Chain::Cut).await?;
                self.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
            let drops = after.iter().map(|from| (*from, "counter drop".to_owned()));
            self.rule(to, Chain::Cut, &drops.collect::<Vec<_>>())
                .await?;
            cuts.retain(|cut| cut.to != to);
            cuts.extend(wanted.iter().filter(|cut| cut.to == to));
        }
        Ok(())
    }

    async fn held(&self) -> Result<u64, LabError> {
        let cuts = self.cuts.lock().await;
        let mut held = self.dropped.load(Ordering::Relaxed);
        let towards: BTreeSet<usize> = cuts.iter().map(|cut| cut.to).collect();
        for to in towards {
            held += self.struck_at(to, Chain::Cut).await?;
        }
        Ok(held)
    }

    async fn strain(&self, wanted: &Strains) -> Result<(), LabError> {
        let mut strains = self.strains.lock().await;
        for to in 1..=self.nodes {
            let (before, after) = (strains_at(&strains, to), strains_at(wanted, to));
            if before == after {
                continue;
            }
            if !before.is_empty() {
                let strained = self.struck_at(to, Chain::Strain).await?;
                self.strained.fetch_add(strained, Ordering::Relaxed);
            }
            let verdicts = after
                .iter()
                .flat_map(|(way, strain)| verdicts(way.from, strain));
            self.rule(to, Chain::Strain, &verdicts.collect::<Vec<_>>())
                .await?;
            strains.retain(|way, _| way.to != to);
            strains.extend(after);
        }
        Ok(())
    }

    async fn strained(&self) -> Result<u64, LabError> {
        let strains = self.strains.lock().await;
        let mut strained = self.strained.load(Ordering::Relaxed);
        let towards: BTreeSet<usize> = strains.keys().map(|way| way.to).collect();
        for to in towards {
            strained += self.struck_at(to, Chain::Strain).await?;
        }
        Ok(strained)
    }

    async fn on_their_way(&self) -> Result<u64, LabError> {
        let mut bytes = 0;
        for node in 1..=self.nodes {
            let table = ["cat", "/proc/net/tcp"];
            let table = in_namespace(&self.namespace(node), &table, "").await?;
            bytes += table
                .lines()
                .skip(1)
                .filter_map(unacknowledged)
                .sum::<u64>();
        }
        Ok(bytes)
    }

    async fn close(&self) {
        // What is not there need not go; what does not go now, the next run removes.
        for node in 1..=self.nodes {
            // A namespace goes later than its name; its link would stay as long.
            let _ = ip(&["link", "del", &self.link(node)]).await;
            let _ = ip(&["netns", "del", &self.namespace(node)]).await;
        }
        let _ = ip(&["link", "del", &self.bridge()]).await;
    }
}

/// What a line of the kernel's table of TCP sockets says of bytes sent and not acknowledged
/// (proc(5), `tx_queue`). Listening sockets have none.
fn unacknowledged(line: &str) -> Option<u64> {
    let queues = line.split_whitespace().nth(4)?;
    u64::from_str_radix(queues.split_once(':')?.0, 16).ok()
}

/// Takes away what carries the mark of a process that is gone.
async fn remove_leftovers() {
    // Without a list there is nothing to be found; building will say what is wrong.
    let names = ip(&["netns", "list"]).await.unwrap_or_default();
    for name in names.lines().filter_map(|line| line.split(' ').next()) {
        if let Some(rest) = name.strip_prefix(NAMESPACE_MARK)
            && is_gone(rest)
        {
            let _ = ip(&["netns", "del", name]).await;
        }
    }
    let links = ip(&["-o", "link", "show", "type", "bridge"]).await;
    for line in links.unwrap_or_default().lines() {
        let name = line.split(": ").nth(1).unwrap_or_default();
        if let Some(rest) = name.strip_prefix(LINK_MARK)
            && is_gone(rest)
        {
            let _ = ip(&["link", "del", name]).await;
        }
    }
}

/// Whether the process id that a name goes on with is nobody's.
fn is_gone(rest: &str) -> bool {
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    !digits.is_empty() && !Path::new("/proc").join(digits).exists()
}

/// A network that no address of this machine lies in.
async fn free_network(mark: u32) -> Result<[u8; 3], LabError> {
    let taken = ip(&["-4", "-o", "addr", "show"]).await?;
    let candidates = (0..NETWORKS_TRIED_MAX).map(|step| {
        let number = mark.wrapping_add(step.wrapping_mul(7919));
        let third = u8::try_from(number % 256).expect("it is a remainder");
        let second = u8::try_from(64 + number / 256 % 128).expect("it is a remainder");
        [10, second, third]
    });
    let free = |[a, b, c]: &[u8; 3]| !taken.contains(&format!(" {a}.{b}.{c}."));
    let mut candidates = candidates.filter(free);
    candidates.next().ok_or_else(|| {
        let what = "all networks that were tried are in use on this machine";
        LabError::refused(what, "try --hosts proxy")
    })
}

async fn ip(arguments: &[&str]) -> Result<String, LabError> {
    run("ip", arguments, "").await
}

async fn in_namespace(name: &str, command: &[&str], input: &str) -> Result<String, LabError> {
    let arguments = [&["netns", "exec", name], command].concat();
    run("ip", &arguments, input).await
}

/// Runs a program to its end, and gives what it printed.
async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, LabError> {
    let failed = |problem: String| LabError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        problem,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read it says why in its own words.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await;
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(format!("{}: {problem}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_nobody_acknowledged_are_told_by_the_kernels_table() {
        let of = |state: &str, queues: &str| {
            unacknowledged(&format!(
                "   1: 0A400A01:1D1A 0A400A02:9C40 {state} {queues} 01:00000019 00000004  0 0 7 2"
            ))
        };
        assert_eq!(of("01", "000000A3:00000000"), Some(0xa3));
        assert_eq!(of("01", "00000000:00000011"), Some(0));
        assert_eq!(of("0A", "00000000:00000000"), Some(0));
        assert_eq!(unacknowledged("  sl  local_address"), None);
    }

    #[test]
    fn only_marks_of_processes_that_are_gone_count_as_left_over() {
        let own = std::process::id().to_string();
        assert!(!is_gone(&format!("{own}-1")));
        assert!(is_gone("4194999-1"), "above every process id");
        assert!(!is_gone("other"));
    }

    #[test]
    fn cuts_are_told_to_who_does_not_hear() {
        let cuts = BTreeSet::from([Cut { from: 1, to: 2 }, Cut { from: 3, to: 2 }]);
        assert_eq!(who_is_cut(&cuts, 2), [1, 3]);
        assert_eq!(who_is_cut(&cuts, 1), [0; 0]);
    }
}
