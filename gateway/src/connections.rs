//! The connections of one port: at most so many are open. Past that a new one takes the place of
//! the one that has been silent longest; where none is silent, the new one is hung up on.
//!
//! So neither clients that connect and say nothing, nor any number of them, take memory without
//! bound, or keep others out. Not here: what is said on a connection (`admission`, `pipeline`).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

/// A connection that was read from within this time is in use: it is not closed for another one.
/// Peers say that they live more often.
const IN_USE: Duration = Duration::from_secs(1);
/// A port that cannot accept (no file descriptors are left, say) tries again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The open connections of one port.
#[derive(Debug)]
pub(crate) struct Connections {
    port: &'static str,
    max: usize,
    origin: Instant,
    open: Mutex<HashMap<u64, Arc<Open>>>,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    /// When it was last read from, microseconds since the port's origin.
    heard: AtomicU64,
    is_closed: AtomicBool,
    reader: AtomicWaker,
}

/// A connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    stream: TcpStream,
    number: u64,
    open: Arc<Open>,
    all: Arc<Connections>,
}

impl Connections {
    /// None yet. `port` is what metrics call it.
    pub(crate) fn new(port: &'static str, max: usize) -> Arc<Connections> {
        Arc::new(Connections {
            port,
            max,
            origin: Instant::now(),
            open: Mutex::default(),
            last: AtomicU64::new(0),
        })
    }

    /// Connections as they come in, without those that were hung up on.
    pub(crate) fn limit(
        self: Arc<Self>,
        incoming: TcpIncoming,
    ) -> impl Stream<Item = io::Result<Held>> {
        incoming.filter_map(move |stream| {
            let held = match stream {
                Ok(stream) => self.hold(stream).map(Ok),
                Err(error) => Some(Err(error)),
            };
            std::future::ready(held)
        })
    }

    /// Takes a connection, in place of a silent one if there are too many. `None`: it is dropped.
    fn hold(self: &Arc<Self>, stream: TcpStream) -> Option<Held> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let open = Arc::new(Open::default());
        open.heard.store(self.now(), Ordering::Relaxed);
        let mut all = self.open.lock();
        if all.len() >= self.max && !self.close_silent(&mut all) {
            metrics::counter!("quorate_connections_refused_total", "port" => self.port)
                .increment(1);
            return None;
        }
        all.insert(number, open.clone());
        self.gauge(all.len());
        drop(all);
        Some(Held {
            stream,
            number,
            open,
            all: self.clone(),
        })
    }

    /// Closes the connection that was silent longest. Returns whether one was silent.
    fn close_silent(&self, all: &mut HashMap<u64, Arc<Open>>) -> bool {
        let heard =
            |(number, open): (&u64, &Arc<Open>)| (open.heard.load(Ordering::Relaxed), *number);
        let Some((heard, number)) = all.iter().map(heard).min() else {
            return false;
        };
        let silent = Duration::from_micros(self.now().saturating_sub(heard));
        if silent < IN_USE {
            return false;
        }
        if let Some(open) = all.remove(&number) {
            open.is_closed.store(true, Ordering::Release);
            open.reader.wake();
            metrics::counter!("quorate_connections_closed_total", "port" => self.port).increment(1);
        }
        true
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn gauge(&self, count: usize) {
        metrics::gauge!("quorate_connections", "port" => self.port).set(count as f64);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut all = self.all.open.lock();
        // One that was closed for another is not there any more.
        all.remove(&self.number);
        self.all.gauge(all.len());
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.open.reader.register(task.waker());
        if self.open.is_closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let read = Pin::new(&mut self.stream).poll_read(task, buffer);
        if read.is_ready() {
            self.open.heard.store(self.all.now(), Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(task, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl Connected for Held {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

/// A listener of the HTTP port under its limit.
pub(crate) struct LimitedListener {
    pub(crate) listener: TcpListener,
    pub(crate) connections: Arc<Connections>,
}

impl axum::serve::Listener for LimitedListener {
    type Io = Held;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Held, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    if let Some(held) = self.connections.hold(stream) {
                        return (held, address);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection is not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A client's end and the held one.
    async fn pair(
        listener: &TcpListener,
        connections: &Arc<Connections>,
    ) -> (TcpStream, Option<Held>) {
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), connections.hold(accepted.unwrap().0))
    }

    #[tokio::test]
    async fn the_silent_make_room_and_those_in_use_do_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let connections = Connections::new("test", 2);
        let (_silent_client, silent) = pair(&listener, &connections).await;
        let mut silent = silent.unwrap();
        let waiting = tokio::spawn(async move { silent.read_u8().await });
        let (mut busy_client, busy) = pair(&listener, &connections).await;
        let mut busy = busy.unwrap();
        assert!(pair(&listener, &connections).await.1.is_none());
        tokio::time::sleep(IN_USE).await;
        busy_client.write_u8(7).await.unwrap();
        assert_eq!(busy.read_u8().await.unwrap(), 7);
        let (_new_client, new) = pair(&listener, &connections).await;
        assert!(new.is_some());
        let ended = waiting.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionAborted);
        assert!(pair(&listener, &connections).await.1.is_none());
        drop(busy);
        assert!(pair(&listener, &connections).await.1.is_some());
    }
}
