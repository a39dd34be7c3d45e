//! Flipped bits in one node's log or engine: what is wrong is never given out as data, and a
//! replica that has lost entries to damage does not help to lose them for good.

use std::time::Duration;

use quorate_storage::disk::Disk;

use crate::clients::Clients;
use crate::world::{Settings, Shared, folder, run_all};

const FLIPS_MAX: u64 = 12;

/// Flips bits in one of the files of a node's folder `part`, among the bytes that were written.
fn flip_bits(world: &Shared, node: usize, part: &str) {
    let disk = world.disk(node);
    let dir = folder(node).join(part);
    let names = disk.list(&dir).unwrap();
    let files: Vec<_> = names
        .iter()
        .map(|name| dir.join(name))
        .filter_map(|path| {
            let data = disk.read_whole(&path).ok()?;
            let used = data.iter().rposition(|byte| *byte != 0)? + 1;
            Some((path, used as u64))
        })
        .collect();
    let (path, used) = &files[world.roll(files.len() as u64) as usize];
    // Anywhere, or near the end, where damage may look like a torn write.
    let from = match world.roll(2) {
        0 => 0,
        _ => used.saturating_sub(4_096),
    };
    for _ in 0..=world.roll(FLIPS_MAX) {
        let offset = from + world.roll(used - from);
        let bit = world.roll(8) as u8;
        disk.flip_bit(path, offset, bit).unwrap();
    }
}

/// Takes a node down, damages it and starts it, if it starts.
async fn damage(world: &Shared, node: usize, part: &str) {
    world.kill(node);
    world.condemn(node);
    flip_bits(world, node, part);
    // What does not start says so, and stays away.
    if let Err(problem) = world.restart(node).await {
        println!("node {} reports: {problem}", node + 1);
    }
}

async fn watch_disks(world: Shared) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.reap_failed();
    }
}

fn part(world: &Shared) -> &'static str {
    ["log", "engine"][world.roll(2) as usize]
}

/// One node is damaged while clients go on.
async fn one_is_damaged(world: Shared) {
    let watcher = tokio::spawn(watch_disks(world.clone()));
    let mut clients = Clients::start(&world, 4, 4);
    tokio::time::sleep(Duration::from_millis(300 + world.roll(600))).await;
    let node = world.any_node();
    damage(&world, node, part(&world)).await;
    tokio::time::sleep(Duration::from_millis(500 + world.roll(500))).await;
    clients.stop().await;
    clients.settle().await;
    watcher.abort();
}

#[test]
fn damage_is_never_given_out_as_data() {
    let settings = Settings::default();
    run_all(
        "damage_is_never_given_out_as_data",
        5,
        &settings,
        one_is_damaged,
    );
}

/// One replica lags, one is damaged, and the only whole one goes: what it alone still knows must
/// not be undone by the other two.
async fn a_majority_that_knows_less(world: Shared) {
    let watcher = tokio::spawn(watch_disks(world.clone()));
    let mut clients = Clients::start(&world, 3, 3);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let leader = world.await_leader().await;
    let one = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    let (lagging, damaged, whole) = match world.roll(3) {
        0 => (one, other, leader),
        1 => (one, leader, other),
        _ => (other, one, leader),
    };
    world.isolate(lagging);
    tokio::time::sleep(Duration::from_millis(600 + world.roll(600))).await;
    clients.stop().await;
    // Rest: a log that is at rest has sealed its end.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    damage(&world, damaged, part(&world)).await;
    world.cut_power(whole);
    world.network.heal();
    clients.resume(3);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    world.restart(whole).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    clients.stop().await;
    clients.settle().await;
    watcher.abort();
}

#[test]
fn a_damaged_replica_helps_nobody_to_forget() {
    let settings = Settings::default();
    let name = "a_damaged_replica_helps_nobody_to_forget";
    run_all(name, 4, &settings, a_majority_that_knows_less);
}
