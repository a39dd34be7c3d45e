//! Leases through every node: keys that go with them in their own range and in others, in time
//! and not before, through changes of leaders and of clocks.

use std::time::Duration;

use quorate_gateway::GatewayError;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::{Effect, Reason};
use tokio::time::Instant;

use crate::world::{PATIENCE, World, hashed, in_world, put};

/// An ordered keyspace of mode strong.
const STRONG: &str = "strong";
/// A dead lease's keys are gone within its time and this.
const GONE_WITHIN: Duration = Duration::from_secs(2);

/// A cluster with keyspaces that have leases: of one range, and of eight.
fn in_leased<Test>(seed: u64, test: impl FnOnce(World) -> Test)
where
    Test: Future<Output = ()>,
{
    in_world(seed, |world| async move {
        let strong = |partitioned: v1::KeyspaceOptions| v1::KeyspaceOptions {
            mode: "strong".to_owned(),
            ..partitioned
        };
        world.create(STRONG, strong(Default::default())).await;
        world.create("wide", strong(hashed(8))).await;
        test(world).await;
    });
}

async fn grant(
    world: &World,
    keyspace: &str,
    id: u64,
    ttl_ms: u64,
) -> Result<v1::LeaseGrantResponse, GatewayError> {
    let request = v1::LeaseGrantRequest {
        keyspace: keyspace.to_owned(),
        id,
        ttl_ms,
        request_id: None,
    };
    match world.ask(0, Request::LeaseGrant(request)).await? {
        Response::LeaseGrant(granted) => Ok(granted),
        other => panic!("{other:?}"),
    }
}

async fn keep(world: &World, node: usize, keyspace: &str, ids: &[u64]) -> Vec<u64> {
    let request = Request::LeaseKeepAlive(v1::LeaseKeepAliveRequest {
        keyspace: keyspace.to_owned(),
        ids: ids.to_vec(),
    });
    match world.ask(node, request).await.unwrap() {
        Response::LeaseKeepAlive(kept) => kept.kept.iter().map(|one| one.ttl_ms).collect(),
        other => panic!("{other:?}"),
    }
}

async fn show(
    world: &World,
    keyspace: &str,
    id: u64,
) -> Result<v1::LeaseShowResponse, GatewayError> {
    let request = Request::LeaseShow(v1::LeaseShowRequest {
        keyspace: keyspace.to_owned(),
        id,
        keys: true,
        ..Default::default()
    });
    match world.ask(1, request).await? {
        Response::LeaseShow(shown) => Ok(shown),
        other => panic!("{other:?}"),
    }
}

async fn revoke(world: &World, keyspace: &str, id: u64) -> Result<u64, GatewayError> {
    let request = Request::LeaseRevoke(v1::LeaseRevokeRequest {
        keyspace: keyspace.to_owned(),
        id,
        request_id: None,
    });
    match world.ask(2, request).await? {
        Response::LeaseRevoke(revoked) => Ok(revoked.deleted),
        other => panic!("{other:?}"),
    }
}

async fn put_with(
    world: &World,
    node: usize,
    keyspace: &str,
    key: &str,
    lease: u64,
) -> Result<(), GatewayError> {
    let Request::Put(request) = put(keyspace, key, "v") else {
        panic!("no put");
    };
    let request = Request::Put(v1::PutRequest { lease, ..request });
    world.ask(node, request).await.map(drop)
}

