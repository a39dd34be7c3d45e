//! Levels, sessions, ladders: what they promise, and what their receipts say.

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::Reason;
use tonic::Code;

use crate::world::{World, get, in_world, level, put};

fn read(name: &str) -> v1::GetRequest {
    v1::GetRequest {
        consistency: level(name),
        ..get("default", "k")
    }
}

fn with_token(request: v1::GetRequest, session_token: Bytes) -> v1::GetRequest {
    let consistency = request.consistency.unwrap_or_default();
    v1::GetRequest {
        consistency: Some(v1::Consistency {
            session_token,
            ..consistency
        }),
        ..request
    }
}

#[test]
fn receipts_name_level_node_and_bound() {
    in_world(21, |world| async move {
        let written = world.put(0, "default", "k", "v").await;
        let (holders, _) = world.holders("default", "k");
        for node in 0..4 {
            for (name, wire) in [
                ("stale", v1::Level::Stale),
                ("bounded:2000", v1::Level::Bounded),
                ("linearizable", v1::Level::Linearizable),
            ] {
                let receipt = world.get(node, read(name)).await.receipt.unwrap();
                assert_eq!(receipt.level.unwrap().level, wire as i32);
                assert!(holders.contains(&usize::try_from(receipt.node - 1).unwrap()));
                if holders.contains(&node) {
                    assert_eq!(receipt.node, node as u64 + 1, "a replica here serves it");
                }
                match wire {
                    v1::Level::Linearizable => {
                        assert_eq!(receipt.staleness_ms, Some(0));
                        assert!(receipt.revision >= written.revision);
                    }
                    v1::Level::Bounded => assert!(receipt.staleness_ms.unwrap() <= 2000),
                    _ => assert!(receipt.staleness_ms.is_some()),
                }
            }
        }
    });
}

#[test]
fn a_session_reads_its_own_writes_anywhere() {
    in_world(22, |world| async move {
        let mut token = Bytes::from_static(&[0]);
        for round in 0..40u32 {
            let value = format!("{round}");
            let Request::Put(write) = put("default", "k", &value) else {
                unreachable!()
            };
            let consistency = Some(v1::Consistency {
                session_token: token.clone(),
                ..v1::Consistency::default()
            });
            let write = Request::Put(v1::PutRequest {
                consistency,
                ..write
            });
            let Response::Put(written) = world.ask(0, write).await.unwrap() else {
                panic!("another answer");
            };
            token = written.receipt.unwrap().session_token;
            let node = usize::try_from(round % 4).unwrap();
            let seen = world
                .get(node, with_token(read("session"), token.clone()))
                .await;
            assert_eq!(seen.entry.unwrap().value, value);
            let receipt = seen.receipt.unwrap();
            assert!(receipt.revision >= written.revision);
            token = receipt.session_token;
        }
        let without = world
            .ask(0, Request::Get(read("session")))
            .await
            .unwrap_err();
        assert_eq!(without.code(), Code::InvalidArgument);
        let damaged = with_token(read("session"), Bytes::from_static(b"garbage"));
        let error = world.ask(0, Request::Get(damaged)).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::TokenInvalid));
    });
}

#[test]
fn what_a_mode_does_not_serve_is_refused() {
    in_world(23, |world| async move {
        for mode in ["strong", "eventual"] {
            let options = v1::KeyspaceOptions {
                mode: mode.to_owned(),
                ..Default::default()
            };
            world.create(mode, options).await;
        }
        let refused = async |keyspace: &str, name: &str| {
            let request = v1::GetRequest {
                consistency: level(name),
                ..get(keyspace, "k")
            };
            world
                .ask(1, Request::Get(request))
                .await
                .unwrap_err()
                .reason()
                .unwrap()
        };
        assert_eq!(refused("strong", "eventual").await, Reason::LevelNotServed);
        assert_eq!(
            refused("eventual", "linearizable").await,
            Reason::LevelNotServed
        );
        assert_eq!(refused("eventual", "stale").await, Reason::LevelNotServed);
        // Served, but not without a token.
        assert_eq!(refused("eventual", "session").await, Reason::FieldInvalid);
    });
}

#[test]
fn a_keyspace_without_a_log_serves_eventual_levels() {
    in_world(23, |world| async move {
        let options = v1::KeyspaceOptions {
            mode: "eventual".to_owned(),
            ..Default::default()
        };
        world.create("carts", options).await;
        let written = world.put(1, "carts", "k", "v").await;
        assert!(!written.dot.is_empty());
        for node in 0..world.gateways.len() {
            let got = world.get(node, get("carts", "k")).await;
            assert_eq!(got.entry.unwrap().value, "v");
            let receipt = got.receipt.unwrap();
            assert_eq!(receipt.replicas.len(), 2);
            assert!(!receipt.context.is_empty());
        }
    });
}

/// Writes did; reads named the rung alone.
#[test]
fn a_read_by_ladder_says_why_the_rungs_above_were_not_met() {
    in_world(25, |world| async move {
        world.put(0, "default", "k", "v").await;
        let leader = world.leader("default", "k").await;
        world.isolate(leader);
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let ladder = read("linearizable@300 > bounded:1500@300 > stale");
        let receipt = world.get(leader, ladder).await.receipt.unwrap();
        assert_eq!(receipt.rung, 2);
        assert_eq!(receipt.failed.len(), 2, "{receipt:?}");
    });
}

async fn rung_of(world: &World, node: usize, name: &str) -> u32 {
    world.get(node, read(name)).await.receipt.unwrap().rung
}

#[test]
fn a_ladder_takes_the_first_rung_that_can_be_met() {
    in_world(24, |world| async move {
        world.put(0, "default", "k", "v").await;
        let ladder = "linearizable@300 > bounded:1500@300 > stale";
        assert_eq!(rung_of(&world, 0, ladder).await, 0);
        let leader = world.leader("default", "k").await;
        world.isolate(leader);
        // Cut off, it is soon neither confirmed nor fresh, and still has what it had.
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let answer = world.get(leader, read(ladder)).await;
        assert_eq!(answer.entry.unwrap().value, "v");
        assert_eq!(answer.receipt.unwrap().rung, 2);
        let error = world
            .ask(leader, Request::Get(read("linearizable")))
            .await
            .unwrap_err();
        assert_eq!(
            (error.code(), error.reason()),
            (Code::Unavailable, Some(Reason::NoMajority))
        );
        let error = world
            .ask(leader, Request::Get(read("bounded:1500")))
            .await
            .unwrap_err();
        assert_eq!(error.reason(), Some(Reason::StalenessExceeded), "{error}");
        world.network.heal();
    });
}
