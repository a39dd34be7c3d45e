//! Where nodes live, and how what they say to each other is cut.
//!
//! Two kinds: *netns*, a network namespace for each node on Linux as root, where the kernel drops
//! packets; and *proxy*, relays in this process on the loopback interface, for any system and any
//! user. Starting and killing processes is `node`'s business, and the same for both.

mod netns;
mod proxy;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::process::Command;

use crate::error::LabError;

pub use netns::preflight;

/// What one node says no longer reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut {
    /// Who speaks.
    pub from: usize,
    /// Who does not hear it.
    pub to: usize,
}

/// The kinds of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostsKind {
    /// Network namespaces.
    Netns,
    /// Relays on loopback.
    Proxy,
}

/// Nodes are numbered from 1, as the cluster's ids are.
#[async_trait]
pub trait Hosts: Send + Sync {
    /// Where a node is told to serve gRPC.
    fn listen(&self, node: usize) -> SocketAddr;

    /// Where a node is told to serve HTTP.
    fn http(&self, node: usize) -> SocketAddr;

    /// Where a node dials another one, if not where that listens.
    fn detour(&self, from: usize, to: usize) -> Option<SocketAddr>;

    /// A command that runs a program where the node lives.
    fn command(&self, node: usize, program: &Path) -> Command;

    /// Cuts exactly these from now on; everything else is whole. What clients say is never cut.
    async fn cut(&self, cuts: &BTreeSet<Cut>) -> Result<(), LabError>;

    /// How often something was held up by cuts since the beginning: packets, or connections and
    /// pieces of streams.
    async fn held(&self) -> Result<u64, LabError>;

    /// Takes everything away that was made for this run.
    async fn close(&self);
}

impl HostsKind {
    /// All kinds.
    pub const ALL: [Self; 2] = [Self::Netns, Self::Proxy];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Proxy => "proxy",
        }
    }

    /// Where it is of use, and what it can do.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Netns => {
                "namespaces: Linux, root, `ip` and `nft`; cuts both ways or one way, per \
                            pair, packets are dropped silently"
            }
            Self::Proxy => {
                "relays on loopback: any system, no root; cuts both ways or one way, per \
                            pair, streams stall and new connections hang"
            }
        }
    }

    /// The kind that was asked for, if it can be had here; else the best that can.
    pub(crate) async fn choose(asked: Option<Self>) -> Result<Self, LabError> {
        match asked {
            Some(Self::Proxy) => Ok(Self::Proxy),
            Some(Self::Netns) => match preflight().await {
                Ok(()) => Ok(Self::Netns),
                Err(missing) => Err(LabError::refused(
                    format!("--hosts netns cannot be had here: {missing}"),
                    "try --hosts proxy",
                )),
            },
            None => Ok(match preflight().await {
                Ok(()) => Self::Netns,
                Err(_) => Self::Proxy,
            }),
        }
    }

    /// Makes hosts for so many nodes.
    pub(crate) async fn open(self, nodes: usize) -> Result<Arc<dyn Hosts>, LabError> {
        Ok(match self {
            Self::Netns => Arc::new(netns::Netns::open(nodes).await?),
            Self::Proxy => Arc::new(proxy::Proxies::open(nodes).await?),
        })
    }
}

impl std::str::FromStr for HostsKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| "known are netns and proxy".to_owned())
    }
}
