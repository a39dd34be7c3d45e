//! What is done to the nodes, by name; each fault says how it is known to have happened.
//!
//! Several nemeses work side by side, each by its own rhythm. `partition` says who no longer hears
//! whom, as plain values; `disturb` does it, and undoes it, with `links` for ways that are bad,
//! `disks` for disks that are, and `bits` for what rots on them.

mod bits;
mod disks;
mod disturb;
mod links;
mod partition;

use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::error::LabError;

pub(crate) use bits::DATA_LOSS;
pub(crate) use disturb::{Scene, disturb};

/// One kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nemesis {
    /// The nodes in two halves.
    Halves,
    /// A minority apart from the rest.
    Minority,
    /// Each node hears a majority, no two the same one.
    MajorityRing,
    /// Two halves, and one node that hears both.
    Bridge,
    /// One node that is heard by nobody, but hears all; or the other way round.
    OneWay,
    /// The leader apart from all others; clients reach it.
    IsolateLeader,
    /// Halves that come and go several times a second.
    Flapping,
    /// kill -9 of any node.
    KillOne,
    /// kill -9 of the leader.
    KillLeader,
    /// kill -9 of a majority at once.
    KillMajority,
    /// kill -9 of all nodes at once.
    KillAll,
    /// SIGSTOP of any node.
    PauseOne,
    /// SIGSTOP of the leader, longer than an election takes.
    PauseLeader,
    /// SIGSTOP of all nodes.
    PauseAll,
    /// One node after the other asked to stop, and started again.
    RollingRestart,
    /// A minority's clocks wrong by up to two seconds, either way.
    ClockSkew,
    /// One node's clock that jumps to and fro many times a second.
    ClockStrobe,
    /// Power cut of any node: killed, and what it had not synced is gone.
    PowerCut,
    /// Power cut of all nodes at once.
    PowerCutAll,
    /// A minority's syncs take long.
    DiskSlow,
    /// One node's disk is full.
    DiskFull,
    /// One node's syncs fail, and what they were to write is gone.
    SyncError,
    /// Bits flipped in the files of a node that does not run.
    BitFlip,
    /// The leader is told to hand its ranges to others.
    TransferLeader,
    /// What nodes say to each other arrives late.
    Delay,
    /// Little gets through between nodes.
    SlowLink,
    /// Packets between nodes are lost at random.
    Loss,
    /// Connections between nodes are reset.
    Reset,
}

