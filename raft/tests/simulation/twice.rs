//! Writes under names, sent again and again through any node: each is applied once, or its sender
//! is told that nobody can say; and `close` then tells what became of it, for good.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::within;
use crate::sender::{Fate, Progress, Sender};
use crate::world::{PATIENCE, Settings, Shared, number_from, run_all};

const WINDOW: u32 = 100;
const WITHIN: Duration = Duration::from_millis(250);
/// Logs are purged within this. A snapshot whose end was lost is sent again after 120 s only, and
/// the two nodes that are left may need one of each other first.
const LAG_MAX: Duration = Duration::from_secs(150);
/// `QUORATE_OPERATIONS=10000` for the long run: so many puts, and so many increments, a seed.
const OPERATIONS_USUAL: u64 = 300;

/// Sets the window by the cluster's setting, and waits until the range has it.
async fn limit_window(world: &Shared) {
    let raft = world.raft(0).unwrap();
    let change = |base: &quorate_proto::internal::Catalog| {
        let mut next = base.clone();
        next.epoch += 1;
        next.settings
            .insert("window-results".to_owned(), WINDOW.to_string());
        Ok(next)
    };
    raft.update_catalog(within(PATIENCE), change).await.unwrap();
    // The leader looks at the catalog a few times a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Keeps one node away until the others have forgotten what it would need next: it can only come
/// back by a snapshot.
async fn lag_behind_a_snapshot(world: &Shared, deadline: Instant) {
    let leader = world.await_leader().await;
    let away = (leader + 1 + world.roll(2) as usize) % 3;
    let last = world.group(away).unwrap().applied().index;
    world.isolate(away);
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if world.has_forgotten(away, last) {
            world.network.heal();
            return;
        }
    }
    for node in world.all() {
        if let Some(raft) = world.raft(node) {
            let report = raft.local_report(false, "default").await;
            let range = report.replicas.first().map(|r| (r.leader, &r.replica));
            world.accuse(format!("node {}: {range:?}", node + 1));
        }
    }
    let away = away + 1;
    world.accuse(format!(
        "the log was not purged behind node {away}, which is at {last}"
    ));
    world.network.heal();
}

async fn disturb(world: &Shared) {
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(200 + world.roll(300))).await;
        let leader = world.await_leader().await;
        match world.roll(2) {
            0 => world.kill(leader),
            _ => world.cut_power(leader),
        }
        tokio::time::sleep(Duration::from_millis(world.roll(800))).await;
        world.restart(leader).await.unwrap();
    }
    lag_behind_a_snapshot(world, within(LAG_MAX)).await;
    let leader = world.await_leader().await;
    world.kill(leader);
    tokio::time::sleep(Duration::from_millis(world.roll(800))).await;
    world.restart(leader).await.unwrap();
}

async fn retries(world: Shared) {
    limit_window(&world).await;
    let progress = Arc::<Progress>::default();
    let sender = |client| Sender::new(&world, client, &progress);
    let putters: Vec<_> = (1..=3).map(sender).collect();
    let puts: Vec<_> = putters
        .iter()
        .map(|putter| tokio::spawn(putter.clone().run()))
        .collect();
    let counts: Vec<_> = (11..=12)
        .map(|client| tokio::spawn(sender(client).count()))
        .collect();
    let wanted = number_from("QUORATE_OPERATIONS").unwrap_or(OPERATIONS_USUAL);
    let done = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    while done(&progress.puts) < wanted || done(&progress.increments) < wanted {
        disturb(&world).await;
    }
    progress.stop.store(true, Ordering::Relaxed);
    for task in puts {
        task.await.unwrap();
    }
    let (mut added, mut unknown) = (0, 0);
    for task in counts {
        let (told, not_told) = task.await.unwrap();
        added += told;
        unknown += not_told;
    }
    let counter = sender(99).counter().await;
    if counter < added || counter > added + unknown {
        world.accuse(format!(
            "the counter is {counter} after {added} increments and {unknown} unknown ones"
        ));
    }
    for node in world.all() {
        check_puts(&world, node, &putters).await;
    }
    let (puts, cuts) = (done(&progress.puts), done(&progress.cuts));
    println!("{added} increments and {unknown} that nobody can tell, {puts} puts, {cuts} cuts");
    print_fates(&putters);
}

fn print_fates(putters: &[Arc<Sender>]) {
    let (mut applied, mut never, mut too_old) = (0, 0, 0);
    for putter in putters {
        for fate in putter.fates.lock().values() {
            match fate {
                Fate::Applied(_) => applied += 1,
                Fate::Never => never += 1,
                Fate::TooOld => too_old += 1,
            }
        }
    }
    println!("puts applied: {applied}, not applied: {never}, too old to tell: {too_old}");
}

/// Each put has left as many versions as its sender was told.
async fn check_puts(world: &Shared, node: usize, putters: &[Arc<Sender>]) {
    let deadline = within(PATIENCE);
    let group = world.group(node).unwrap();
    while group.read_barrier(within(WITHIN)).await.is_err() {
        assert!(
            Instant::now() < deadline,
            "node {} does not serve",
            node + 1
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for putter in putters {
        for (sequence, fate) in putter.fates.lock().iter() {
            let name = putter.key(*sequence);
            let (group, key) = world.group_of(node, "default", name.as_bytes()).unwrap();
            let history = group.table().history(&key, 10).unwrap();
            let revisions: Vec<u64> = history.iter().map(|entry| entry.revision).collect();
            let right = match fate {
                Fate::Applied(revision) => revisions == [*revision],
                Fate::Never => revisions.is_empty(),
                Fate::TooOld => revisions.len() <= 1,
            };
            if !right {
                let node = node + 1;
                world.accuse(format!(
                    "{name} on node {node}: {fate:?}, but {revisions:?}"
                ));
            }
        }
    }
}

#[test]
fn named_writes_are_applied_once() {
    let settings = Settings::default();
    run_all("named_writes_are_applied_once", 4, &settings, retries);
}
