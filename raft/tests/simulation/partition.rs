//! Nodes that lose sight of each other; and what a seed replays.

use std::time::Duration;

use crate::clients::Clients;
use crate::world::{Settings, Shared, run, run_all};

/// Partitions that come and go while clients write and read.
async fn partitions(world: Shared) {
    let mut clients = Clients::start(&world, 3, 3);
    for _ in 0..6 {
        let pause = Duration::from_millis(world.roll(400));
        tokio::time::sleep(pause).await;
        match world.roll(3) {
            0 => world.network.heal(),
            _ => world.isolate(world.any_node()),
        }
    }
    world.network.heal();
    clients.stop().await;
    clients.settle().await;
}

#[test]
fn acknowledged_writes_survive_partitions() {
    let settings = Settings::default();
    run_all(
        "acknowledged_writes_survive_partitions",
        10,
        &settings,
        partitions,
    );
}

/// Needs tokio's own randomness under the seed, which only `--cfg tokio_unstable` allows.
#[test]
#[cfg_attr(not(tokio_unstable), ignore = "needs RUSTFLAGS='--cfg tokio_unstable'")]
fn a_seed_replays_the_same_run() {
    let once = |seed| {
        let mut delivered = 0;
        let counted = &mut delivered;
        let shown = run(seed, Settings::default(), async |world| {
            partitions(world.clone()).await;
            *counted = world.network.delivered();
        });
        (delivered, shown.answered)
    };
    for seed in 100..103 {
        assert_eq!(once(seed), once(seed), "seed {seed} took two courses");
    }
}
