//! A nemesis at work: quiet, then a fault, then whole again, until the time is up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::partition::{self, Partition};
use super::{Fault, Nemesis};
use crate::cluster::Cluster;
use crate::error::LabError;
use crate::random::Random;
use crate::record::Recorder;

/// Between two faults.
const QUIET: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(2000));
/// Long enough for elections, suspicions and time-outs to happen.
const CUT: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_millis(4000));
const DOWN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(2000));
const STILL: (Duration, Duration) = (Duration::from_millis(300), Duration::from_millis(3000));
const FLAP: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(400));
const FLAPS: usize = 12;
/// How wrong clocks are made, either way.
const OFFSET_MAX_MS: usize = 2000;
/// Less might be the way of the messages that tell of it.
const OFFSET_SEEN_MIN_MS: i64 = 100;
const STROBE: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(150));
const STROBES: usize = 25;

/// What a nemesis works with.
pub(crate) struct Scene {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) keyspace: String,
    pub(crate) faults: Mutex<Vec<Fault>>,
    /// True once all is to be whole.
    pub(crate) over: watch::Receiver<bool>,
}

/// One nemesis of several.
struct Actor {
    scene: Arc<Scene>,
    nemesis: Nemesis,
    /// Its place among the others.
    number: usize,
    random: Random,
    over: watch::Receiver<bool>,
}

/// Makes faults until the scene is over; each is undone before the next, and the last one, too.
///
/// # Errors
///
/// The lab cannot do what it is told.
pub(crate) async fn disturb(
    scene: Arc<Scene>,
    nemesis: Nemesis,
    number: usize,
    seed: u64,
) -> Result<(), LabError> {
    let mut actor = Actor {
        over: scene.over.clone(),
        random: Random::of(seed, 1000 + number as u64),
        scene,
        nemesis,
        number,
    };
    while actor.waited(QUIET).await {
        actor.fault().await?;
    }
    Ok(())
}

impl Actor {
    /// Waits some time between these two; false if it is over before.
    async fn waited(&mut self, (least, most): (Duration, Duration)) -> bool {
        let time = self.random.between(least, most);
        let over = self.over.wait_for(|over| *over);
        tokio::time::timeout(time, over).await.is_err()
    }

    async fn fault(&mut self) -> Result<(), LabError> {
        match self.nemesis {
            Nemesis::Halves
            | Nemesis::Minority
            | Nemesis::MajorityRing
            | Nemesis::Bridge
            | Nemesis::OneWay
            | Nemesis::IsolateLeader => self.cut().await,
            Nemesis::Flapping => self.flap().await,
            Nemesis::KillOne | Nemesis::KillLeader | Nemesis::KillMajority | Nemesis::KillAll => {
                self.kill().await
            }
            Nemesis::PauseOne | Nemesis::PauseLeader | Nemesis::PauseAll => self.pause().await,
            Nemesis::RollingRestart => self.restart().await,
            Nemesis::ClockSkew | Nemesis::ClockStrobe => self.clocks().await,
        }
    }

    fn ids(&self) -> Vec<usize> {
        self.scene.cluster.ids()
    }

    /// The leader, or any node while there is none.
    async fn leader(&mut self) -> usize {
        let leader = self.scene.cluster.leader(&self.scene.keyspace).await;
        leader.unwrap_or_else(|| *self.random.pick(&self.scene.cluster.ids()))
    }

    async fn partition(&mut self) -> Partition {
        let ids = self.ids();
        let half = ids.len() / 2;
        match self.nemesis {
            Nemesis::Minority => {
                let few = 1 + self.random.below(((ids.len() - 1) / 2).max(1));
                partition::sides(ids, few, &mut self.random)
            }
            Nemesis::MajorityRing => partition::majority_ring(ids, &mut self.random),
            Nemesis::Bridge => partition::bridge(ids, &mut self.random),
            Nemesis::OneWay => partition::one_way(ids, &mut self.random),
            Nemesis::IsolateLeader => {
                let leader = self.leader().await;
                partition::alone(&ids, leader)
            }
            Nemesis::Halves
            | Nemesis::Flapping
            | Nemesis::KillOne
            | Nemesis::KillLeader
            | Nemesis::KillMajority
            | Nemesis::KillAll
            | Nemesis::PauseOne
            | Nemesis::PauseLeader
            | Nemesis::PauseAll
            | Nemesis::RollingRestart
            | Nemesis::ClockSkew
            | Nemesis::ClockStrobe => partition::sides(ids, half, &mut self.random),
        }
    }

    async fn cut(&mut self) -> Result<(), LabError> {
        let partition = self.partition().await;
        let cluster = self.scene.cluster.clone();
        let before = cluster.hosts().held().await?;
        let begin = self.begin(&partition.what);
        cluster.cut(self.number, partition.cuts).await?;
        self.waited(CUT).await;
        let held = cluster.hosts().held().await?.saturating_sub(before);
        cluster.cut(self.number, Default::default()).await?;
        self.end(begin, partition.what, held_proof(held));
        Ok(())
    }

    async fn flap(&mut self) -> Result<(), LabError> {
        let partition = self.partition().await;
        let cluster = self.scene.cluster.clone();
        let before = cluster.hosts().held().await?;
        let begin = self.begin(&partition.what);
        for _ in 0..FLAPS {
            cluster.cut(self.number, partition.cuts.clone()).await?;
            let on = self.waited(FLAP).await;
            cluster.cut(self.number, Default::default()).await?;
            if !on || !self.waited(FLAP).await {
                break;
            }
        }
        let held = cluster.hosts().held().await?.saturating_sub(before);
        self.end(begin, partition.what, held_proof(held));
        Ok(())
    }

