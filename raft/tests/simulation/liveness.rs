//! Nodes that are silent for a while, and what others make of it: being thought dead must cost
//! nothing but time.

use std::time::Duration;

use quorate_raft::PeerLiveness;
use tokio::time::Instant;

use crate::clients::{Clients, within};
use crate::world::{PATIENCE, Settings, Shared, id_of, run_all};

/// Longer than a regular peer may be silent.
const PAUSE: Duration = Duration::from_secs(1);
/// After this nothing of the last pause is in the rhythm that peers remember.
const RHYTHM: Duration = Duration::from_secs(7);
const POLL: Duration = Duration::from_millis(10);

/// How node `by` sees node `of`.
fn view(world: &Shared, by: usize, of: usize) -> PeerLiveness {
    world.raft(by).unwrap().peer_liveness(id_of(of))
}

async fn await_views(world: &Shared, of: usize, is_so: impl Fn(PeerLiveness) -> bool) {
    let deadline = within(PATIENCE);
    loop {
        let views: Vec<_> = (world.all().filter(|by| *by != of))
            .map(|by| view(world, by, of))
            .collect();
        if views.iter().all(|view| is_so(*view)) {
            return;
        }
        assert!(Instant::now() < deadline, "node {}: {views:?}", of + 1);
        tokio::time::sleep(POLL).await;
    }
}

/// Pauses of a second, of any node, while clients write and read.
async fn pauses(world: Shared) {
    let mut clients = Clients::start(&world, 1, 1);
    for _ in 0..3 {
        let node = world.any_node();
        let paused = Instant::now();
        world.network.pause(id_of(node), PAUSE);
        await_views(&world, node, |view| !view.reachable).await;
        if paused.elapsed() >= PAUSE {
            world.accuse(format!(
                "node {} was suspected only after its pause",
                node + 1
            ));
        }
        await_views(&world, node, |view| view.reachable).await;
        let back = paused.elapsed().saturating_sub(PAUSE);
        if back > Duration::from_millis(200) {
            world.accuse(format!(
                "node {} is away {back:?} after its pause",
                node + 1
            ));
        }
        // The next pause, too, is to come out of a regular rhythm.
        tokio::time::sleep(RHYTHM + Duration::from_millis(world.roll(1_500))).await;
    }
    clients.stop().await;
    clients.settle().await;
}

#[test]
fn a_node_wrongly_thought_dead_loses_nothing_but_latency() {
    let settings = Settings::default();
    run_all(
        "a_node_wrongly_thought_dead_loses_nothing_but_latency",
        4,
        &settings,
        pauses,
    );
}

/// A node that comes and goes, then stays.
async fn flapping(world: Shared) {
    let mut clients = Clients::start(&world, 1, 1);
    let node = world.any_node();
    for round in 0..4 {
        world.network.pause(id_of(node), 3 * PAUSE);
        await_views(&world, node, |view| !view.reachable).await;
        await_views(&world, node, |view| view.reachable).await;
        let damped = |view: PeerLiveness| view.returns > round && view.steady == (round < 2);
        await_views(&world, node, damped).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let back = Instant::now();
    await_views(&world, node, |view| view.steady).await;
    // It had to stay well for ten seconds, two of which have passed.
    if back.elapsed() < Duration::from_secs(7) {
        world.accuse(format!("trusted again after {:?}", back.elapsed()));
    }
    clients.stop().await;
    clients.settle().await;
}

#[test]
fn a_node_that_comes_and_goes_is_trusted_later_each_time() {
    let settings = Settings::default();
    run_all(
        "a_node_that_comes_and_goes_is_trusted_later_each_time",
        2,
        &settings,
        flapping,
    );
}
