//! What is counted and estimated of mixed traffic: conflicts by keyspace, rungs of ladders, and how
//! stale eventual reads may be.

use std::time::Duration;

use bytes::Bytes;
use quorate_gateway::{GatewayError, recorder};
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::NodeId;

use crate::world::{World, eventually, get, in_world, level, put};

/// Writes after which holders know each other's latencies.
const PUTS: usize = 40;
const APART: Duration = Duration::from_millis(5);

async fn put_at(
    world: &World,
    node: usize,
    (key, value): (&str, &str),
    at: &str,
) -> Result<Response, GatewayError> {
    let Request::Put(put) = put("default", key, value) else {
        unreachable!("a put was made");
    };
    let request = Request::Put(v1::PutRequest {
        consistency: level(at),
        // Nothing was seen.
        context: Some(Bytes::new()),
        ..put
    });
    world.ask(node, request).await
}

async fn get_at(world: &World, node: usize, key: &str, at: &str) -> v1::GetResponse {
    let consistency = level(at);
    let request = v1::GetRequest {
        consistency,
        ..get("default", key)
    };
    world.get(node, request).await
}

#[test]
fn conflicts_and_rungs_are_counted() {
    let recorder = recorder().unwrap();
    // Of this thread, in which all of the world runs.
    let _counted_here = metrics::set_default_local_recorder(&recorder);
    let pages = recorder.handle();
    in_world(87, |world| async move {
        let holder = world.holders("default", "k").0[0];
        let counted = |line: &str| {
            let all = pages.render();
            assert!(all.lines().any(|one| one == line), "{line} in {all}");
        };
        for value in ["one", "two"] {
            // Each without having seen the other.
            put_at(&world, holder, ("k", value), "eventual:one")
                .await
                .unwrap();
        }
        counted(r#"quorate_conflicts_made_total{keyspace="default"} 1"#);
        let got = get_at(&world, holder, "k", "eventual:one").await;
        assert_eq!(got.siblings.len(), 1);
        counted(r#"quorate_conflicts_seen_total{keyspace="default"} 1"#);

        world.isolate(holder);
        let ladder = "linearizable@200 > eventual:one";
        put_at(&world, holder, ("other", "value"), ladder)
            .await
            .unwrap();
        counted(r#"quorate_gateway_rungs_total{op="put",level="eventual",rung="1"} 1"#);
        counted(r#"quorate_gateway_rungs_total{op="put",level="eventual",rung="0"} 2"#);
    });
}

#[test]
fn receipts_of_eventual_reads_estimate_how_stale_they_may_be() {
    in_world(88, |world| async move {
        let holders = world.holders("default", "k").0;
        let here = holders[0];
        let first = get_at(&world, here, "k", "eventual:one").await;
        let estimate = |got: v1::GetResponse| got.receipt.unwrap().visible_after_us;
        assert_eq!(estimate(first), None, "nothing is known yet");
        let keys = (0..).map(|key: u32| format!("{key}"));
        // Of others it is not the coordinator.
        let held = keys.filter(|key| world.holders("default", key).0.contains(&here));
        for key in held.take(PUTS) {
            let done = put_at(&world, here, (&key, "v"), "eventual:one").await;
            done.unwrap();
            // Copies of puts that come together travel together, and are one measurement.
            tokio::time::sleep(APART).await;
        }
        // What was made before is remembered for a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = estimate(get_at(&world, here, "k", "eventual:one").await);
        assert!(after.is_some_and(|micros| micros < 1_000_000), "{after:?}");

        let away = NodeId(holders[1] as u64 + 1);
        world.isolate(holders[1]);
        eventually("the silence is noticed", || {
            !world.nodes[here].peer_reachable(away)
        })
        .await;
        let cut = estimate(get_at(&world, here, "k", "eventual:one").await);
        assert_eq!(cut, None, "it may be behind for as long as it is away");
    });
}
