//! The endpoints of a client and their connections: which one to ask next, which one to let
//! rest. Connections are made when first needed, and again whenever they break.
//!
//! Not here: what is asked (see `attempts`), who leads which range (see `routes`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use quorate_proto::v1::admin_client::AdminClient;
use quorate_proto::v1::kv_client::KvClient;
use quorate_proto::v1::lease_client::LeaseClient;
use quorate_proto::v1::watch_client::WatchClient;
use quorate_types::limits::MESSAGE_MAX_BYTES;
use quorate_types::{FieldError, NodeId};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint as Dialer};

use crate::limits::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, ENDPOINT_REST, KEEP_ALIVE, STREAM_WINDOW_BYTES,
};
use crate::options::ClientOptions;

/// All endpoints of a client.
#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    turn: AtomicUsize,
    /// Where requests go that any node serves as well as any other.
    at_hand: AtomicUsize,
    /// Times are kept as milliseconds since then.
    born: Instant,
}

/// One node, as the caller named it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: String,
    channels: Vec<Channel>,
    turn: AtomicUsize,
    /// Passed over until then, while others are well; 0: it is well.
    rests_until_millis: AtomicU64,
    /// The node that answers there; 0: not learned.
    node: AtomicU64,
}

/// The endpoints that a request has been to, one bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Visited(u64);

