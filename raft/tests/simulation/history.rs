//! Old versions: readable until the keyspace's history has passed, and then gone from the disk.

use std::time::Duration;

use quorate_storage::engine::EngineError;
use quorate_types::KeyspaceOptions;
use tokio::time::Instant;

use crate::clients::{put, within};
use crate::world::{PATIENCE, Settings, Shared, run_all};

const KEYS: u64 = 20;
const ROUNDS: u64 = 10;
const VALUE_BYTES: usize = 500;
const WITHIN: Duration = Duration::from_millis(400);

/// Overwrites some keys again and again; says when the first round was whole.
async fn overwrite(world: &Shared) -> u64 {
    let mut first = 0;
    for round in 0..ROUNDS {
        for key in 0..KEYS {
            let revision = put_one(world, &format!("key-{key}"), round).await;
            if round == 0 {
                first = revision;
            }
        }
    }
    first
}

async fn put_one(world: &Shared, key: &str, round: u64) -> u64 {
    let deadline = within(PATIENCE);
    loop {
        let node = world.await_leader().await;
        let (group, key) = world.group_of(node, "default", key.as_bytes()).unwrap();
        let command = put(key, vec![round as u8; VALUE_BYTES].into());
        if let Ok(done) = group.propose(command, within(WITHIN)).await {
            world.count_answer();
            return done.applied.revision.0;
        }
        assert!(Instant::now() < deadline, "a put does not succeed");
    }
}

/// Old versions in the files of all nodes: blocks and bytes.
fn stored(world: &Shared) -> (u64, u64) {
    let rafts = world.all().map(|node| world.raft(node).unwrap());
    let sizes = rafts.map(|raft| raft.engine().stored_history().unwrap());
    sizes.fold((0, 0), |(blocks, bytes), size| {
        (blocks + size.blocks, bytes + size.bytes)
    })
}

/// Waits until all nodes hold this at least, or nothing.
async fn await_stored(world: &Shared, what: &str, holds: impl Fn((u64, u64)) -> bool) {
    let deadline = within(PATIENCE);
    while !holds(stored(world)) {
        if Instant::now() > deadline {
            let (blocks, bytes) = stored(world);
            world.accuse(format!(
                "not {what}: {blocks} blocks of old versions in {bytes} bytes"
            ));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What a read as of then answers, on each node.
fn read_at(world: &Shared, at: u64, is_right: impl Fn(Result<u8, EngineError>) -> bool) {
    for node in world.all() {
        let (group, key) = world.group_of(node, "default", b"key-0").unwrap();
        let found = group.table().get_at(&key, at).map(|v| v.unwrap().value[0]);
        if !is_right(found) {
            world.accuse(format!("node {} answers otherwise at {at}", node + 1));
        }
    }
}

async fn old_versions_leave(world: Shared) {
    let begun = Instant::now();
    let first = overwrite(&world).await;
    let superseded = world.all().count() as u64 * KEYS * (ROUNDS - 1);
    await_stored(&world, "flushed", |(_, bytes)| {
        bytes >= superseded * VALUE_BYTES as u64
    })
    .await;
    let history = KeyspaceOptions::default().history;
    tokio::time::sleep_until(begun + history.mul_f64(0.9)).await;
    read_at(&world, first, |found| matches!(found, Ok(0)));
    // Nobody writes any more: the range is quiet, and is to forget nevertheless.
    tokio::time::sleep(history.mul_f64(0.2)).await;
    await_stored(&world, "collected", |stored| stored == (0, 0)).await;
    read_at(&world, first, |found| {
        matches!(found, Err(EngineError::BelowFloor { .. }))
    });
}

#[test]
fn bytes_of_old_versions_go_when_the_history_has_passed() {
    let settings = Settings::default();
    run_all(
        "bytes_of_old_versions_go_when_the_history_has_passed",
        1,
        &settings,
        old_versions_leave,
    );
}