    /// Whom a fault of processes strikes.
    async fn struck(&mut self) -> Vec<usize> {
        let ids = self.ids();
        match self.nemesis {
            Nemesis::KillLeader | Nemesis::PauseLeader => vec![self.leader().await],
            Nemesis::KillMajority => {
                let majority = ids.len() / 2 + 1;
                let mut struck = self.random.shuffled(ids);
                struck.truncate(majority);
                struck
            }
            Nemesis::KillAll | Nemesis::PauseAll => ids,
            Nemesis::ClockSkew => {
                let few = 1 + self.random.below(((ids.len() - 1) / 2).max(1));
                let mut struck = self.random.shuffled(ids);
                struck.truncate(few);
                struck
            }
            Nemesis::Halves
            | Nemesis::Minority
            | Nemesis::MajorityRing
            | Nemesis::Bridge
            | Nemesis::OneWay
            | Nemesis::IsolateLeader
            | Nemesis::Flapping
            | Nemesis::KillOne
            | Nemesis::PauseOne
            | Nemesis::RollingRestart
            | Nemesis::ClockStrobe => vec![*self.random.pick(&ids)],
        }
    }

    async fn kill(&mut self) -> Result<(), LabError> {
        let struck = self.struck().await;
        let what = format!("nodes {struck:?}");
        let begin = self.begin(&what);
        let cluster = self.scene.cluster.clone();
        let mut before = Vec::new();
        for id in &struck {
            before.push(cluster.node(*id).await.kill().await?);
        }
        self.waited(DOWN).await;
        let mut proof = Vec::new();
        for (id, before) in struck.iter().zip(before) {
            cluster.start_node(*id).await?;
            let after = cluster.node(*id).await.process_id();
            if let (Some(before), Some(after)) = (before, after)
                && before != after
            {
                proof.push(format!("node {id}: process {before} → {after}"));
            }
        }
        let proven = proof.len() == struck.len();
        self.end(begin, what, proven.then(|| proof.join(", ")));
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), LabError> {
        let struck = self.struck().await;
        let what = format!("nodes {struck:?}");
        let begin = self.begin(&what);
        let cluster = self.scene.cluster.clone();
        for id in &struck {
            cluster.node(*id).await.pause()?;
        }
        self.waited(STILL).await;
        let mut still = 0;
        for id in &struck {
            let mut node = cluster.node(*id).await;
            // Systems without /proc do not say.
            still += usize::from(node.stands_still() || !cfg!(target_os = "linux"));
            node.resume()?;
        }
        let proof = format!("{still} of {} stood still", struck.len());
        self.end(begin, what, (still == struck.len()).then_some(proof));
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), LabError> {
        let begin = self.begin("all nodes in turn");
        let cluster = self.scene.cluster.clone();
        let mut again = 0;
        for id in self.ids() {
            let before = cluster.node(id).await.stop().await?;
            cluster.start_node(id).await?;
            let after = cluster.node(id).await.process_id();
            again += usize::from(before.is_some() && before != after);
            if !self.waited(QUIET).await {
                break;
            }
        }
        let proof = (again > 0).then(|| format!("{again} nodes run as other processes"));
        self.end(begin, "all nodes in turn".to_owned(), proof);
        Ok(())
    }

    async fn clocks(&mut self) -> Result<(), LabError> {
        let struck = self.struck().await;
        let what = format!("nodes {struck:?}");
        let begin = self.begin(&what);
        let cluster = self.scene.cluster.clone();
        let strobe = self.nemesis == Nemesis::ClockStrobe;
        let (steps, step) = if strobe { (STROBES, STROBE) } else { (1, CUT) };
        let mut seen_ms = 0;
        for _ in 0..steps {
            for id in &struck {
                let offset_ms = self.random.below(2 * OFFSET_MAX_MS + 1) as i64;
                cluster.set_clock(*id, offset_ms - OFFSET_MAX_MS as i64)?;
            }
            let on = self.waited(step).await;
            if let Some(offset_ms) = cluster.clock_offset(&struck).await {
                seen_ms = offset_ms.abs().max(seen_ms);
            }
            if !on {
                break;
            }
        }
        for id in &struck {
            cluster.set_clock(*id, 0)?;
        }
        let proof = format!("others saw their clocks {seen_ms} ms off");
        self.end(
            begin,
            what,
            (seen_ms >= OFFSET_SEEN_MIN_MS).then_some(proof),
        );
        Ok(())
    }

    fn begin(&self, what: &str) -> Duration {
        let value = json!(format!("begin: {what}"));
        self.scene
            .recorder
            .remark("nemesis", self.nemesis.name(), &value);
        self.scene.recorder.elapsed()
    }

    fn end(&self, begin: Duration, what: String, proof: Option<String>) {
        let value = json!(format!("end: {what}"));
        self.scene
            .recorder
            .remark("nemesis", self.nemesis.name(), &value);
        let fault = Fault {
            nemesis: self.nemesis,
            begin,
            end: self.scene.recorder.elapsed(),
            what,
            proof,
        };
        let faults = self.scene.faults.lock();
        faults
            .expect("nobody panics while adding to a list")
            .push(fault);
    }
}

fn held_proof(held: u64) -> Option<String> {
    (held > 0).then(|| format!("{held} held up"))
}
