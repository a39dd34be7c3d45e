//! Deletes leave nothing behind, also while a primary is away, and nothing brings deleted keys
//! back; stand-ins never show absence.
//!
//! `QUORATE_KEYS` says how many keys are written and deleted.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quorate_eventual::EventualError;
use quorate_types::Copies;
use quorate_types::causal::Update;
use tokio::time::Instant;

use crate::clients::{key, read, rung, write_of};
use crate::network::Quality;
use crate::run::{number_from, run};
use crate::world::{PRIMARIES, SIBLINGS, Settings, Shared};

const KEYS: u64 = 2_000;
/// Writes that are under way at once.
const IN_FLIGHT: usize = 64;
/// Within this no record is left.
const GONE: Duration = Duration::from_secs(10);

fn settings() -> Settings {
    Settings {
        quality: Quality::GOOD,
        memory_bytes: 64 << 20,
        segment_bytes: 8 << 20,
        ..Settings::default()
    }
}

fn keys() -> u64 {
    number_from("QUORATE_KEYS").unwrap_or(KEYS)
}

/// Does the same to all keys, through those nodes that run.
async fn all_keys(world: &Shared, update: impl Fn(u64) -> Update) {
    let nodes: Vec<_> = world.all().filter_map(|at| world.node(at)).collect();
    let nodes = &nodes[..2];
    let writes = (0..keys()).map(|number| {
        let update = update(number);
        async move {
            let node = &nodes[(number % 2) as usize];
            let rung = rung(Copies::Quorum, Duration::from_secs(5));
            let written = node.write(write_of(SIBLINGS, key(number), update, rung));
            written.await.unwrap();
        }
    });
    let mut writes = futures::stream::iter(writes).buffer_unordered(IN_FLIGHT);
    while writes.next().await.is_some() {}
}

async fn write_and_delete(world: &Shared) {
    all_keys(world, |number| {
        Update::Put(Bytes::from(format!("value {number}")))
    })
    .await;
    assert!(record_bytes(world, 0) > keys() * 20);
    all_keys(world, |_| Update::Delete).await;
}

fn record_bytes(world: &Shared, at: usize) -> u64 {
    world
        .report(at, SIBLINGS)
        .map_or(0, |report| report.record_bytes)
}

/// Waits until those primaries that run hold no record.
async fn until_gone(world: &Shared) {
    let began = Instant::now();
    while (0..PRIMARIES).any(|at| record_bytes(world, at) > 0) {
        let left: Vec<_> = (0..PRIMARIES).map(|at| record_bytes(world, at)).collect();
        assert!(began.elapsed() < GONE, "left after {GONE:?}: {left:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("no record of {} keys after {:?}", keys(), began.elapsed());
}

#[test]
fn deletes_leave_nothing_behind() {
    run(1, settings(), |world: Shared| async move {
        write_and_delete(&world).await;
        until_gone(&world).await;
    });
}

/// The primary has the first half of the keys when it goes, and a stand-in copies of the others
/// when it does.
#[test]
fn who_comes_back_late_brings_no_deleted_key_back() {
    let shown = run(2, settings(), |world: Shared| async move {
        all_keys(&world, |_| Update::Put(Bytes::from_static(b"early"))).await;
        world.kill(2);
        tokio::time::sleep(Duration::from_secs(1)).await;
        all_keys(&world, |_| Update::Put(Bytes::from_static(b"late"))).await;
        world.kill(3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        all_keys(&world, |_| Update::Delete).await;
        until_gone(&world).await;
        world.restart(3).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        until_gone(&world).await;
        world.restart(2).await;
        world.converge(SIBLINGS).await;
        until_gone(&world).await;
    });
    assert!(shown.violations.is_empty(), "{:?}", shown.violations);
}

#[test]
fn stand_ins_alone_never_show_absence() {
    run(3, settings(), |world: Shared| async move {
        let ids: Vec<_> = world.all().map(|at| world.id(at)).collect();
        let put = |number, value: &'static str, at| {
            let node = world.node(at).unwrap();
            let value = Update::Put(Bytes::from_static(value.as_bytes()));
            let rung = rung(Copies::One, Duration::from_secs(1));
            async move {
                node.write(write_of(SIBLINGS, key(number), value, rung))
                    .await
            }
        };
        put(1, "of a primary", 0).await.unwrap();
        put(2, "of a primary too", 0).await.unwrap();
        world
            .network
            .partition(&ids[..PRIMARIES], &ids[PRIMARIES..]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stand_in = world.node(3).unwrap();
        let unknown = |answer: Result<_, EventualError>| {
            assert!(
                matches!(answer, Err(EventualError::AbsenceUnknown { .. })),
                "{answer:?}"
            );
        };
        unknown(read(&stand_in, SIBLINGS, key(1), Copies::One).await);
        put(3, "of a stand-in", 3).await.unwrap();
        let shown = read(&stand_in, SIBLINGS, key(3), Copies::One)
            .await
            .unwrap();
        assert!(shown.partial);
        assert_eq!(shown.state.live().len(), 1);
        // A delete that only a stand-in knows is no absence: it has not seen what there is.
        let rung = rung(Copies::One, Duration::from_secs(1));
        let delete = write_of(SIBLINGS, key(2), Update::Delete, rung);
        stand_in.write(delete).await.unwrap();
        unknown(read(&stand_in, SIBLINGS, key(2), Copies::One).await);
    });
}
