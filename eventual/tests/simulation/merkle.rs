//! What it costs to find and mend differences by hash trees. Prints figures.
//!
//! `QUORATE_KEYS` says how many keys there are: 1,000,000 for the figures of the documentation.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quorate_types::Copies;
use quorate_types::causal::Update;

use crate::clients::{key, rung, write_of};
use crate::network::Quality;
use crate::run::{number_from, run};
use crate::world::{SIBLINGS, Settings, Shared};

const KEYS: u64 = 5_000;
const DIFFERENT: u64 = 1_000;
const VALUE_BYTES: usize = 256;
/// Writes that are under way at once.
const IN_FLIGHT: usize = 256;

fn settings() -> Settings {
    let mut settings = Settings {
        quality: Quality::GOOD,
        memory_bytes: 1 << 30,
        segment_bytes: 1 << 20,
        ..Settings::default()
    };
    settings.options.repair = false;
    settings.options.hand_over = false;
    settings
}

async fn put_all(world: &Shared, keys: impl Iterator<Item = u64>, copies: Copies) {
    let node = world.node(0).unwrap();
    let writes = keys.map(|number| {
        let node = node.clone();
        async move {
            let update = Update::Put(Bytes::from(vec![number as u8; VALUE_BYTES]));
            let rung = rung(copies, Duration::from_secs(60));
            let written = node.write(write_of(SIBLINGS, key(number), update, rung));
            written.await.unwrap();
        }
    });
    let mut writes = futures::stream::iter(writes).buffer_unordered(IN_FLIGHT);
    while writes.next().await.is_some() {}
}

#[test]
fn repair_costs_what_differs() {
    let keys = number_from("QUORATE_KEYS").unwrap_or(KEYS);
    run(1, settings(), |world: Shared| async move {
        put_all(&world, 0..keys, Copies::All).await;
        let ids: Vec<_> = world.all().map(|at| world.id(at)).collect();
        world.network.partition(&ids[..1], &ids[1..]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let step = usize::try_from(keys / DIFFERENT).unwrap();
        put_all(&world, (0..keys).step_by(step), Copies::One).await;
        world.network.heal();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (node, clock) = (world.node(0).unwrap(), std::time::Instant::now());
        let began = tokio::time::Instant::now();
        let repaired = node.repair(SIBLINGS, ids[1]).await.unwrap();
        println!(
            "{keys} keys: {repaired:?}; {:?} of processor, {:?} simulated",
            clock.elapsed(),
            began.elapsed()
        );
        assert!(repaired.keys >= DIFFERENT);
        let records = 2 * repaired.keys * (VALUE_BYTES as u64 + 128);
        assert!(repaired.bytes <= (2 << 20) + records, "{repaired:?}");
        let equal = node.repair(SIBLINGS, ids[1]).await.unwrap();
        println!("equal: {equal:?}");
        assert!(equal.equal);
        assert!(equal.bytes <= 1 << 10);
    });
}
