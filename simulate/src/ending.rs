//! The end of a run, when all is whole again: every node serves, replicas become the same, nothing
//! is kept beside the log and no hint waits; all of it within a bound of simulated time.

use std::time::Duration;

use quorate_types::RangeId;
use tokio::time::Instant;

use crate::ask::{Asked, Level, Write};
use crate::work::Work;
use crate::world::{Shared, World, id_of};

/// Every node serves strong calls within this after all is whole, and replicas are the same.
pub(crate) const WHOLE_MAX: Duration = Duration::from_secs(30);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// A key that no client uses.
const UNUSED_KEY: i64 = -1;

/// Waits for all of it; accuses the cluster of what does not come to be.
pub(crate) async fn await_whole(world: &Shared) {
    let deadline = Instant::now() + WHOLE_MAX;
    for work in world.plan.work.clone() {
        for at in world.sound() {
            if let Err(problem) = serves(world, at, work, deadline).await {
                world.accuse(problem);
            }
        }
    }
    let mut problem = String::new();
    while Instant::now() < deadline {
        match world.rest() {
            Ok(()) => return,
            Err(other) => problem = other,
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    world.accuse(format!(
        "not within {WHOLE_MAX:?} after the heal: {problem}"
    ));
}

async fn serves(world: &World, at: usize, work: Work, deadline: Instant) -> Result<(), String> {
    let level = match work {
        Work::Registers
        | Work::Mixed
        | Work::Transactions
        | Work::Sessions
        | Work::Watches
        | Work::Locks
        | Work::Fences
        | Work::Sets
        | Work::Batches
        | Work::Expiring => Level::Linearizable,
        Work::Siblings => Level::Eventual {
            copies: quorate_proto::v1::Copies::Quorum,
            strict: true,
        },
    };
    while Instant::now() < deadline {
        let write = Write {
            keyspace: work.keyspace(),
            key: UNUSED_KEY,
            value: Some(0),
            level,
            context: None,
            name: None,
        };
        let asked = world.write(at, write, Duration::from_secs(2)).await;
        if matches!(asked, Asked::Done(())) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let name = work.name();
    Err(format!("node {} does not serve {name} again", at + 1))
}

impl World {
    /// Whether all replicas hold the same and have nothing left to do.
    pub(crate) fn rest(&self) -> Result<(), String> {
        let damaged = self.sound().count() < self.len();
        for at in self.sound() {
            let process = self.process(at);
            let process = process.ok_or_else(|| format!("node {} does not run", at + 1))?;
            let hints = process.eventual.hints().0;
            // Those for a node that stays away are kept.
            if hints > 0 && !damaged {
                return Err(format!("node {} keeps {hints} hints", at + 1));
            }
            let hinted = process.eventual.hinted();
            if let Some(other) = self.sound().find(|other| hinted.contains(&id_of(*other))) {
                let (name, other) = (at + 1, other + 1);
                return Err(format!("node {name} keeps hints for node {other}"));
            }
        }
        for (range, primaries) in self.ranges() {
            self.same(range, &primaries)?;
        }
        Ok(())
    }

    fn same(&self, range: RangeId, primaries: &[usize]) -> Result<(), String> {
        let mut states = Vec::new();
        let mut planes = Vec::new();
        // A node whose eventual plane is not open; strong keyspaces have none anywhere. Beside a
        // log, which brings all replicas the same, one that nobody has asked for may stay closed.
        let mut closed = None;
        for at in primaries.iter().filter(|at| !self.is_condemned(**at)) {
            let name = at + 1;
            let process = self.process(*at);
            let process = process.ok_or_else(|| format!("node {name} does not run"))?;
            let group = process.raft.group(range);
            let has_log = group.is_some();
            if let Some(group) = group {
                let hash = group.table().hash();
                let (position, hash) = hash.map_err(|error| format!("node {name}: {error}"))?;
                states.push((*at, position.index, hash));
            }
            if !process.eventual.has(range) {
                if !has_log {
                    closed = Some(name);
                }
                continue;
            }
            let report = process.eventual.report(range);
            let report = report.map_err(|error| format!("node {name}: {error}"))?;
            let hash = report.hash;
            let hash = hash.ok_or_else(|| format!("node {name} has no hash tree yet"))?;
            if report.overlay_rows > 0 {
                let rows = report.overlay_rows;
                return Err(format!("node {name} has {rows} rows beside the log"));
            }
            planes.push(hash);
        }
        if let Some(name) = closed.filter(|_| !planes.is_empty()) {
            let range = range.0;
            return Err(format!(
                "node {name} has not opened its part of range {range}"
            ));
        }
        let range = range.0;
        if let Some((_, index, hash)) = states.first()
            && states
                .iter()
                .any(|state| (state.1, state.2) != (*index, *hash))
        {
            let applied = states
                .iter()
                .map(|(at, index, _)| format!("{index} at node {}", at + 1));
            let applied = applied.collect::<Vec<_>>().join(", ");
            return Err(format!(
                "range {range}: committed states differ: applied are {applied}"
            ));
        }
        match planes.iter().all(|hash| *hash == planes[0]) {
            true => Ok(()),
            false => Err(format!("range {range}: eventual planes differ")),
        }
    }
}