impl Visited {
    pub(crate) fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    fn has(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    /// Whether there are endpoints among `count` that were not visited.
    pub(crate) fn leaves_any_of(self, count: usize) -> bool {
        (0..count).any(|index| !self.has(index))
    }
}

impl Endpoints {
    /// Prepares the connections, without making them. Needs a tokio runtime around it.
    ///
    /// # Errors
    ///
    /// An address that is none.
    pub(crate) fn prepare(options: &ClientOptions) -> Result<Self, FieldError> {
        let open = |address: &String| Endpoint::prepare(address, options.connections_per_endpoint);
        Ok(Self {
            all: options
                .endpoints
                .iter()
                .map(open)
                .collect::<Result<_, _>>()?,
            turn: AtomicUsize::new(0),
            at_hand: AtomicUsize::new(0),
            born: Instant::now(),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, index: usize) -> &Endpoint {
        &self.all[index]
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        let address = |endpoint: &Endpoint| endpoint.address.clone();
        self.all.iter().map(address).collect()
    }

    /// Where to go next: to the preferred node if it is well and was not visited, else by
    /// turns, first to those that are well and not visited, last to any.
    pub(crate) fn pick(&self, preferred: Option<NodeId>, visited: Visited) -> usize {
        let now = self.now_millis();
        let good = |index: usize| !visited.has(index) && !self.all[index].rests_at(now);
        if let Some(index) = preferred.and_then(|node| self.index_of(node))
            && good(index)
        {
            return index;
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.all.len();
        let in_turn = || (0..self.all.len()).map(|step| (first + step) % self.all.len());
        in_turn()
            .find(|index| good(*index))
            .or_else(|| in_turn().find(|index| !visited.has(*index)))
            .or_else(|| in_turn().find(|index| !self.all[*index].rests_at(now)))
            .unwrap_or(first)
    }

    /// Where to go next with a request of the eventual plane: always to the same endpoint, as
    /// long as that is well, so that what this client writes meets what it has written. The
    /// first one given is the first one asked.
    pub(crate) fn pick_at_hand(&self, visited: Visited) -> usize {
        let now = self.now_millis();
        let first = self.at_hand.load(Ordering::Relaxed);
        let good = |index: &usize| !visited.has(*index) && !self.all[*index].rests_at(now);
        let mut in_turn = (0..self.all.len()).map(|step| (first + step) % self.all.len());
        let Some(index) = in_turn.find(good) else {
            return self.pick(None, visited);
        };
        if index != first {
            self.at_hand.store(index, Ordering::Relaxed);
        }
        index
    }

    /// Passes the endpoint over for a while. Another node may come up behind it.
    pub(crate) fn rest(&self, index: usize) {
        let rest_millis = millis(ENDPOINT_REST);
        let endpoint = &self.all[index];
        let until = self.now_millis().saturating_add(rest_millis);
        endpoint.rests_until_millis.store(until, Ordering::Relaxed);
        endpoint.node.store(0, Ordering::Relaxed);
    }

    /// Takes note that the endpoint answered.
    pub(crate) fn is_well(&self, index: usize) {
        let endpoint = &self.all[index];
        if endpoint.rests_until_millis.load(Ordering::Relaxed) != 0 {
            endpoint.rests_until_millis.store(0, Ordering::Relaxed);
        }
    }

    /// Endpoints that are well, of which it is not known who answers there.
    pub(crate) fn strangers(&self) -> Vec<usize> {
        let now = self.now_millis();
        let is_stranger = |index: &usize| {
            let endpoint = &self.all[*index];
            endpoint.node.load(Ordering::Relaxed) == 0 && !endpoint.rests_at(now)
        };
        (0..self.all.len()).filter(is_stranger).collect()
    }

    /// Takes note of who answers there.
    pub(crate) fn introduce(&self, index: usize, node: NodeId) {
        self.all[index].node.store(node.0, Ordering::Relaxed);
    }

    fn index_of(&self, node: NodeId) -> Option<usize> {
        let is_it = |endpoint: &Endpoint| endpoint.node.load(Ordering::Relaxed) == node.0;
        self.all.iter().position(is_it)
    }

    /// Milliseconds since this client was made; never 0, which means "none".
    pub(crate) fn now_millis(&self) -> u64 {
        millis(self.born.elapsed()).saturating_add(1)
    }
}

impl Endpoint {
    fn prepare(address: &str, connections: usize) -> Result<Self, FieldError> {
        let dialer = dialer(address)?;
        Ok(Self {
            address: address.to_owned(),
            channels: (0..connections).map(|_| dialer.connect_lazy()).collect(),
            turn: AtomicUsize::new(0),
            rests_until_millis: AtomicU64::new(0),
            node: AtomicU64::new(0),
        })
    }

    fn rests_at(&self, now_millis: u64) -> bool {
        self.rests_until_millis.load(Ordering::Relaxed) > now_millis
    }

    /// The data surface, over the next of this endpoint's connections.
    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// The operator surface, over the next of this endpoint's connections.
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// Watches, over the next of this endpoint's connections.
    pub(crate) fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    /// Leases, over the next of this endpoint's connections.
    pub(crate) fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_MAX_BYTES)
            .max_encoding_message_size(MESSAGE_MAX_BYTES)
    }

    fn channel(&self) -> Channel {
        let turn = match self.channels.len() {
            1 => 0,
            count => self.turn.fetch_add(1, Ordering::Relaxed) % count,
        };
        self.channels[turn].clone()
    }
}

/// Everything that a connection is to be, set explicitly.
fn dialer(address: &str) -> Result<Dialer, FieldError> {
    let refused = |problem: &str| {
        let problem = format!("`{address}` {problem}; allowed: HOST:PORT");
        FieldError::new("endpoints", problem)
    };
    let authority = address.strip_prefix("http://").unwrap_or(address);
    let dialer = Dialer::from_shared(format!("http://{authority}"))
        .map_err(|_| refused("is not an address"))?;
    if dialer.uri().port_u16().is_none() {
        return Err(refused("has no port"));
    }
    Ok(dialer
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn three() -> Endpoints {
        let options = ClientOptions {
            endpoints: ["a:1", "b:2", "http://c:3"].map(str::to_owned).into(),
            ..ClientOptions::default()
        };
        Endpoints::prepare(&options).unwrap()
    }

    #[tokio::test]
    async fn endpoints_are_asked_by_turns() {
        let endpoints = three();
        let picks: Vec<_> = (0..4)
            .map(|_| endpoints.pick(None, Visited::default()))
            .collect();
        assert_eq!(picks, [0, 1, 2, 0]);
    }

    #[tokio::test]
    async fn the_preferred_node_is_asked_while_it_is_well_and_new() {
        let endpoints = three();
        endpoints.introduce(2, NodeId(9));
        for _ in 0..3 {
            assert_eq!(endpoints.pick(Some(NodeId(9)), Visited::default()), 2);
        }
        let mut visited = Visited::default();
        visited.add(2);
        assert_ne!(endpoints.pick(Some(NodeId(9)), visited), 2);
        endpoints.rest(2);
        assert_ne!(endpoints.pick(Some(NodeId(9)), Visited::default()), 2);
        assert_ne!(endpoints.pick(Some(NodeId(4)), Visited::default()), 2);
    }

    #[tokio::test]
    async fn who_rests_is_asked_last_and_comes_back() {
        let endpoints = three();
        endpoints.rest(0);
        endpoints.rest(1);
        assert_eq!(endpoints.pick(None, Visited::default()), 2);
        let mut visited = Visited::default();
        visited.add(2);
        assert!(visited.leaves_any_of(3));
        assert_ne!(endpoints.pick(None, visited), 2, "resting, but not visited");
        endpoints.is_well(0);
        assert_eq!(endpoints.pick(None, visited), 0);
        visited.add(0);
        visited.add(1);
        assert!(!visited.leaves_any_of(3));
    }

    #[tokio::test]
    async fn the_endpoint_at_hand_is_kept_until_it_fails() {
        let endpoints = three();
        let pick = || endpoints.pick_at_hand(Visited::default());
        assert_eq!([pick(), pick()], [0, 0]);
        endpoints.rest(0);
        assert_eq!([pick(), pick()], [1, 1]);
        endpoints.is_well(0);
        assert_eq!(pick(), 1, "there is no way back but by a failure");
        let mut visited = Visited::default();
        visited.add(1);
        assert_eq!(endpoints.pick_at_hand(visited), 2);
    }

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_sent() {
        for address in ["", "no spaces:1", "host", "127.0.0.1:99999", "a b"] {
            let refused = dialer(address).err();
            assert!(refused.is_some(), "{address:?}");
        }
        for address in ["localhost:7450", "[::1]:7450", "http://10.0.0.1:1"] {
            assert!(dialer(address).is_ok(), "{address:?}");
        }
    }
}
