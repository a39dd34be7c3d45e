//! A relay in this process for each ordered pair of nodes, on the loopback interface.
//!
//! A relay that is cut passes nothing on: streams stall, new connections hang, as they would where
//! packets are lost. What was held up goes on its way after the cut, if its ends still wait for it.
//! A relay can also be late, narrow, or reset what it carries.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Cut, Hosts, Meet, Strain, Strains};
use crate::error::LabError;
use crate::random::Random;

const BUFFER_BYTES: usize = 64 << 10;
/// Pieces of a stream that are on their way at one time.
const PIECES_MAX: usize = 256;
/// Nodes listen on ports from here on.
const PORT_FIRST: u16 = 12_000;
const PORT_LAST: u16 = 32_000;
/// Ports that this process has asked for so far.
static PORTS_GIVEN: AtomicU32 = AtomicU32::new(0);

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
    meet: Meet,
    relays: BTreeMap<(usize, usize), Relay>,
    gates: BTreeMap<(usize, usize), Gate>,
    strains: BTreeMap<(usize, usize), watch::Sender<Strain>>,
    held: Arc<AtomicU64>,
    strained: Arc<AtomicU64>,
}

impl Proxies {
    /// Finds ports for so many nodes, and starts the relays between them.
    pub(super) async fn open(nodes: usize, meet: Meet) -> Result<Self, LabError> {
        let addresses = free_addresses(2 * nodes).await.map_err(LabError::Listen)?;
        let nodes: Vec<[SocketAddr; 2]> = addresses
            .chunks_exact(2)
            .map(|pair| [pair[0], pair[1]])
            .collect();
        let pairs = pairs(nodes.len());
        let gates = pairs.iter().map(|pair| (*pair, watch::channel(true).0));
        let strain = |pair: &(usize, usize)| (*pair, watch::channel(Strain::default()).0);
        let mut proxies = Self {
            gates: gates.collect(),
            strains: pairs.iter().map(strain).collect(),
            relays: BTreeMap::new(),
            held: Arc::default(),
            strained: Arc::default(),
            meet,
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
        let lane = |pair| Lane {
            gate: self.gates[&pair].subscribe(),
            strain: self.strains[&pair].subscribe(),
            held: self.held.clone(),
            strained: self.strained.clone(),
        };
        let [listen, apart] = self.nodes[to - 1];
        let way = Way {
            target: match self.meet {
                Meet::WithClients => listen,
                Meet::Apart => apart,
            },
            there: lane((from, to)),
            back: lane((to, from)),
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

/// All are held until the last is found: no port is given out twice, and the next call goes on
/// behind them, since their nodes may not listen yet. They lie below those that the system gives
/// to outgoing connections, which would take a dead node's port.
async fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let given = PORTS_GIVEN.fetch_add(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
    let spread = std::process::id().wrapping_add(given) % u32::from(PORT_LAST - PORT_FIRST);
    let first = PORT_FIRST + u16::try_from(spread).expect("it is a remainder");
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

    /// On the loopback interface nothing is lost and sent again.
    async fn on_their_way(&self) -> Result<u64, LabError> {
        Ok(0)
    }

    async fn strain(&self, strains: &Strains) -> Result<(), LabError> {
        for ((from, to), strain) in &self.strains {
            let (from, to) = (*from, *to);
            let wanted = strains.get(&Cut { from, to }).copied().unwrap_or_default();
            strain.send_if_modified(|strain| std::mem::replace(strain, wanted) != wanted);
        }
        Ok(())
    }

    async fn strained(&self) -> Result<u64, LabError> {
        Ok(self.strained.load(Ordering::Relaxed))
    }

    async fn close(&self) {}
}

/// What a relay knows of the way to its node.
#[derive(Clone)]
struct Way {
    target: SocketAddr,
    there: Lane,
    back: Lane,
}

/// One direction of a way.
#[derive(Clone)]
struct Lane {
    gate: watch::Receiver<bool>,
    strain: watch::Receiver<Strain>,
    held: Arc<AtomicU64>,
    strained: Arc<AtomicU64>,
}

async fn accept(listener: TcpListener, way: Way) {
    while let Ok((dialler, _)) = listener.accept().await {
        tokio::spawn(carry(dialler, way.clone()));
    }
}

/// Carries one connection until either end closes it, or it is reset.
async fn carry(mut dialler: TcpStream, way: Way) {
    let (mut there, mut back) = (way.there, way.back);
    // A connection takes packets both ways to be made.
    if !(there.pass().await && back.pass().await) {
        return;
    }
    // Dropping the dialler's socket tells it that the node is away.
    let Ok(mut node) = TcpStream::connect(way.target).await else {
        return;
    };
    // Without it small messages wait for company, which is only slow.
    let _ = (dialler.set_nodelay(true), node.set_nodelay(true));
    let (mut resets_there, mut resets_back) = (there.clone(), back.clone());
    let (dialler_reads, dialler_writes) = dialler.split();
    let (node_reads, node_writes) = node.split();
    let is_reset = tokio::select! {
        () = there.copy(dialler_reads, node_writes) => false,
        () = back.copy(node_reads, dialler_writes) => false,
        () = resets_there.reset() => true,
        () = resets_back.reset() => true,
    };
    if is_reset {
        // Closed at once, both ends are told by a reset; if it fails they are told politely.
        let _ = (dialler.set_zero_linger(), node.set_zero_linger());
    }
}

impl Lane {
    /// Waits until the gate is open; false if it never will be again.
    async fn pass(&mut self) -> bool {
        if !*self.gate.borrow() {
            self.held.fetch_add(1, Ordering::Relaxed);
        }
        self.gate.wait_for(|open| *open).await.is_ok()
    }

    /// Waits until connections are to be reset.
    async fn reset(&mut self) {
        if self.strain.wait_for(|strain| strain.resets).await.is_err() {
            // The relays are gone: who carries on sees it by the gate.
            std::future::pending::<()>().await;
        }
        self.strained.fetch_add(1, Ordering::Relaxed);
    }

    fn strain(&self) -> Strain {
        *self.strain.borrow()
    }

    /// Carries one direction: pieces are read as they come, and written when they are due.
    async fn copy(&mut self, from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin) {
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let reader = self.clone();
        tokio::select! {
            () = self.write(to, receiver) => {}
            // The writer ends when it has written what was read, not before.
            () = async { reader.read(from, sender).await; std::future::pending().await } => {}
        }
    }

    async fn read(
        self,
        mut from: impl AsyncRead + Unpin,
        pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    ) {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut random = Random::of(self.strained.load(Ordering::Relaxed), 0);
        let mut due = Instant::now();
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let strain = self.strain();
            let late = random.between(strain.delay, strain.delay + strain.jitter);
            if !late.is_zero() {
                self.strained.fetch_add(1, Ordering::Relaxed);
            }
            // Streams keep their order.
            due = due.max(Instant::now() + late);
            if pieces.send((due, buffer[..read].to_vec())).await.is_err() {
                return;
            }
        }
    }

    async fn write(
        &mut self,
        mut to: impl AsyncWrite + Unpin,
        mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    ) {
        while let Some((due, piece)) = pieces.recv().await {
            tokio::time::sleep_until(due).await;
            if let Some(rate) = self.strain().bytes_per_second {
                self.strained.fetch_add(1, Ordering::Relaxed);
                let seconds = piece.len() as f64 / rate.max(1) as f64;
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
            if !self.pass().await || to.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The end of a stream is a packet, too.
        self.pass().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Longer than anything on loopback takes.
    const PATIENCE: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(100);

    #[tokio::test]
    async fn what_is_cut_waits_and_goes_on_afterwards() {
        let proxies = Proxies::open(2, Meet::WithClients).await.unwrap();
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

    #[tokio::test]
    async fn ports_whose_nodes_do_not_listen_yet_are_not_given_again() {
        let first = free_addresses(4).await.unwrap();
        let second = free_addresses(4).await.unwrap();
        assert!(first.iter().all(|port| !second.contains(port)), "{first:?}");
    }

    async fn connected(proxies: &Proxies) -> (TcpStream, TcpStream) {
        let node = TcpListener::bind(proxies.listen(2)).await.unwrap();
        let detour = proxies.detour(1, 2).unwrap();
        let dialled = TcpStream::connect(detour).await.unwrap();
        let (met, _) = node.accept().await.unwrap();
        (dialled, met)
    }

    fn strained(strain: Strain) -> Strains {
        BTreeMap::from([(Cut { from: 1, to: 2 }, strain)])
    }

    #[tokio::test]
    async fn what_is_delayed_comes_later_and_in_order() {
        let proxies = Proxies::open(2, Meet::WithClients).await.unwrap();
        let (mut dialled, mut met) = connected(&proxies).await;
        let strain = Strain {
            delay: SHORT,
            jitter: SHORT,
            ..Strain::default()
        };
        proxies.strain(&strained(strain)).await.unwrap();
        let begin = Instant::now();
        for byte in 0..20 {
            dialled.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut got = [0; 20];
        met.read_exact(&mut got).await.unwrap();
        assert!(begin.elapsed() >= SHORT);
        assert!(got.is_sorted(), "{got:?}");
        assert!(proxies.strained().await.unwrap() > 0);
        // The other way is as before.
        let begin = Instant::now();
        met.write_all(b"c").await.unwrap();
        dialled.read_exact(&mut [0]).await.unwrap();
        assert!(begin.elapsed() < SHORT);
    }

    #[tokio::test]
    async fn a_narrow_way_takes_as_long_as_its_bytes() {
        let proxies = Proxies::open(2, Meet::WithClients).await.unwrap();
        let (mut dialled, mut met) = connected(&proxies).await;
        let strain = Strain {
            bytes_per_second: Some(10_000),
            ..Strain::default()
        };
        proxies.strain(&strained(strain)).await.unwrap();
        let begin = Instant::now();
        dialled.write_all(&[7; 2000]).await.unwrap();
        met.read_exact(&mut [0; 2000]).await.unwrap();
        assert!(begin.elapsed() >= 2 * SHORT, "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn a_reset_is_seen_at_both_ends() {
        let proxies = Proxies::open(2, Meet::WithClients).await.unwrap();
        let (mut dialled, mut met) = connected(&proxies).await;
        let strain = Strain {
            resets: true,
            ..Strain::default()
        };
        proxies.strain(&strained(strain)).await.unwrap();
        for end in [&mut dialled, &mut met] {
            let ended = tokio::time::timeout(PATIENCE, end.read(&mut [0]))
                .await
                .unwrap();
            let kind = ended.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::ConnectionReset);
        }
    }

    #[test]
    fn pairs_are_ordered() {
        assert_eq!(pairs(2), [(1, 2), (2, 1)]);
        assert_eq!(pairs(5).len(), 20);
    }
}
