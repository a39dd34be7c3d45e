//! Waiting until all primaries hold what a session or a context names.

use std::time::Duration;

use bytes::Bytes;
use quorate_gateway::GatewayError;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::Reason;
use tonic::Code;

use crate::world::{World, get, in_world, level, put};

const BEGIN: Bytes = Bytes::from_static(&[0]);

async fn wait(
    world: &World,
    node: usize,
    named: v1::AwaitConvergedRequest,
    within: Duration,
) -> Result<v1::Receipt, GatewayError> {
    let asked = world.ask_within(node, within, Request::AwaitConverged(named));
    match asked.await? {
        Response::AwaitConverged(done) => Ok(done.receipt.unwrap()),
        other => panic!("{other:?}"),
    }
}

fn of_token(keyspace: &str, token: &Bytes) -> v1::AwaitConvergedRequest {
    v1::AwaitConvergedRequest {
        keyspace: keyspace.to_owned(),
        session_token: token.clone(),
        ..v1::AwaitConvergedRequest::default()
    }
}

async fn put_in_session(
    world: &World,
    node: usize,
    (keyspace, key): (&str, &str),
    at: Option<&str>,
    token: &Bytes,
) -> Bytes {
    let Request::Put(request) = put(keyspace, key, "v") else {
        unreachable!()
    };
    let wish = at.and_then(level).unwrap_or_default();
    let request = Request::Put(v1::PutRequest {
        consistency: Some(v1::Consistency {
            session_token: token.clone(),
            ..wish
        }),
        ..request
    });
    match world.ask(node, request).await.unwrap() {
        Response::Put(put) => put.receipt.unwrap().session_token,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_ends_once_all_primaries_have_it_in_each_mode() {
    in_world(101, |world| async move {
        for (mode, at) in [
            ("strong", None),
            ("mixed", Some("eventual:one")),
            ("eventual", Some("eventual:one")),
        ] {
            let options = v1::KeyspaceOptions {
                mode: mode.to_owned(),
                ..v1::KeyspaceOptions::default()
            };
            world.create(mode, options).await;
            let mut token = BEGIN;
            for (node, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
                token = put_in_session(&world, node, (mode, key), at, &token).await;
            }
            let named = of_token(mode, &token);
            let receipt = wait(&world, 3, named, Duration::from_secs(10))
                .await
                .unwrap();
            assert_eq!(receipt.replicas.len(), 3, "{mode}: {receipt:?}");
            assert!(receipt.session_token.len() <= token.len());
            // Now each replica has it, and the log has decided it.
            for node in 0..4 {
                let at = if mode == "eventual" {
                    "eventual:one"
                } else {
                    "stale"
                };
                let wish = level(at).map(|wish| v1::Consistency {
                    session_token: receipt.session_token.clone(),
                    ..wish
                });
                let request = v1::GetRequest {
                    consistency: wish,
                    ..get(mode, "d")
                };
                let got = world.get(node, request).await;
                assert_eq!(got.entry.unwrap().value, "v", "{mode} at {node}");
                assert!(!got.receipt.unwrap().tentative);
            }
        }
    });
}

#[test]
fn it_says_who_lacks_what() {
    in_world(102, |world| async move {
        world.put(0, "default", "k", "old").await;
        let (holders, _) = world.holders("default", "k");
        let alone = holders[0];
        world.isolate(alone);
        let what = ("default", "k");
        let token = put_in_session(&world, alone, what, Some("eventual:one"), &BEGIN).await;
        let within = Duration::from_secs(2);
        for node in [alone, holders[1]] {
            let error = wait(&world, node, of_token("default", &token), within).await;
            let error = error.unwrap_err();
            assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
            assert_eq!(error.reason(), Some(Reason::NotConverged), "{error}");
            let wire = v1::Error::from(error);
            for other in holders.iter().filter(|other| **other != alone) {
                let word = format!("node {} of range", other + 1);
                assert!(wire.metadata["lacking"].contains(&word), "{wire:?}");
            }
        }
        world.network.heal();
        let named = of_token("default", &token);
        wait(&world, alone, named, Duration::from_secs(20))
            .await
            .unwrap();
        assert_eq!(world.value(holders[1], "default", "k").await.unwrap(), "v");
    });
}

#[test]
fn a_context_is_waited_for_as_well_and_nothing_or_both_is_refused() {
    in_world(103, |world| async move {
        put_in_session(&world, 1, ("default", "k"), Some("eventual:one"), &BEGIN).await;
        let request = v1::GetRequest {
            consistency: level("eventual:one"),
            ..get("default", "k")
        };
        let context = world.get(1, request).await.receipt.unwrap().context;
        let named = v1::AwaitConvergedRequest {
            keyspace: "default".to_owned(),
            key: Bytes::from_static(b"k"),
            context,
            ..v1::AwaitConvergedRequest::default()
        };
        let within = Duration::from_secs(10);
        let receipt = wait(&world, 0, named.clone(), within).await.unwrap();
        assert_eq!(receipt.replicas.len(), 3, "{receipt:?}");
        let both = v1::AwaitConvergedRequest {
            session_token: BEGIN,
            ..named.clone()
        };
        let other_key = v1::AwaitConvergedRequest {
            key: Bytes::from_static(b"l"),
            ..named
        };
        let none = of_token("default", &Bytes::new());
        for (named, reason) in [
            (both, Reason::FieldInvalid),
            (none, Reason::FieldInvalid),
            (other_key, Reason::ContextInvalid),
        ] {
            let error = wait(&world, 0, named, within).await.unwrap_err();
            assert_eq!(error.reason(), Some(reason), "{error}");
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    });
}
