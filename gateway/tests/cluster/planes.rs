//! One key on both planes: ladders, fences, and what strong and eventual requests see of each
//! other. By seed, and with exact times.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::{NodeId, Reason};
use tokio::time::Instant;
use tonic::Code;

use crate::world::{NODES, World, eventually, get, in_world, level, put};

fn at_level(request: Request, text: &str) -> Request {
    let consistency = level(text);
    match request {
        Request::Put(put) => Request::Put(v1::PutRequest { consistency, ..put }),
        Request::Get(get) => Request::Get(v1::GetRequest { consistency, ..get }),
        other => other,
    }
}

fn fenced() -> Option<v1::Consistency> {
    Some(v1::Consistency {
        fence: true,
        ..v1::Consistency::default()
    })
}

async fn put_at(world: &World, node: usize, key: &str, value: &str, at: &str) -> v1::PutResponse {
    let request = at_level(put("default", key, value), at);
    match world.ask(node, request).await.unwrap() {
        Response::Put(put) => put,
        other => panic!("{other:?}"),
    }
}

/// All values of a key, sorted.
async fn values(world: &World, node: usize, key: &str, at: &str) -> Vec<String> {
    let request = v1::GetRequest {
        consistency: level(at),
        ..get("default", key)
    };
    let got = world.get(node, request).await;
    let entries = got.entry.iter().chain(&got.siblings);
    let mut values: Vec<String> = entries
        .map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
        .collect();
    values.sort();
    values
}

async fn become_one(world: &World, node: usize, key: &str, wanted: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while values(world, node, key, "linearizable").await != wanted {
        assert!(Instant::now() < deadline, "{key} is not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn an_eventual_put_is_absorbed_and_a_strong_one_is_seen_eventually() {
    in_world(71, |world| async move {
        put_at(&world, 0, "k", "tentative", "eventual").await;
        become_one(&world, 1, "k", &["tentative"]).await;
        let strong = world.put(2, "default", "k", "strong").await;
        assert_eq!(values(&world, 3, "k", "eventual").await, ["strong"]);
        let request = v1::GetRequest {
            consistency: level("eventual"),
            ..get("default", "k")
        };
        let receipt = world.get(3, request).await.receipt.unwrap();
        assert!(!receipt.tentative, "{receipt:?}");
        assert!(!receipt.context.is_empty());
        assert!(strong.revision > 0);
    });
}

#[test]
fn a_fence_shows_what_a_majority_had_acknowledged() {
    in_world(72, |world| async move {
        for round in 0..20 {
            let (key, value) = (format!("k{round}"), format!("v{round}"));
            put_at(&world, round % 4, &key, &value, "eventual").await;
            let request = v1::GetRequest {
                consistency: fenced(),
                ..get("default", &key)
            };
            let got = world.get((round + 1) % 4, request).await;
            assert_eq!(got.entry.unwrap().value, value, "round {round}");
        }
        let refused = v1::GetRequest {
            consistency: level("eventual").map(|eventual| v1::Consistency {
                fence: true,
                ..eventual
            }),
            ..get("default", "k0")
        };
        let error = world.ask(0, Request::Get(refused)).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::FieldInvalid), "{error}");
    });
}

