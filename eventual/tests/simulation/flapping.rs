//! A primary that comes and goes: nobody waits for it a second time, it loses nothing, and it
//! misses nothing.

use std::time::Duration;

use quorate_types::Copies;
use quorate_types::causal::Update;
use tokio::time::Instant;

use crate::clients::{key, read, rung, write_of};
use crate::network::Quality;
use crate::run::run;
use crate::world::{PRIMARIES, SIBLINGS, Settings, Shared};

/// Longer than it takes to notice.
const AWAY: Duration = Duration::from_secs(1);
/// Long enough to be noticed, too short to be trusted.
const BACK: Duration = Duration::from_millis(600);
const ROUNDS: u64 = 4;
/// What a write takes that waits for nobody who is gone: round trips and syncs.
const PROMPT: Duration = Duration::from_millis(20);

/// Writes through the first node, to as many holders as there are primaries.
async fn put(world: &Shared, number: u64) -> Duration {
    let node = world.node(0).unwrap();
    let value = Update::Put(format!("value {number}").into());
    let rung = rung(Copies::All, Duration::from_secs(2));
    let began = Instant::now();
    let written = node.write(write_of(SIBLINGS, key(number), value, rung));
    if let Err(error) = written.await {
        world.accuse(format!("write {number}: {error}"));
    }
    began.elapsed()
}

#[test]
fn nobody_waits_twice_for_a_primary_that_comes_and_goes() {
    let settings = Settings {
        quality: Quality::GOOD,
        ..Settings::default()
    };
    let shown = run(3, settings, |world: Shared| async move {
        let ids: Vec<_> = world.all().map(|at| world.id(at)).collect();
        let others = [ids[0], ids[1], ids[3], ids[4]];
        world.network.lose_silently();
        let mut took = Vec::new();
        // Until all have found each other.
        tokio::time::sleep(AWAY).await;
        for round in 0..ROUNDS {
            world.network.partition(&[ids[2]], &others);
            // It is gone, and nobody knows yet.
            took.push(put(&world, round).await);
            tokio::time::sleep(AWAY).await;
            world.network.heal();
            tokio::time::sleep(BACK).await;
            put(&world, ROUNDS + round).await;
        }
        println!("all three of a range, one of them just gone: {took:?}");
        if took[0] < PROMPT || took[1..].iter().any(|took| *took > PROMPT) {
            world.accuse(format!(
                "only the first time should be waited for: {took:?}"
            ));
        }
        world.converge(SIBLINGS).await;
        for at in 0..PRIMARIES {
            let node = world.node(at).unwrap();
            for number in 0..2 * ROUNDS {
                let found = read(&node, SIBLINGS, key(number), Copies::One).await;
                if found.unwrap().state.live().len() != 1 {
                    world.accuse(format!("node {} lacks value {number}", at + 1));
                }
            }
        }
    });
    assert_eq!(shown.violations, Vec::<String>::new());
}
