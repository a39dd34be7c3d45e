//! Disks that lose their power, are slow, full, or fail: by orders to the servers' disks.

use std::time::{Duration, Instant};

use super::disturb::{Actor, CUT, DOWN};
use crate::error::LabError;

/// How much longer syncs take, milliseconds.
const SLOWER_MIN_MS: usize = 50;
const SLOWER_MAX_MS: usize = 400;
/// Before a power cut, so that there is something to lose.
const CUT_SLOWER_MIN_MS: usize = 10;
const CUT_SLOWER_MAX_MS: usize = 80;
/// How much of a hundred reaches the disk before any sync.
const WRITE_BACK_PERCENT: [u64; 4] = [0, 0, 30, 90];
/// The power goes after some time like this,
const BEFORE_CUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(900));
/// and then as soon as each node has something to lose, or after this.
const HELD_MAX: Duration = Duration::from_millis(1500);
/// A node whose disk has failed ends by itself within this after the first failure.
const ENDS_MAX: Duration = Duration::from_secs(6);
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// It is full.
    Full,
    /// Its syncs fail.
    Sync,
}

impl Actor {
    /// Kills nodes while they have written what is not synced: that is then gone, or some of it.
    pub(super) async fn power_cut(&mut self, struck: Vec<usize>) -> Result<(), LabError> {
        let what = format!("nodes {struck:?}");
        let begin = self.begin(&what);
        let cluster = self.scene.cluster.clone();
        for id in &struck {
            let slower = CUT_SLOWER_MIN_MS + self.random.below(CUT_SLOWER_MAX_MS);
            let early = *self.random.pick(&WRITE_BACK_PERCENT);
            let orders = format!("sync-ms {slower}\nwrite-back {early}\n");
            cluster.disk(*id).order(&orders)?;
        }
        self.waited(BEFORE_CUT).await;
        let deadline = Instant::now() + HELD_MAX;
        let held = |id: &usize| cluster.disk(*id).tally().held_bytes;
        while Instant::now() < deadline && struck.iter().any(|id| held(id) == 0) {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let mut killed = 0;
        for id in &struck {
            killed += usize::from(cluster.node(*id).await.kill().await?.is_some());
        }
        let lost: Vec<u64> = struck.iter().map(held).collect();
        for id in &struck {
            cluster.disk(*id).order("")?;
        }
        self.waited(DOWN).await;
        for id in &struck {
            cluster.start_node(*id).await?;
        }
        let proven = killed == struck.len() && lost.iter().any(|bytes| *bytes > 0);
        let proof = proven.then(|| format!("killed with {lost:?} bytes unsynced, which are gone"));
        self.end(begin, what, proof);
        Ok(())
    }

    pub(super) async fn slow_disks(&mut self, struck: Vec<usize>) -> Result<(), LabError> {
        let slower = SLOWER_MIN_MS + self.random.below(SLOWER_MAX_MS - SLOWER_MIN_MS);
        let what = format!("nodes {struck:?}: syncs {slower} ms slower");
        let begin = self.begin(&what);
        let cluster = self.scene.cluster.clone();
        let slowed = |id: &usize| cluster.disk(*id).tally().slowed;
        let before: u64 = struck.iter().map(slowed).sum();
        for id in &struck {
            cluster.disk(*id).order(&format!("sync-ms {slower}\n"))?;
        }
        self.waited(CUT).await;
        let count = struck
            .iter()
            .map(slowed)
            .sum::<u64>()
            .saturating_sub(before);
        for id in &struck {
            cluster.disk(*id).order("")?;
        }
        let proof = (count > 0).then(|| format!("{count} syncs took longer"));
        self.end(begin, what, proof);
        Ok(())
    }

    /// A node whose disk fails must end by itself: it no longer knows what is on it. With the
    /// disk well again it is started again.
    pub(super) async fn failing_disk(&mut self, how: Failing) -> Result<(), LabError> {
        let id = self.any()[0];
        let (orders, what) = match how {
            Failing::Full => ("full\n", format!("node {id}: its disk is full")),
            Failing::Sync => ("sync-error\n", format!("node {id}: its syncs fail")),
        };
        let begin = self.begin(&what);
        let cluster = self.scene.cluster.clone();
        let starts = cluster.node(id).await.starts;
        cluster.disk(id).order(orders)?;
        let strikes = || {
            let tally = cluster.disk(id).tally();
            match how {
                Failing::Full => tally.refused,
                Failing::Sync => tally.failed,
            }
        };
        let mut first_strike = None;
        let ended = loop {
            let mut node = cluster.node(id).await;
            // Another nemesis may have killed it, and started it again, meanwhile.
            if !node.is_running() || node.starts != starts {
                break node.exit;
            }
            drop(node);
            if strikes() > 0 {
                first_strike.get_or_insert_with(Instant::now);
            }
            let is_late = first_strike.is_some_and(|at| at.elapsed() > ENDS_MAX);
            let is_over = *self.scene.over.borrow() && first_strike.is_none();
            if is_late || is_over {
                break None;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        };
        let strikes = strikes();
        let runs_on = cluster.node(id).await.is_running() && ended.is_none();
        cluster.disk(id).order("")?;
        self.waited(DOWN).await;
        cluster.start_node(id).await?;
        let proof = (strikes > 0).then(|| match ended {
            Some(code) => {
                format!("{strikes} calls of the disk failed, and it ended with exit {code}")
            }
            None => format!("{strikes} calls of the disk failed"),
        });
        // A full disk may only have refused what can wait, as room for later; a failed sync cannot.
        let is_late = first_strike.is_some_and(|at| at.elapsed() > ENDS_MAX);
        let breach = (how == Failing::Sync && runs_on && is_late)
            .then(|| format!("node {id} runs on although its syncs failed"));
        self.end_with(begin, what, proof, breach);
        Ok(())
    }
}
