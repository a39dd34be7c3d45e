//! A nemesis at work: quiet, then a fault, then whole again, until the time is up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::disks::Failing;
use super::partition::{self, Partition};
use super::{Fault, Nemesis};
use crate::cluster::Cluster;
use crate::error::LabError;
use crate::random::Random;
use crate::record::Recorder;

/// Between two faults.
const QUIET: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(2000));
/// Long enough for elections, suspicions and time-outs to happen.
pub(super) const CUT: (Duration, Duration) =
    (Duration::from_millis(1500), Duration::from_millis(4000));
pub(super) const DOWN: (Duration, Duration) =
    (Duration::from_millis(50), Duration::from_millis(2000));
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
pub(super) struct Actor {
    pub(super) scene: Arc<Scene>,
    pub(super) nemesis: Nemesis,
    /// Its place among the others.
    pub(super) number: usize,
    pub(super) random: Random,
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
    pub(super) async fn waited(&mut self, (least, most): (Duration, Duration)) -> bool {
        let time = self.random.between(least, most);
        let over = self.over.wait_for(|over| *over);
        tokio::time::timeout(time, over).await.is_err()
    }

    async fn fault(&mut self) -> Result<(), LabError> {
        let ids = self.ids();
        match self.nemesis {
            Nemesis::Halves => {
                let partition = self.halves();
                self.cut(partition).await
            }
            Nemesis::Minority => {
                let few = self.few();
                let partition = partition::sides(ids, few.len(), &mut self.random);
                self.cut(partition).await
            }
            Nemesis::MajorityRing => {
                let partition = partition::majority_ring(ids, &mut self.random);
                self.cut(partition).await
            }
            Nemesis::Bridge => {
                let partition = partition::bridge(ids, &mut self.random);
                self.cut(partition).await
            }
            Nemesis::OneWay => {
                let partition = partition::one_way(ids, &mut self.random);
                self.cut(partition).await
            }
            Nemesis::IsolateLeader => {
                let leader = self.leader().await;
                self.cut(partition::alone(&ids, leader)).await
            }
            Nemesis::Flapping => self.flap().await,
            Nemesis::KillOne => {
                let struck = self.any();
                self.kill(struck).await
            }
            Nemesis::KillLeader => {
                let struck = vec![self.leader().await];
                self.kill(struck).await
            }
            Nemesis::KillMajority => {
                let majority = ids.len() / 2 + 1;
                let mut struck = self.random.shuffled(ids);
                struck.truncate(majority);
                self.kill(struck).await
            }
            Nemesis::KillAll => self.kill(ids).await,
            Nemesis::PauseOne => {
                let struck = self.any();
                self.pause(struck).await
            }
            Nemesis::PauseLeader => {
                let struck = vec![self.leader().await];
                self.pause(struck).await
            }
            Nemesis::PauseAll => self.pause(ids).await,
            Nemesis::RollingRestart => self.restart().await,
            Nemesis::ClockSkew => {
                let struck = self.few();
                self.clocks(struck, 1, CUT).await
            }
            Nemesis::ClockStrobe => {
                let struck = self.any();
                self.clocks(struck, STROBES, STROBE).await
            }
            Nemesis::PowerCut => {
                let struck = self.any();
                self.power_cut(struck).await
            }
            Nemesis::PowerCutAll => self.power_cut(ids).await,
            Nemesis::DiskSlow => {
                let struck = self.few();
                self.slow_disks(struck).await
            }
            Nemesis::DiskFull => self.failing_disk(Failing::Full).await,
            Nemesis::SyncError => self.failing_disk(Failing::Sync).await,
            Nemesis::BitFlip => self.flip_bits().await,
            Nemesis::TransferLeader => self.transfer_leader().await,
            Nemesis::Delay => self.delay_links().await,
            Nemesis::SlowLink => self.narrow_links().await,
            Nemesis::Loss => self.lossy_links().await,
            Nemesis::Reset => self.reset_links().await,
        }
    }

    pub(super) fn ids(&self) -> Vec<usize> {
        self.scene.cluster.ids()
    }

    /// The leader, or any node while there is none.
    async fn leader(&mut self) -> usize {
        let leader = self.scene.cluster.leader(&self.scene.keyspace).await;
        leader.unwrap_or_else(|| *self.random.pick(&self.scene.cluster.ids()))
    }

    /// One node, whichever.
    pub(super) fn any(&mut self) -> Vec<usize> {
        vec![*self.random.pick(&self.scene.cluster.ids())]
    }

    /// Fewer nodes than half of them, at least one.
    pub(super) fn few(&mut self) -> Vec<usize> {
        let ids = self.ids();
        let few = 1 + self.random.below(((ids.len() - 1) / 2).max(1));
        let mut struck = self.random.shuffled(ids);
        struck.truncate(few);
        struck
    }

    fn halves(&mut self) -> Partition {
        let ids = self.ids();
        let half = ids.len() / 2;
        partition::sides(ids, half, &mut self.random)
    }

    async fn cut(&mut self, partition: Partition) -> Result<(), LabError> {
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
        let partition = self.halves();
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

    async fn kill(&mut self, struck: Vec<usize>) -> Result<(), LabError> {
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

    async fn pause(&mut self, struck: Vec<usize>) -> Result<(), LabError> {
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

    async fn clocks(
        &mut self,
        struck: Vec<usize>,
        steps: usize,
        step: (Duration, Duration),
    ) -> Result<(), LabError> {
        let what = format!("nodes {struck:?}");
        let begin = self.begin(&what);
        let cluster = self.scene.cluster.clone();
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

    /// The leader hands its ranges over, and goes on.
    async fn transfer_leader(&mut self) -> Result<(), LabError> {
        let leader = self.leader().await;
        let what = format!("node {leader}");
        let begin = self.begin(&what);
        let handed = self.scene.cluster.hand_over(leader).await;
        let proof = handed.filter(|(_, handed)| *handed > 0);
        let proof = proof.map(|(led, handed)| {
            format!("node {leader} led {led} ranges, and {handed} of them no more")
        });
        self.end(begin, what, proof);
        Ok(())
    }

    pub(super) fn begin(&self, what: &str) -> Duration {
        let value = json!(format!("begin: {what}"));
        self.scene
            .recorder
            .remark("nemesis", self.nemesis.name(), &value);
        self.scene.recorder.elapsed()
    }

    pub(super) fn end(&self, begin: Duration, what: String, proof: Option<String>) {
        self.end_with(begin, what, proof, None);
    }

    /// The end of a fault in which the store may have done what it must not.
    pub(super) fn end_with(
        &self,
        begin: Duration,
        what: String,
        proof: Option<String>,
        breach: Option<String>,
    ) {
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
            breach,
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
