//! Reads at one time over many ranges, by any replica, while money moves within ranges: every
//! total is right, and what was promised closed stays as it was. Leaders are killed, five nodes
//! lose their power or each other, and clocks that are 400 ms apart jump.

use std::time::Duration;

use crate::bank::{Bank, RANGES};
use crate::world::{Settings, Shared, id_of, number_from, run_all};

/// Clocks are wrong by up to this.
const OFFSET_MAX_MICROSECONDS: u64 = 400_000;
const WRITERS: usize = 8;
const SCANNERS: usize = 4;
/// `QUORATE_SCANS=5000` for the long run: so many by each of two seeds.
const SCANS_USUAL: u64 = 40;
/// A disturbance during which so little is read, and the rest after it, has stopped the bank.
const DISTURBANCES_MAX: u64 = 20;

async fn clocks_jump(world: Shared) {
    loop {
        let node = world.any_node();
        let offset = world.roll(OFFSET_MAX_MICROSECONDS) as i64;
        let half = OFFSET_MAX_MICROSECONDS as i64 / 2;
        world.clock(node).set_offset(offset - half);
        tokio::time::sleep(Duration::from_millis(world.roll(150))).await;
    }
}

/// Cuts the cluster's network in two, a minority of any size on one side.
fn cut_network(world: &Shared) {
    let mut ids: Vec<_> = world.all().map(id_of).collect();
    ids.rotate_left(world.any_node());
    let minority = 1 + world.roll(ids.len() as u64 / 2) as usize;
    let (few, many) = ids.split_at(minority);
    world.network.partition(few, many);
}

async fn disturb(world: &Shared, bank: &Bank) {
    tokio::time::sleep(Duration::from_millis(100 + world.roll(400))).await;
    match world.roll(5) {
        0 | 1 => cut_network(world),
        2 => world.all().for_each(|node| world.cut_power(node)),
        3 => world.cut_power(world.any_node()),
        _ => {
            let range = world.roll(u64::from(RANGES)) as usize;
            world.kill(bank.leader(range).unwrap_or_default());
        }
    }
    tokio::time::sleep(Duration::from_millis(world.roll(800))).await;
    world.make_whole().await;
    tokio::time::sleep(Duration::from_millis(800)).await;
}

async fn snapshots_in_time(world: Shared) {
    let scans = number_from("QUORATE_SCANS").unwrap_or(SCANS_USUAL);
    // With three replicas on five nodes ranges live apart; with five each cut meets them all.
    let replication = [3, 5][(world.seed % 2) as usize];
    let bank = Bank::open(&world, replication).await;
    let clocks = tokio::spawn(clocks_jump(world.clone()));
    let writers = (0..WRITERS).map(|_| tokio::spawn(bank.clone().move_money()));
    let mut tasks: Vec<_> = writers.collect();
    tasks.extend((0..SCANNERS).map(|_| tokio::spawn(bank.clone().scan_in_time())));
    let mut disturbances = 0;
    while bank.scans() < scans && world.violations().is_empty() {
        disturb(&world, &bank).await;
        disturbances += 1;
        if disturbances > DISTURBANCES_MAX + scans {
            world.accuse(format!("{} scans in {disturbances} rounds", bank.scans()));
        }
    }
    bank.close();
    for task in tasks {
        task.await.unwrap();
    }
    clocks.abort();
    println!(
        "{} scans of {RANGES} ranges, {disturbances} disturbances",
        bank.scans()
    );
}

#[test]
fn reads_in_time_see_one_state() {
    let settings = Settings {
        nodes: 5,
        ..Settings::default()
    };
    run_all(
        "reads_in_time_see_one_state",
        2,
        &settings,
        snapshots_in_time,
    );
}