impl Nemesis {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::Halves,
        Self::Minority,
        Self::MajorityRing,
        Self::Bridge,
        Self::OneWay,
        Self::IsolateLeader,
        Self::Flapping,
        Self::KillOne,
        Self::KillLeader,
        Self::KillMajority,
        Self::KillAll,
        Self::PauseOne,
        Self::PauseLeader,
        Self::PauseAll,
        Self::RollingRestart,
        Self::ClockSkew,
        Self::ClockStrobe,
        Self::PowerCut,
        Self::PowerCutAll,
        Self::DiskSlow,
        Self::DiskFull,
        Self::SyncError,
        Self::BitFlip,
        Self::TransferLeader,
        Self::Delay,
        Self::SlowLink,
        Self::Loss,
        Self::Reset,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Halves => "halves",
            Self::Minority => "minority",
            Self::MajorityRing => "majority-ring",
            Self::Bridge => "bridge",
            Self::OneWay => "one-way",
            Self::IsolateLeader => "isolate-leader",
            Self::Flapping => "flapping",
            Self::KillOne => "kill",
            Self::KillLeader => "kill-leader",
            Self::KillMajority => "kill-majority",
            Self::KillAll => "kill-all",
            Self::PauseOne => "pause",
            Self::PauseLeader => "pause-leader",
            Self::PauseAll => "pause-all",
            Self::RollingRestart => "rolling-restart",
            Self::ClockSkew => "clock-skew",
            Self::ClockStrobe => "clock-strobe",
            Self::PowerCut => "power-cut",
            Self::PowerCutAll => "power-cut-all",
            Self::DiskSlow => "disk-slow",
            Self::DiskFull => "disk-full",
            Self::SyncError => "fsync-error",
            Self::BitFlip => "bit-flip",
            Self::TransferLeader => "transfer-leader",
            Self::Delay => "delay",
            Self::SlowLink => "slow-link",
            Self::Loss => "loss",
            Self::Reset => "reset",
        }
    }

    /// Whether nodes need a disk that takes orders for it.
    pub(crate) const fn is_of_disks(self) -> bool {
        matches!(
            self,
            Self::PowerCut | Self::PowerCutAll | Self::DiskSlow | Self::DiskFull | Self::SyncError
        )
    }

    /// Whether it can be done to processes that the lab knows nothing of but how to start them.
    pub(crate) const fn is_for_any_store(self) -> bool {
        match self {
            Self::IsolateLeader
            | Self::KillLeader
            | Self::PauseLeader
            | Self::ClockSkew
            | Self::ClockStrobe
            | Self::BitFlip
            | Self::TransferLeader => false,
            Self::Halves
            | Self::Minority
            | Self::MajorityRing
            | Self::Bridge
            | Self::OneWay
            | Self::Flapping
            | Self::KillOne
            | Self::KillMajority
            | Self::KillAll
            | Self::PauseOne
            | Self::PauseAll
            | Self::RollingRestart
            | Self::Delay
            | Self::SlowLink
            | Self::Loss
            | Self::Reset => true,
            Self::PowerCut
            | Self::PowerCutAll
            | Self::DiskSlow
            | Self::DiskFull
            | Self::SyncError => false,
        }
    }

    /// Whether so many nodes are enough for it.
    ///
    /// # Errors
    ///
    /// [`LabError::Refused`] says how many it takes.
    pub(crate) fn check(self, nodes: usize) -> Result<(), LabError> {
        let least = match self {
            Self::MajorityRing => 4,
            Self::Bridge | Self::Minority | Self::ClockSkew | Self::ClockStrobe | Self::BitFlip => {
                3
            }
            Self::Halves
            | Self::OneWay
            | Self::IsolateLeader
            | Self::Flapping
            | Self::TransferLeader
            | Self::Delay
            | Self::SlowLink
            | Self::Loss
            | Self::Reset => 2,
            Self::KillOne
            | Self::KillLeader
            | Self::KillMajority
            | Self::KillAll
            | Self::PauseOne
            | Self::PauseLeader
            | Self::PauseAll
            | Self::RollingRestart
            | Self::PowerCut
            | Self::PowerCutAll
            | Self::DiskSlow
            | Self::DiskFull
            | Self::SyncError => 1,
        };
        if nodes >= least {
            return Ok(());
        }
        let what = format!(
            "the nemesis {} takes {least} nodes, not {nodes}",
            self.name()
        );
        Err(LabError::refused(what, ""))
    }
}

impl FromStr for Nemesis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|nemesis| nemesis.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|nemesis| nemesis.name()).collect();
            format!("known are none, {}", names.join(", "))
        })
    }
}

/// One fault that was made and undone.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) nemesis: Nemesis,
    /// Since the recording began.
    pub(crate) begin: Duration,
    pub(crate) end: Duration,
    /// To whom.
    pub(crate) what: String,
    /// How it is known to have happened; none: it is not known.
    pub(crate) proof: Option<String>,
    /// What the store did in it that it must not do.
    pub(crate) breach: Option<String>,
}

impl Fault {
    pub(crate) fn to_json(&self) -> Json {
        json!({
            "nemesis": self.nemesis.name(),
            "begin_ms": self.begin.as_millis() as u64,
            "end_ms": self.end.as_millis() as u64,
            "what": self.what,
            "proof": self.proof,
            "breach": self.breach,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_told() {
        for nemesis in Nemesis::ALL {
            assert_eq!(nemesis.name().parse(), Ok(nemesis));
        }
        assert!("gremlin".parse::<Nemesis>().is_err());
    }

    #[test]
    fn too_few_nodes_are_refused() {
        assert!(Nemesis::MajorityRing.check(3).is_err());
        assert!(Nemesis::MajorityRing.check(5).is_ok());
    }
}