#[test]
fn a_ladder_falls_to_the_eventual_plane_and_climbs_back() {
    in_world(73, |world| async move {
        const LADDER: &str = "linearizable@200 > eventual:one";
        let old = world.put(0, "default", "k", "old").await;
        let (holders, _) = world.holders("default", "k");
        // A coordinator that knows no leader plans from what it sees.
        let range = world.nodes[0].catalog();
        let range = range.keyspace("default").unwrap().route(b"k").0.id;
        eventually("all replicas follow", || {
            holders.iter().all(|node| {
                let group = world.nodes[*node].group(range);
                group.is_some_and(|group| group.applied_revision().0 >= old.revision)
            })
        })
        .await;
        let first = put_at(&world, 0, "k", "first", LADDER).await;
        let receipt = first.receipt.unwrap();
        assert_eq!((receipt.rung, receipt.tentative), (0, false));
        assert!(receipt.revision > 0);
        assert_eq!(values(&world, 1, "k", "linearizable").await, ["first"]);
        // One holder and nobody else on its side.
        let alone = holders[0];
        world.isolate(alone);
        let began = Instant::now();
        let second = put_at(&world, alone, "k", "second", LADDER).await;
        let took = began.elapsed();
        assert!(took <= Duration::from_millis(250), "{took:?}");
        let receipt = second.receipt.unwrap();
        assert_eq!((receipt.rung, receipt.tentative), (1, true));
        assert_eq!(receipt.failed.len(), 1, "{receipt:?}");
        assert!(!second.dot.is_empty());
        // What is known to be out of reach is not waited for.
        let node = NodeId(alone as u64 + 1);
        let others: Vec<NodeId> = (1..=NODES).map(NodeId).filter(|id| *id != node).collect();
        eventually("silence is noticed", || {
            others
                .iter()
                .all(|other| !world.nodes[alone].peer_reachable(*other))
        })
        .await;
        let began = Instant::now();
        let third = put_at(&world, alone, "k", "third", LADDER).await;
        assert!(began.elapsed() < Duration::from_millis(20));
        assert_eq!(third.receipt.unwrap().failed, ["no majority in reach"]);
        world.network.heal();
        become_one(&world, holders[1], "k", &["third"]).await;
        let back = put_at(&world, alone, "k", "back", LADDER).await;
        assert_eq!(back.receipt.unwrap().rung, 0);
        become_one(&world, alone, "k", &["back"]).await;
    });
}

#[test]
fn writes_on_both_sides_of_a_cut_stand_beside_each_other() {
    in_world(74, |world| async move {
        world.put(0, "default", "k", "old").await;
        let (holders, _) = world.holders("default", "k");
        let alone = holders[0];
        assert_eq!(values(&world, alone, "k", "eventual").await, ["old"]);
        world.isolate(alone);
        put_at(&world, alone, "k", "minority", "eventual:one").await;
        world.put(holders[1], "default", "k", "majority").await;
        world.network.heal();
        become_one(&world, holders[2], "k", &["majority", "minority"]).await;
        // Whoever has seen both replaces both.
        let got = world.get(alone, get("default", "k")).await;
        let context = got.receipt.unwrap().context;
        let Request::Put(merge) = put("default", "k", "merged") else {
            panic!("not a put")
        };
        let merge = v1::PutRequest {
            context: Some(context),
            ..merge
        };
        world.ask(holders[1], Request::Put(merge)).await.unwrap();
        for node in 0..4 {
            assert_eq!(values(&world, node, "k", "linearizable").await, ["merged"]);
        }
    });
}

#[test]
fn a_counter_counts_on_both_planes() {
    in_world(75, |world| async move {
        let options = v1::KeyspaceOptions {
            conflict: "counter".to_owned(),
            ..v1::KeyspaceOptions::default()
        };
        world.create("counts", options).await;
        for (turn, at) in ["linearizable", "eventual", "linearizable@500 > eventual"]
            .into_iter()
            .cycle()
            .take(9)
            .enumerate()
        {
            let request = Request::Update(v1::UpdateRequest {
                keyspace: "counts".to_owned(),
                key: Bytes::from_static(b"n"),
                change: Some(v1::Change {
                    change: Some(v1::change::Change::Increment(1)),
                }),
                consistency: level(at),
                ..v1::UpdateRequest::default()
            });
            world.ask(turn % 4, request).await.unwrap();
        }
        let request = v1::GetRequest {
            consistency: fenced(),
            ..get("counts", "n")
        };
        let typed = world.get(2, request).await.typed.unwrap().value;
        assert_eq!(typed, Some(v1::typed_value::Value::Counter(9)));
    });
}

#[test]
fn fences_and_ladders_that_make_no_sense_are_refused_before_anything_is_written() {
    in_world(76, |world| async move {
        for refused in ["eventual@5 > linearizable", "linearizable > eventual"] {
            let request = at_level(put("default", "k", "v"), refused);
            let error = world.ask(0, request).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{refused}: {error}");
        }
        let scan = Request::Scan(v1::ScanRequest {
            keyspace: "default".to_owned(),
            consistency: fenced(),
            ..v1::ScanRequest::default()
        });
        let error = world.ask(0, scan).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::FieldInvalid), "{error}");
        assert_eq!(world.value(0, "default", "k").await, None);
    });
}
