//! Which nodes, ports and folders make up a local cluster.
//!
//! Ports are tried here, before anything is started, so that a port in use stops nothing
//! half-way.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::error::DevError;

/// Most nodes of a local cluster.
pub const DEV_NODES_MAX: u16 = 9;
/// Ports that each node takes: gRPC, then HTTP.
const PORTS_PER_NODE: u16 = 2;
/// The name that the nodes' data carries.
const CLUSTER_NAME: &str = "dev";

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Its id, from 1.
    pub id: u64,
    /// Where it serves gRPC.
    pub listen: SocketAddr,
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// Where it serves etcd's clients; none: the port was not free.
    pub etcd: Option<SocketAddr>,
    /// Its data folder.
    pub dir: PathBuf,
}

/// All nodes of the cluster, by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The nodes.
    pub nodes: Vec<NodePlan>,
}

impl Topology {
    /// Plans `nodes` nodes below `dir`, with etcd's clients at every other port from `etcd_port` on
    /// (where that is free; 0: at any), and the rest from `port` on, or on free ports if it is 0: those of
    /// `last` if all of them are free, so that who knows an address can keep it. All ports
    /// were free a moment ago.
    ///
    /// # Errors
    ///
    /// [`DevError::NodeCount`], [`DevError::PortsPastEnd`], [`DevError::PortInUse`].
    pub fn plan(
        nodes: u16,
        port: u16,
        etcd_port: u16,
        last: &[u16],
        dir: &Path,
    ) -> Result<Self, DevError> {
        if nodes == 0 || nodes > DEV_NODES_MAX {
            return Err(DevError::NodeCount { nodes });
        }
        let ports_total = nodes * PORTS_PER_NODE;
        if port != 0 && port.checked_add(ports_total - 1).is_none() {
            return Err(DevError::PortsPastEnd { port, nodes });
        }
        let wanted: Vec<u16> = match port {
            0 => vec![0; usize::from(ports_total)],
            _ => (port..).take(usize::from(ports_total)).collect(),
        };
        let again = port == 0 && last.len() == wanted.len();
        let held = match hold_all(last) {
            Ok(held) if again => held,
            Ok(_) | Err(_) => hold_all(&wanted)?,
        };
        let etcd = hold_for_etcd(nodes, etcd_port);
        let plans = held
            .chunks_exact(usize::from(PORTS_PER_NODE))
            .zip(etcd.iter())
            .zip(1..)
            .map(|((pair, etcd), id)| NodePlan {
                id,
                listen: pair[0].1,
                http: pair[1].1,
                etcd: etcd.as_ref().map(|held| held.1),
                dir: dir.join(format!("node-{id}")),
            });
        Ok(Self {
            nodes: plans.collect(),
        })
    }

    /// Nodes that must run for the cluster to serve.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// The gRPC addresses, as `--endpoints` takes them.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| node.listen.to_string())
            .collect()
    }

    /// Where etcd's clients connect.
    pub fn etcd_endpoints(&self) -> Vec<String> {
        let served = self.nodes.iter().filter_map(|node| node.etcd);
        served.map(|address| address.to_string()).collect()
    }

    /// All ports, in the order of the nodes.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes
            .iter()
            .flat_map(|node| [node.listen.port(), node.http.port()])
            .collect()
    }

    /// The arguments that start a node, without those that tie it to its parent.
    pub fn arguments(&self, node: &NodePlan) -> Vec<String> {
        let mut arguments = vec![
            "server".to_owned(),
            format!("--id={}", node.id),
            format!("--dir={}", node.dir.display()),
            format!("--listen={}", node.listen),
            format!("--http-listen={}", node.http),
            format!("--cluster={CLUSTER_NAME}"),
        ];
        arguments.extend(node.etcd.map(|etcd| format!("--etcd-listen={etcd}")));
        let peers = self.nodes.iter().filter(|peer| peer.id != node.id);
        arguments.extend(peers.map(|peer| format!("--peer={}={}", peer.id, peer.listen)));
        arguments
    }
}

/// All are held until the last is found: no port is given out twice.
fn hold_all(ports: &[u16]) -> Result<Vec<(TcpListener, SocketAddr)>, DevError> {
    ports.iter().map(|port| hold(*port)).collect()
}

/// For each node a port for etcd's clients. One that is in use is done without.
fn hold_for_etcd(nodes: u16, port: u16) -> Vec<Option<(TcpListener, SocketAddr)>> {
    let ports = (0..nodes).map(|node| match port {
        0 => Some(0),
        port => port.checked_add(node * PORTS_PER_NODE),
    });
    ports.map(|port| hold(port?).ok()).collect()
}

fn hold(port: u16) -> Result<(TcpListener, SocketAddr), DevError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address)
        .and_then(|listener| {
            let bound = listener.local_addr()?;
            Ok((listener, bound))
        })
        .map_err(|source| DevError::PortInUse { address, source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn any_free_ports_are_all_different() {
        let topology = Topology::plan(3, 0, 0, &[], Path::new("d")).unwrap();
        let mut ports = topology.ports();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
        assert_eq!(topology.nodes[2].dir, Path::new("d/node-3"));
    }

    #[test]
    fn ports_follow_each_other_and_one_in_use_is_named() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        match Topology::plan(1, taken.port(), 0, &[], Path::new("d")) {
            Err(DevError::PortInUse { address, .. }) => assert_eq!(address, taken),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ports_of_the_last_run_are_taken_again_if_all_are_free() {
        let last = Topology::plan(2, 0, 0, &[], Path::new("d"))
            .unwrap()
            .ports();
        let again = Topology::plan(2, 0, 0, &last, Path::new("d")).unwrap();
        assert_eq!(again.ports(), last);
        let _holder = TcpListener::bind(("127.0.0.1", last[1])).unwrap();
        let others = Topology::plan(2, 0, 0, &last, Path::new("d")).unwrap();
        assert!(!others.ports().contains(&last[1]));
    }

    #[test]
    fn counts_and_ports_have_bounds() {
        assert!(matches!(
            Topology::plan(0, 0, 0, &[], Path::new("d")),
            Err(DevError::NodeCount { nodes: 0 })
        ));
        assert!(matches!(
            Topology::plan(10, 0, 0, &[], Path::new("d")),
            Err(DevError::NodeCount { .. })
        ));
        assert!(matches!(
            Topology::plan(3, 65_531, 0, &[], Path::new("d")),
            Err(DevError::PortsPastEnd { .. })
        ));
    }

    #[test]
    fn a_node_is_told_of_the_others() {
        let topology = Topology::plan(3, 0, 0, &[], Path::new("d")).unwrap();
        let arguments = topology.arguments(&topology.nodes[1]);
        let peers: Vec<_> = arguments
            .iter()
            .filter(|argument| argument.starts_with("--peer="))
            .collect();
        assert_eq!(peers.len(), 2);
        assert!(peers[0].starts_with("--peer=1=127.0.0.1:"), "{peers:?}");
        assert!(peers[1].starts_with("--peer=3=127.0.0.1:"), "{peers:?}");
        assert_eq!(topology.majority(), 2);
    }
}
