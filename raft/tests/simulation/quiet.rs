//! Ranges that nobody uses for a while: how fast their first write is.

use std::time::Duration;

use tokio::time::Instant;

use crate::clients::{put, within};
use crate::world::{PATIENCE, Settings, Shared, run_all};

const TIMES: usize = 9;
/// The longest round trip of the simulated network: a message takes up to 2 ms.
const ROUND_TRIP: Duration = Duration::from_millis(4);

async fn timed_put(world: &Shared, leader: usize) -> Duration {
    let (group, key) = world.group_of(leader, "default", b"key").unwrap();
    let began = Instant::now();
    let proposed = group.propose(put(key, "value".into()), within(PATIENCE));
    proposed.await.unwrap();
    world.count_answer();
    began.elapsed()
}

async fn await_quiet(world: &Shared) {
    let deadline = within(PATIENCE);
    while !world.all().all(|n| world.group(n).unwrap().is_quiet()) {
        assert!(Instant::now() < deadline, "the range does not go quiet");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn first_puts(world: Shared) {
    let leader = world.await_leader().await;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        timed_put(&world, leader).await;
        await_quiet(&world).await;
        // Longer than the lease, so that a majority must be heard again.
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.push(timed_put(&world, leader).await);
        second.push(timed_put(&world, leader).await);
    }
    let (first, second) = (median(first), median(second));
    println!("first {first:?}, second {second:?}");
    if first > second + ROUND_TRIP {
        world.accuse(format!("first put {first:?}, second {second:?}"));
    }
}

#[test]
fn a_quiet_range_answers_its_first_put_a_round_trip_later() {
    let settings = Settings::default();
    run_all(
        "a_quiet_range_answers_its_first_put_a_round_trip_later",
        3,
        &settings,
        first_puts,
    );
}
