//! Lost power, of all nodes at once and of single ones, while the log is written and the engine
//! flushes: no acknowledged write is lost. And the mistakes that this must notice.

use std::time::Duration;

use quorate_raft::Faults;

use crate::clients::Clients;
use crate::world::{Settings, Shared, Syncs, must_be_found, run_all};

/// Changing operations of a disk within which a planned cut strikes.
const OPERATIONS_MAX: u64 = 40;
/// Longest that cuts which are planned on several disks lie apart.
const APART: Duration = Duration::from_millis(30);

/// Cuts the power of all nodes, in the midst of what their disks do.
async fn cut_all(world: &Shared) {
    if world.syncs_are_ignored() {
        world.all().for_each(|n| world.disk(n).hold_back_from_now());
    }
    for node in world.all() {
        world
            .disk(node)
            .fail_power_after(world.roll(OPERATIONS_MAX));
    }
    tokio::time::sleep(APART.mul_f64(world.roll(100) as f64 / 100.0)).await;
    world.all().for_each(|node| world.cut_power(node));
}

async fn cuts(world: Shared) {
    let mut clients = Clients::start(&world, 4, 2);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(50 + world.roll(400))).await;
        if world.roll(3) == 0 {
            let node = world.any_node();
            world
                .disk(node)
                .fail_power_after(world.roll(OPERATIONS_MAX));
            tokio::time::sleep(APART).await;
            world.cut_power(node);
            tokio::time::sleep(Duration::from_millis(world.roll(200))).await;
        } else {
            cut_all(&world).await;
        }
        world.make_whole().await;
    }
    clients.stop().await;
    clients.settle().await;
}

#[test]
fn acknowledged_writes_survive_power_cuts() {
    let settings = Settings::default();
    run_all(
        "acknowledged_writes_survive_power_cuts",
        25,
        &settings,
        cuts,
    );
}

fn is_lost_write(violation: &str) -> bool {
    violation.contains("lost or hid a write")
}

fn with_syncs(syncs: Syncs) -> Settings {
    Settings {
        syncs,
        ..Settings::default()
    }
}

/// Without syncs a power cut loses any unsynced sector and keeps any other. A log of which a later
/// part was kept proves that an earlier one is missing, and says so rather than forget: with such
/// disks a node that does not open is the usual finding, and hides what else would be lost.
#[test]
fn disks_that_never_sync_are_noticed() {
    let is_found = |violation: &str| is_lost_write(violation) || violation.contains("damaged");
    must_be_found(20, &with_syncs(Syncs::Never), is_found, cuts);
}

/// A cache that ignores syncs but writes back in order loses an end of the log as a whole, and
/// leaves nothing that would show it. Then the writes themselves must be missed, by the check that
/// all other tests here rely on.
#[test]
fn writes_that_were_never_synced_are_missed() {
    must_be_found(20, &with_syncs(Syncs::Late), is_lost_write, cuts);
}

#[test]
fn acknowledging_before_a_majority_is_noticed() {
    let faults = Faults {
        acknowledge_before_majority: true,
        ..Faults::default()
    };
    let settings = Settings {
        faults,
        ..Settings::default()
    };
    must_be_found(20, &settings, is_lost_write, cuts);
}
