//! Where nodes live, and how what they say to each other is cut.
//!
//! Two kinds: *netns*, a network namespace for each node on Linux as root, where the kernel drops
//! packets; and *proxy*, relays in this process on the loopback interface, for any system and any
//! user. Starting and killing processes is `node`'s business, and the same for both.

mod netns;
mod proxy;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::process::Command;

use crate::error::LabError;
use crate::nemesis::Nemesis;

pub use netns::preflight;

/// What one node says no longer reaches another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut {
    /// Who speaks.
    pub from: usize,
    /// Who does not hear it.
    pub to: usize,
}

/// How a way from one node to another is bad, short of being cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// All that is said arrives so much later.
    pub delay: Duration,
    /// And by up to so much later again, in the same order.
    pub jitter: Duration,
    /// No more than this gets through; none: there is no bound.
    pub bytes_per_second: Option<u64>,
    /// So many of a hundred packets are dropped.
    pub loss_percent: u8,
    /// Connections are reset.
    pub resets: bool,
}

impl Strain {
    /// Both at once.
    pub(crate) fn and(self, other: Self) -> Self {
        let both = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        Self {
            delay: self.delay + other.delay,
            jitter: self.jitter + other.jitter,
            bytes_per_second: both(self.bytes_per_second, other.bytes_per_second),
            loss_percent: self.loss_percent.max(other.loss_percent),
            resets: self.resets || other.resets,
        }
    }
}

/// The strained ways; all others are as good as the machine.
pub type Strains = BTreeMap<Cut, Strain>;

/// At which of a node's two ports other nodes reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meet {
    /// Where clients do.
    WithClients,
    /// At the second one, which is HTTP's with Quorate.
    Apart,
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

    /// Where a node is told to serve HTTP; or other nodes, if it is none of ours.
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

    /// Strains exactly these ways from now on. What this kind of hosts cannot do was refused before.
    async fn strain(&self, strains: &Strains) -> Result<(), LabError>;

    /// How often something was strained since the beginning: packets, pieces of streams, or
    /// connections.
    async fn strained(&self) -> Result<u64, LabError>;

    /// Bytes that were sent and have not been taken by their receiver's system: with what was cut
    /// before they come when the sender's tries again, seconds after all is whole.
    async fn on_their_way(&self) -> Result<u64, LabError>;

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
                "namespaces: Linux, root, `ip` and `nft`; cuts both ways or one way, per pair, \
                 packets are dropped silently; loses packets at random, limits bandwidth, \
                 resets connections; does not delay"
            }
            Self::Proxy => {
                "relays on loopback: any system, no root; cuts both ways or one way, per pair, \
                 streams stall and new connections hang; delays, limits bandwidth, resets \
                 connections; sees streams, and so loses no packets"
            }
        }
    }

    /// Whether it can do what a nemesis takes.
    pub(crate) const fn can(self, nemesis: Nemesis) -> bool {
        match self {
            // The kernels that this runs on have no queue that waits.
            Self::Netns => !matches!(nemesis, Nemesis::Delay),
            Self::Proxy => !matches!(nemesis, Nemesis::Loss),
        }
    }

    fn check(self, nemeses: &[Nemesis]) -> Result<(), LabError> {
        let Some(impossible) = nemeses.iter().find(|nemesis| !self.can(**nemesis)) else {
            return Ok(());
        };
        let (name, what) = (self.name(), impossible.name());
        let others = Self::ALL.into_iter().find(|kind| kind.can(*impossible));
        let hint = others.map(|kind| format!("--hosts {}: {}", kind.name(), kind.about()));
        Err(LabError::refused(
            format!(
                "the nemesis {what} cannot be had on {name} ({})",
                self.about()
            ),
            hint.unwrap_or_default(),
        ))
    }

    /// The kind that was asked for, if it can be had here and can do it all; else the best that can.
    pub(crate) async fn choose(asked: Option<Self>, nemeses: &[Nemesis]) -> Result<Self, LabError> {
        match asked {
            Some(Self::Proxy) => Self::Proxy.check(nemeses).map(|()| Self::Proxy),
            Some(Self::Netns) => {
                Self::Netns.check(nemeses)?;
                match preflight().await {
                    Ok(()) => Ok(Self::Netns),
                    Err(missing) => Err(LabError::refused(
                        format!("--hosts netns cannot be had here: {missing}"),
                        "try --hosts proxy",
                    )),
                }
            }
            None if Self::Netns.check(nemeses).is_err() => {
                Self::Proxy.check(nemeses).map(|()| Self::Proxy)
            }
            None => match preflight().await {
                Ok(()) => Ok(Self::Netns),
                Err(_) => Self::Proxy.check(nemeses).map(|()| Self::Proxy),
            },
        }
    }

    /// Makes hosts for so many nodes, which meet at one of their two ports.
    pub(crate) async fn open(self, nodes: usize, meet: Meet) -> Result<Arc<dyn Hosts>, LabError> {
        Ok(match self {
            Self::Netns => Arc::new(netns::Netns::open(nodes).await?),
            Self::Proxy => Arc::new(proxy::Proxies::open(nodes, meet).await?),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn what_hosts_cannot_do_is_refused_by_name() {
        let check = async |asked, nemesis, wanted: &str| {
            let error = HostsKind::choose(Some(asked), &[nemesis])
                .await
                .unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
        };
        check(
            HostsKind::Netns,
            Nemesis::Delay,
            "delay cannot be had on netns",
        )
        .await;
        check(
            HostsKind::Proxy,
            Nemesis::Loss,
            "loss cannot be had on proxy",
        )
        .await;
        let chosen = HostsKind::choose(None, &[Nemesis::Delay]).await.unwrap();
        assert_eq!(chosen, HostsKind::Proxy, "the kind that can");
        let both = [Nemesis::Delay, Nemesis::Loss];
        assert!(HostsKind::choose(None, &both).await.is_err());
    }

    #[test]
    fn strains_add_up() {
        let slow = Strain {
            delay: Duration::from_millis(10),
            bytes_per_second: Some(900),
            ..Strain::default()
        };
        let slower = Strain {
            delay: Duration::from_millis(5),
            bytes_per_second: Some(100),
            resets: true,
            ..Strain::default()
        };
        let both = slow.and(slower);
        assert_eq!(both.delay, Duration::from_millis(15));
        assert_eq!(both.bytes_per_second, Some(100));
        assert!(both.resets);
    }
}