/// Waits until a key is gone, and tells how long that took from a moment on.
async fn gone(world: &World, keyspace: &str, key: &str, since: Instant) -> Duration {
    while world.value(0, keyspace, key).await.is_some() {
        assert!(since.elapsed() < PATIENCE, "`{key}` stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    since.elapsed()
}

#[test]
fn keys_go_with_their_lease_in_time_and_not_before() {
    in_leased(40, |world| async move {
        const TTL: Duration = Duration::from_secs(5);
        let granted = grant(&world, STRONG, 0, 5_000).await.unwrap();
        let since = Instant::now();
        assert_eq!(granted.ttl_ms, 5_000);
        for node in 0..4 {
            let key = format!("k{node}");
            put_with(&world, node, STRONG, &key, granted.id)
                .await
                .unwrap();
        }
        // A put without the lease takes the key out of it.
        world.put(3, STRONG, "k3", "free").await;
        let shown = show(&world, STRONG, granted.id).await.unwrap();
        assert_eq!(shown.keys, ["k0", "k1", "k2"]);
        assert!(shown.remaining_ms <= 5_000 && shown.remaining_ms > 3_000);
        let took = gone(&world, STRONG, "k0", since).await;
        assert!(took >= TTL && took <= TTL + GONE_WITHIN, "{took:?}");
        assert_eq!(world.value(1, STRONG, "k2").await, None);
        assert_eq!(world.value(2, STRONG, "k3").await.unwrap(), "free");
        let lost = show(&world, STRONG, granted.id).await.unwrap_err();
        assert_eq!(lost.reason(), Some(Reason::LeaseNotFound));
    });
}

#[test]
fn kept_leases_live_and_dead_ones_stay_dead() {
    in_leased(41, |world| async move {
        grant(&world, STRONG, 7, 3_000).await.unwrap();
        grant(&world, STRONG, 8, 3_000).await.unwrap();
        put_with(&world, 1, STRONG, "kept", 7).await.unwrap();
        put_with(&world, 1, STRONG, "lost", 8).await.unwrap();
        for round in 0..8 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(keep(&world, round % 4, STRONG, &[7]).await, [3_000]);
        }
        assert!(world.value(0, STRONG, "kept").await.is_some());
        assert_eq!(world.value(0, STRONG, "lost").await, None);
        assert_eq!(keep(&world, 3, STRONG, &[8, 7]).await, [0, 3_000]);
        assert_eq!(revoke(&world, STRONG, 7).await.unwrap(), 1);
        assert_eq!(world.value(3, STRONG, "kept").await, None);
        let again = revoke(&world, STRONG, 7).await.unwrap_err();
        assert_eq!(again.reason(), Some(Reason::LeaseNotFound));
        assert_eq!(again.effect(), Effect::None);
    });
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    in_leased(42, |world| async move {
        let check = |error: GatewayError, reason, says: &str| {
            assert_eq!(error.reason(), Some(reason), "{error}");
            assert_eq!(error.effect(), Effect::None);
            assert!(error.to_string().contains(says), "{error}");
        };
        for ttl_ms in [0, 999, 31_536_000_000_000_000, u64::MAX] {
            let error = grant(&world, STRONG, 0, ttl_ms).await.unwrap_err();
            check(error, Reason::FieldInvalid, "a lease lives from 1s to 30d");
        }
        let error = grant(&world, STRONG, u64::MAX, 5_000).await.unwrap_err();
        check(error, Reason::FieldInvalid, "no id of a lease");
        let eventual = v1::KeyspaceOptions {
            mode: "eventual".to_owned(),
            ..Default::default()
        };
        world.create("beside", eventual).await;
        let error = grant(&world, "beside", 0, 5_000).await.unwrap_err();
        check(error, Reason::FieldInvalid, "mode strong");
        let error = put_with(&world, 0, "beside", "k", 5).await.unwrap_err();
        check(error, Reason::FieldInvalid, "mode strong");
        grant(&world, STRONG, 5, 5_000).await.unwrap();
        let error = grant(&world, STRONG, 5, 5_000).await.unwrap_err();
        check(error, Reason::AlreadyExists, "choose another id");
        for keyspace in [STRONG, "wide"] {
            let error = put_with(&world, 2, keyspace, "k", 6).await.unwrap_err();
            check(error, Reason::LeaseNotFound, "quorate lease grant");
            assert_eq!(world.value(0, keyspace, "k").await, None);
        }
        let operation = v1::operation::Put {
            key: "k".into(),
            lease: 5,
            ..Default::default()
        };
        let other = v1::operation::Put {
            key: "other".into(),
            lease: 9,
            ..Default::default()
        };
        let put = |put| v1::Operation {
            operation: Some(v1::operation::Operation::Put(put)),
        };
        let batch = v1::BatchRequest {
            keyspace: STRONG.to_owned(),
            operations: vec![put(operation.clone()), put(other)],
            ..Default::default()
        };
        let error = world.ask(0, Request::Batch(batch)).await.unwrap_err();
        check(error, Reason::LeaseNotFound, "0000000000000009");
        assert_eq!(world.value(0, STRONG, "k").await, None, "all or none");
        let txn = |lease| {
            let put = v1::operation::Put {
                lease,
                ..operation.clone()
            };
            Request::Txn(v1::TxnRequest {
                keyspace: STRONG.to_owned(),
                then: vec![v1::Operation {
                    operation: Some(v1::operation::Operation::Put(put)),
                }],
                ..Default::default()
            })
        };
        let error = world.ask(3, txn(9)).await.unwrap_err();
        check(error, Reason::LeaseNotFound, "0000000000000009");
        world.ask(3, txn(5)).await.unwrap();
        assert_eq!(show(&world, STRONG, 5).await.unwrap().keys, ["k"]);
    });
}

#[test]
fn a_batch_attaches_its_keys_in_every_range() {
    in_leased(44, |world| async move {
        let granted = grant(&world, "wide", 0, 60_000).await.unwrap();
        let keys: Vec<String> = (0..24).map(|n| format!("k{n:02}")).collect();
        let put = |key: &String| v1::operation::Put {
            key: key.clone().into(),
            lease: granted.id,
            ..Default::default()
        };
        let operations = keys.iter().map(|key| v1::Operation {
            operation: Some(v1::operation::Operation::Put(put(key))),
        });
        let batch = v1::BatchRequest {
            keyspace: "wide".to_owned(),
            operations: operations.collect(),
            ..Default::default()
        };
        world.ask(1, Request::Batch(batch)).await.unwrap();
        assert_eq!(show(&world, "wide", granted.id).await.unwrap().keys, keys);
        revoke(&world, "wide", granted.id).await.unwrap();
        let since = Instant::now();
        for key in &keys {
            gone(&world, "wide", key, since).await;
        }
    });
}

#[test]
fn the_end_of_a_lease_reaches_keys_of_other_ranges() {
    in_leased(43, |world| async move {
        let granted = grant(&world, "wide", 0, 60_000).await.unwrap();
        let keys: Vec<String> = (0..24).map(|n| format!("k{n:02}")).collect();
        for (at, key) in keys.iter().enumerate() {
            put_with(&world, at % 4, "wide", key, granted.id)
                .await
                .unwrap();
        }
        world.put(0, "wide", "k05", "free").await;
        let shown = show(&world, "wide", granted.id).await.unwrap();
        assert_eq!(shown.keys.len(), 23);
        assert!(shown.keys.is_sorted());
        revoke(&world, "wide", granted.id).await.unwrap();
        let since = Instant::now();
        // A new lease of the same id is another one: its keys stay.
        grant(&world, "wide", granted.id, 60_000).await.unwrap();
        put_with(&world, 1, "wide", "k07", granted.id)
            .await
            .unwrap();
        for key in keys.iter().filter(|key| *key != "k05" && *key != "k07") {
            let took = gone(&world, "wide", key, since).await;
            assert!(took <= GONE_WITHIN, "{key}: {took:?}");
        }
        assert_eq!(world.value(2, "wide", "k05").await.unwrap(), "free");
        assert!(world.value(2, "wide", "k07").await.is_some());
    });
}

#[test]
fn a_change_of_leaders_shortens_no_lease() {
    in_leased(44, |world| async move {
        const TTL: Duration = Duration::from_secs(10);
        grant(&world, STRONG, 7, 10_000).await.unwrap();
        let since = Instant::now();
        put_with(&world, 0, STRONG, "k", 7).await.unwrap();
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let leader = world.leader(STRONG, "k").await;
            // Clocks of the wall say what they like.
            for (at, clock) in world.clocks.iter().enumerate() {
                clock.set_offset(if at % 2 == 0 { 200_000 } else { -200_000 });
            }
            world.isolate(leader);
            let other = (leader + 1) % 4;
            // Answered by a new leader: the old one has no majority.
            assert!(world.value(other, STRONG, "k").await.is_some());
            world.network.heal();
            if since.elapsed() >= TTL {
                break;
            }
            assert!(world.value(other, STRONG, "k").await.is_some());
        }
        // Each change adds what had passed since the last checkpoint, half of the time at first.
        let took = gone(&world, STRONG, "k", since).await;
        assert!(took >= TTL && took <= TTL * 4, "{took:?}");
    });
}
