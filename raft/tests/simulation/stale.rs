//! Linearizable reads at old leaders that are cut off, and at followers that have just started:
//! never stale. With reads from the lease, or reads that join a running round, they would be.

use std::time::Duration;

use quorate_raft::Faults;

use crate::clients::Clients;
use crate::world::{Settings, Shared, must_be_found, run_all};

async fn pause(world: &Shared, from: u64, to: u64) {
    let time = from + world.roll(to - from);
    tokio::time::sleep(Duration::from_millis(time)).await;
}

/// A leader is cut off while all others start anew, so that they remember no lease and may vote
/// at once.
async fn old_leader_and_new_followers(world: &Shared) {
    let leader = world.await_leader().await;
    world.isolate(leader);
    let others: Vec<usize> = world.all().filter(|n| *n != leader).collect();
    others.iter().for_each(|node| world.kill(*node));
    for node in others {
        world.restart(node).await.unwrap();
    }
    pause(world, 300, 1_500).await;
}

async fn a_follower_starts_anew(world: &Shared) {
    let leader = world.await_leader().await;
    let node = (leader + 1 + world.roll(2) as usize) % 3;
    world.kill(node);
    world.restart(node).await.unwrap();
    pause(world, 50, 400).await;
}

async fn disturbances(world: Shared) {
    let mut clients = Clients::start(&world, 3, 12);
    for _ in 0..5 {
        pause(&world, 100, 400).await;
        match world.roll(3) {
            0 => old_leader_and_new_followers(&world).await,
            1 => a_follower_starts_anew(&world).await,
            _ => {
                let leader = world.await_leader().await;
                world.isolate(leader);
                pause(&world, 300, 900).await;
            }
        }
        world.network.heal();
    }
    clients.stop().await;
    clients.settle().await;
}

fn is_stale(violation: &str) -> bool {
    violation.contains("lost or hid a write")
}

fn with_faults(faults: Faults) -> Settings {
    Settings {
        faults,
        ..Settings::default()
    }
}

#[test]
fn linearizable_reads_are_never_stale() {
    let settings = Settings::default();
    run_all(
        "linearizable_reads_are_never_stale",
        6,
        &settings,
        disturbances,
    );
}

#[test]
fn reads_from_the_lease_are_noticed() {
    let faults = Faults {
        lease_reads: true,
        ..Faults::default()
    };
    must_be_found(40, &with_faults(faults), is_stale, disturbances);
}

#[test]
fn joining_a_running_round_is_noticed() {
    let faults = Faults {
        join_running_round: true,
        ..Faults::default()
    };
    must_be_found(40, &with_faults(faults), is_stale, disturbances);
}

/// Terms of the last entries that the nodes have applied, and whom they take for the leader.
fn who_leads(world: &Shared) -> Vec<(u64, Option<quorate_types::NodeId>)> {
    let groups = world.all().map(|n| world.group(n).unwrap());
    groups.map(|g| (g.applied().term, g.leader())).collect()
}

#[test]
fn a_follower_that_returns_disturbs_nobody() {
    let settings = Settings::default();
    run_all(
        "a_follower_that_returns_disturbs_nobody",
        3,
        &settings,
        async |world| {
            let mut clients = Clients::start(&world, 3, 3);
            pause(&world, 500, 600).await;
            let leader = world.await_leader().await;
            let before = who_leads(&world)[leader];
            world.isolate((leader + 1 + world.roll(2) as usize) % 3);
            pause(&world, 800, 2_500).await;
            world.network.heal();
            pause(&world, 1_000, 1_100).await;
            clients.stop().await;
            clients.settle().await;
            let after = who_leads(&world);
            if after.iter().any(|one| *one != before) {
                world.accuse(format!("{before:?} led before, {after:?} lead now"));
            }
        },
    );
}
