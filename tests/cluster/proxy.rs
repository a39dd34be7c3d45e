//! A relay in front of one node whose connections are cut at random, between any two bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_types::stable_hash;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const BUFFER_BYTES: usize = 2048;
/// Bytes in one direction within which a connection is cut, at the latest.
const BYTES_MAX: u64 = 6 << 10;

/// A relay, until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    cuts: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Relays to `node` from an address of its own. `seed` decides where connections are cut.
    pub async fn start(node: SocketAddr, seed: u64) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::<AtomicU64>::default();
        let task = tokio::spawn(accept(listener, node, seed, cuts.clone()));
        Proxy {
            address,
            cuts,
            task,
        }
    }

    /// Connections cut so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, node: SocketAddr, seed: u64, cuts: Arc<AtomicU64>) {
    for number in 0_u64.. {
        let Ok((client, _)) = listener.accept().await else {
            return;
        };
        // Dropping the client's socket tells it that the node is away.
        if let Ok(server) = TcpStream::connect(node).await {
            tokio::spawn(relay(client, server, [seed, number], cuts.clone()));
        }
    }
}

/// Relays until either end closes, or either direction has carried as much as it is allowed.
async fn relay(client: TcpStream, server: TcpStream, seed: [u64; 2], cuts: Arc<AtomicU64>) {
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let cut = tokio::select! {
        cut = copy(client_reads, server_writes, bytes_until_cut(seed, 0)) => cut,
        cut = copy(server_reads, client_writes, bytes_until_cut(seed, 1)) => cut,
    };
    if cut {
        cuts.fetch_add(1, Ordering::Relaxed);
    }
}

fn bytes_until_cut([seed, number]: [u64; 2], direction: u64) -> u64 {
    let drawn = [seed, number, direction].map(u64::to_be_bytes).concat();
    stable_hash(&drawn) % BYTES_MAX
}

/// Whether it ended because it carried all that it is allowed.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut left: u64,
) -> bool {
    let mut buffer = [0; BUFFER_BYTES];
    while left > 0 {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return false;
        };
        let kept = read.min(usize::try_from(left).unwrap_or(usize::MAX));
        if to.write_all(&buffer[..kept]).await.is_err() {
            return false;
        }
        left -= kept as u64;
    }
    true
}
