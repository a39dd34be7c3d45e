//! A node that can only be helped by a snapshot, while the transfer breaks again and again.

use std::time::Duration;

use quorate_storage::disk::Disk;
use tokio::time::Instant;

use crate::clients::{put, within};
use crate::world::{PATIENCE, Settings, Shared, folder, run_all};

const WITHIN: Duration = Duration::from_millis(400);
const VALUE_BYTES: usize = 2_000;
/// Together with the above several chunks.
const KEYS: u64 = 900;
const BREAKS: u64 = 4;
/// A break comes so soon after a transfer's first chunk.
const TRANSFER_MICROSECONDS: u64 = 20_000;
/// Longer than the sender waits for the answer to one chunk.
const BREAK: Duration = Duration::from_secs(12);
/// The sender waits so long for the answer to the last chunk: a whole range is read in there.
const INSTALL: Duration = Duration::from_secs(120);

/// Puts on the leader's node until it succeeds.
async fn put_at(world: &Shared, leader: usize, key: u64, longest: Duration) -> bool {
    let deadline = within(longest);
    let name = format!("key-{key}");
    while Instant::now() < deadline {
        let (group, key) = world.group_of(leader, "default", name.as_bytes()).unwrap();
        let command = put(key, vec![0; VALUE_BYTES].into());
        if group.propose(command, within(WITHIN)).await.is_ok() {
            world.count_answer();
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

/// Waits until a part of a snapshot has arrived, or all of it.
async fn await_transfer(world: &Shared, node: usize) {
    let before = world.group(node).unwrap().applied();
    let deadline = within(PATIENCE);
    loop {
        let names = world.disk(node).list(&folder(node)).unwrap();
        let begun = names.iter().any(|name| name.ends_with(".part"));
        if begun || world.group(node).unwrap().applied() != before || Instant::now() > deadline {
            return;
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

/// Of three nodes only the leader is left with one that needs a snapshot: nothing can be decided,
/// so the snapshot's position does not move, and each attempt is about the same one.
async fn broken_transfers(world: Shared) {
    let leader = world.await_leader().await;
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let last = world.group(away).unwrap().applied().index;
    world.isolate(away);
    for key in 0..KEYS {
        assert!(put_at(&world, leader, key, PATIENCE).await, "a put fails");
    }
    let deadline = within(PATIENCE);
    while !world.has_forgotten(away, last) {
        assert!(Instant::now() < deadline, "the log is not purged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.isolate(other);
    for _ in 0..BREAKS {
        world.network.heal();
        world.isolate(other);
        await_transfer(&world, away).await;
        let time = Duration::from_micros(world.roll(TRANSFER_MICROSECONDS));
        tokio::time::sleep(time).await;
        world.isolate(away);
        tokio::time::sleep(BREAK).await;
    }
    world.network.heal();
    world.isolate(other);
    if !put_at(&world, leader, 0, INSTALL + PATIENCE).await {
        let at = world.group(away).map(|group| group.applied().index);
        world.accuse(format!("node {} is stuck at {at:?}", away + 1));
    }
}

#[test]
fn a_transfer_that_broke_is_made_good() {
    let settings = Settings::default();
    run_all(
        "a_transfer_that_broke_is_made_good",
        4,
        &settings,
        broken_transfers,
    );
}
