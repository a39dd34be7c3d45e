//! A node that can only be helped by a snapshot, while the transfer breaks, or loses messages.

use std::time::Duration;

use quorate_raft::peer::Class;
use quorate_storage::disk::Disk;
use tokio::time::Instant;

use crate::clients::{put, within};
use crate::world::{PATIENCE, Settings, Shared, folder, id_of, run_all};

const WITHIN: Duration = Duration::from_millis(400);
const VALUE_BYTES: usize = 2_000;
/// Together with the above several chunks.
const KEYS: u64 = 900;
const BREAKS: u64 = 4;
/// A break comes so soon after a transfer's first chunk.
const TRANSFER_MICROSECONDS: u64 = 20_000;
/// Longer than a sender waits for a silent receiver.
const BREAK: Duration = Duration::from_secs(35);
/// Messages of a whole transfer, one way.
const MESSAGES: u64 = 13;
/// A transfer that loses one message is over by then.
const PROMPTLY: Duration = Duration::from_secs(5);

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
/// so the snapshot's position does not move, and each attempt is about the same one. Answers the
/// leader, who needs it, and who is to be kept out.
async fn make_needy(world: &Shared) -> (usize, usize, usize) {
    let leader = world.await_leader().await;
    let (away, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let last = world.group(away).unwrap().applied().index;
    world.isolate(away);
    for key in 0..KEYS {
        assert!(put_at(world, leader, key, PATIENCE).await, "a put fails");
    }
    let deadline = within(PATIENCE);
    while !world.has_forgotten(away, last) {
        assert!(Instant::now() < deadline, "the log is not purged");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.isolate(other);
    (leader, away, other)
}

async fn broken_transfers(world: Shared) {
    let (leader, away, other) = make_needy(&world).await;
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
    if !put_at(&world, leader, 0, PATIENCE).await {
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

/// One message of a transfer is lost, a chunk or the answer to one, the last of each included.
async fn a_lost_message(world: Shared) {
    let (leader, away, other) = make_needy(&world).await;
    let (from, to) = match world.seed % 2 {
        0 => (id_of(leader), id_of(away)),
        _ => (id_of(away), id_of(leader)),
    };
    let passing = world.seed / 2 % MESSAGES;
    world.network.lose_after(passing, from, to, Class::Bulk);
    world.network.heal();
    world.isolate(other);
    if !put_at(&world, leader, 0, PROMPTLY).await {
        world.accuse(format!("message {passing} from {from} was not sent again"));
    }
    if world.network.loss_is_due() {
        world.accuse(format!("there was no message {passing} from {from}"));
    }
}

#[test]
fn a_lost_chunk_is_sent_again_at_once() {
    let settings = Settings::default();
    run_all(
        "a_lost_chunk_is_sent_again_at_once",
        2 * MESSAGES,
        &settings,
        a_lost_message,
    );
}
