//! A relay in this process for each ordered pair of nodes, on the loopback interface.
//!
//! A relay that is cut passes nothing on: streams stall, new connections hang, as they would where
//! packets are lost. What was held up goes on its way after the cut, if its ends still wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{Cut, Hosts};
use crate::error::LabError;

const BUFFER_BYTES: usize = 64 << 10;
/// Nodes listen on ports from here on.
const PORT_FIRST: u16 = 12_000;
const PORT_LAST: u16 = 32_000;

/// Whether what is said in one direction gets through.
type Gate = watch::Sender<bool>;

/// The relay that one node dials another one at.
struct Relay {
    address: SocketAddr,
    accepting: AbortHandle,
}

/// All relays of one run.
pub(super) struct Proxies {
    nodes: Vec<[SocketAddr; 2]>,
    relays: BTreeMap<(usize, usize), Relay>,
    gates: BTreeMap<(usize, usize), Gate>,
    held: Arc<AtomicU64>,
}

impl Proxies {
    /// Finds ports for so many nodes, and starts the relays between them.
    pub(super) async fn open(nodes: usize) -> Result<Self, LabError> {
        let addresses = free_addresses(2 * nodes).await.map_err(LabError::Listen)?;
        let nodes: Vec<[SocketAddr; 2]> = addresses
            .chunks_exact(2)
            .map(|pair| [pair[0], pair[1]])
            .collect();
        let pairs = pairs(nodes.len());
        let gates = pairs.iter().map(|pair| (*pair, watch::channel(true).0));
        let mut proxies = Self {
            gates: gates.collect(),
            relays: BTreeMap::new(),
            held: Arc::default(),
            nodes,
        };
        for pair in pairs {
            let relay = proxies.relay(pair).await.map_err(LabError::Listen)?;
            proxies.relays.insert(pair, relay);
        }
        Ok(proxies)
    }

    async fn relay(&self, (from, to): (usize, usize)) -> io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let way = Way {
            target: self.nodes[to - 1][0],
            there: self.gates[&(from, to)].subscribe(),
            back: self.gates[&(to, from)].subscribe(),
            held: self.held.clone(),
        };
        let accepting = tokio::spawn(accept(listener, way)).abort_handle();
        Ok(Relay { address, accepting })
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        for relay in self.relays.values() {
            relay.accepting.abort();
        }
    }
}

/// All ordered pairs of nodes.
fn pairs(nodes: usize) -> Vec<(usize, usize)> {
    let all = (1..=nodes).flat_map(|from| (1..=nodes).map(move |to| (from, to)));
    all.filter(|(from, to)| from != to).collect()
}

/// All are held until the last is found: no port is given out twice. They lie below those that the
/// system gives to outgoing connections, which would take a dead node's port.
async fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let spread = u16::try_from(std::process::id() % u32::from(PORT_LAST - PORT_FIRST));
    let first = PORT_FIRST + spread.expect("it is a remainder");
    let mut held = Vec::new();
    let mut failed = None;
    for port in (first..PORT_LAST).chain(PORT_FIRST..first) {
        if held.len() == count {
            break;
        }
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Ok(listener) => held.push(listener),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if held.len() < count => Err(error),
        Some(_) | None => held.iter().map(TcpListener::local_addr).collect(),
    }
}

#[async_trait]
impl Hosts for Proxies {
    fn listen(&self, node: usize) -> SocketAddr {
        self.nodes[node - 1][0]
    }

    fn http(&self, node: usize) -> SocketAddr {
        self.nodes[node - 1][1]
    }

    fn detour(&self, from: usize, to: usize) -> Option<SocketAddr> {
        self.relays.get(&(from, to)).map(|relay| relay.address)
    }

    fn command(&self, _node: usize, program: &Path) -> Command {
        Command::new(program)
    }

    async fn cut(&self, cuts: &BTreeSet<Cut>) -> Result<(), LabError> {
        for ((from, to), gate) in &self.gates {
            let (from, to) = (*from, *to);
            gate.send_replace(!cuts.contains(&Cut { from, to }));
        }
        Ok(())
    }

    async fn held(&self) -> Result<u64, LabError> {
        Ok(self.held.load(Ordering::Relaxed))
    }

    async fn close(&self) {}
}

/// What a relay knows of the way to its node.
#[derive(Clone)]
struct Way {
    target: SocketAddr,
    there: watch::Receiver<bool>,
    back: watch::Receiver<bool>,
    held: Arc<AtomicU64>,
}

async fn accept(listener: TcpListener, way: Way) {
    while let Ok((dialler, _)) = listener.accept().await {
        tokio::spawn(carry(dialler, way.clone()));
    }
}

/// Carries one connection until either end closes it.
async fn carry(dialler: TcpStream, mut way: Way) {
    // A connection takes packets both ways to be made.
    if !(pass(&mut way.there, &way.held).await && pass(&mut way.back, &way.held).await) {
        return;
    }
    // Dropping the dialler's socket tells it that the node is away.
    let Ok(node) = TcpStream::connect(way.target).await else {
        return;
    };
    // Without it small messages wait for company, which is only slow.
    let _ = (dialler.set_nodelay(true), node.set_nodelay(true));
    let (dialler_reads, dialler_writes) = dialler.into_split();
    let (node_reads, node_writes) = node.into_split();
    tokio::select! {
        () = copy(dialler_reads, node_writes, way.there, &way.held) => {}
        () = copy(node_reads, dialler_writes, way.back, &way.held) => {}
    }
}

/// Waits until the gate is open; false if it never will be again.
async fn pass(gate: &mut watch::Receiver<bool>, held: &AtomicU64) -> bool {
    if !*gate.borrow() {
        held.fetch_add(1, Ordering::Relaxed);
    }
    gate.wait_for(|open| *open).await.is_ok()
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut gate: watch::Receiver<bool>,
    held: &AtomicU64,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            // The end of a stream is a packet, too.
            pass(&mut gate, held).await;
            return;
        };
        if !pass(&mut gate, held).await || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    /// Longer than anything on loopback takes.
    const PATIENCE: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn what_is_cut_waits_and_goes_on_afterwards() {
        let proxies = Proxies::open(2).await.unwrap();
        let node = TcpListener::bind(proxies.listen(2)).await.unwrap();
        let mut dialled = TcpStream::connect(proxies.detour(1, 2).unwrap())
            .await
            .unwrap();
        let (mut met, _) = node.accept().await.unwrap();
        let mut byte = [0];
        dialled.write_all(b"a").await.unwrap();
        met.read_exact(&mut byte).await.unwrap();
        let one_way = BTreeSet::from([Cut { from: 1, to: 2 }]);
        proxies.cut(&one_way).await.unwrap();
        dialled.write_all(b"b").await.unwrap();
        let waited = tokio::time::timeout(SHORT, met.read_exact(&mut byte)).await;
        assert!(waited.is_err(), "{waited:?}");
        met.write_all(b"c").await.unwrap();
        let back = tokio::time::timeout(PATIENCE, dialled.read_exact(&mut byte)).await;
        back.unwrap().unwrap();
        assert_eq!(proxies.held().await.unwrap(), 1);
        proxies.cut(&BTreeSet::new()).await.unwrap();
        let after = tokio::time::timeout(PATIENCE, met.read_exact(&mut byte)).await;
        after.unwrap().unwrap();
        assert_eq!(byte, *b"b");
    }

    #[test]
    fn pairs_are_ordered() {
        assert_eq!(pairs(2), [(1, 2), (2, 1)]);
        assert_eq!(pairs(5).len(), 20);
    }
}
