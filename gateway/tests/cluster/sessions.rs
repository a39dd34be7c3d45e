//! Session tokens over both planes, step by step: what a token asks of each level, what is said
//! where it cannot be met, and which tokens are refused.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_types::Reason;
use tonic::Code;

use crate::world::{World, get, in_world, level, put};

const BEGIN: Bytes = Bytes::from_static(&[0]);
/// Shorter than any cut here.
const SHORT: Duration = Duration::from_millis(300);

fn wished(text: &str, token: &Bytes) -> Option<v1::Consistency> {
    Some(v1::Consistency {
        session_token: token.clone(),
        ..level(text).unwrap()
    })
}

fn read(keyspace: &str, key: &str, at: &str, token: &Bytes) -> v1::GetRequest {
    v1::GetRequest {
        consistency: wished(at, token),
        ..get(keyspace, key)
    }
}

async fn put_at(
    world: &World,
    node: usize,
    (keyspace, key, value): (&str, &str, &str),
    at: &str,
    token: &Bytes,
) -> v1::Receipt {
    let Request::Put(request) = put(keyspace, key, value) else {
        unreachable!()
    };
    let request = Request::Put(v1::PutRequest {
        consistency: wished(at, token),
        ..request
    });
    match world.ask(node, request).await.unwrap() {
        Response::Put(put) => put.receipt.unwrap(),
        other => panic!("{other:?}"),
    }
}

/// All values of an answer.
fn values(got: &v1::GetResponse) -> Vec<&[u8]> {
    let entries = got.entry.iter().chain(&got.siblings);
    entries.map(|entry| &entry.value[..]).collect()
}

#[test]
fn an_eventual_write_is_seen_at_each_level_at_once() {
    in_world(81, |world| async move {
        let levels = [
            "session",
            "linearizable",
            "stale",
            "bounded:2000",
            "eventual:one",
        ];
        for (round, at) in levels.iter().cycle().take(20).enumerate() {
            let (key, value) = (format!("k{round}"), format!("v{round}"));
            let node = round % 4;
            let what = ("default", &key[..], &value[..]);
            let written = put_at(&world, node, what, "eventual:one", &BEGIN).await;
            let token = written.session_token;
            let got = world
                .get((round + 1) % 4, read("default", &key, at, &token))
                .await;
            assert_eq!(values(&got), [value.as_bytes()], "round {round} at {at}");
            let receipt = got.receipt.unwrap();
            assert_eq!(receipt.session_missing, "");
            assert!(!receipt.session_token.is_empty());
        }
    });
}

#[test]
fn a_write_replaces_what_its_session_has_seen_though_its_node_has_not() {
    in_world(82, |world| async move {
        let (holders, _) = world.holders("default", "k");
        let [first, second] = [holders[0], holders[1]];
        let planes = ["eventual:one", "linearizable"];
        for (round, (old, new)) in [(0, 1), (1, 0), (0, 0)].into_iter().enumerate() {
            let key = format!("k{round}");
            let what = ("default", &key[..], "old");
            let token = put_at(&world, first, what, planes[old], &BEGIN).await;
            let what = ("default", &key[..], "new");
            let token = put_at(&world, second, what, planes[new], &token.session_token).await;
            for (node, at) in [(0, "linearizable"), (1, "eventual:one"), (2, "session")] {
                let request = read("default", &key, at, &token.session_token);
                let got = world.get(node, request).await;
                assert_eq!(values(&got), [b"new"], "round {round} at {at}");
            }
        }
    });
}

#[test]
fn what_cannot_be_met_is_an_error_that_says_what_is_missing_or_the_best_there_is() {
    in_world(83, |world| async move {
        world.put(0, "default", "k", "old").await;
        let (holders, _) = world.holders("default", "k");
        let alone = holders[0];
        // From then on it is here.
        world.value(holders[1], "default", "k").await;
        world.isolate(alone);
        let what = ("default", "k", "new");
        let token = put_at(&world, alone, what, "eventual:one", &BEGIN).await;
        let token = token.session_token;
        for at in ["session", "linearizable", "stale", "eventual:one"] {
            let request = Request::Get(read("default", "k", at, &token));
            let asked = world.ask_within(holders[1], SHORT, request).await;
            let error = asked.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable, "{at}: {error}");
            assert_eq!(error.reason(), Some(Reason::NotCaughtUp), "{at}: {error}");
            let wire = v1::Error::from(error);
            assert!(!wire.metadata["missing"].is_empty(), "{at}: {wire:?}");
            let best = Request::Get(v1::GetRequest {
                consistency: wished(at, &token).map(|wish| v1::Consistency {
                    best_available: true,
                    ..wish
                }),
                ..get("default", "k")
            });
            let best = world
                .ask_within(holders[1], Duration::from_secs(2), best)
                .await;
            let Response::Get(best) = best.unwrap() else {
                panic!("another answer")
            };
            assert_eq!(values(&best), [b"old"], "{at}");
            let receipt = best.receipt.unwrap();
            assert!(!receipt.session_missing.is_empty(), "{at}: {receipt:?}");
        }
        // What the session asks of later is no less for an answer that showed less.
        world.network.heal();
        let got = world
            .get(holders[1], read("default", "k", "linearizable", &token))
            .await;
        assert_eq!(values(&got), [b"new"]);
    });
}

#[test]
fn a_session_of_a_keyspace_without_a_log_reads_its_own_writes_anywhere() {
    in_world(84, |world| async move {
        let options = v1::KeyspaceOptions {
            mode: "eventual".to_owned(),
            ..v1::KeyspaceOptions::default()
        };
        world.create("carts", options).await;
        let mut token = BEGIN;
        for round in 0..20 {
            let value = format!("v{round}");
            let what = ("carts", "k", &value[..]);
            let written = put_at(&world, round % 4, what, "eventual:one", &token).await;
            for at in ["session", "eventual:one"] {
                let node = (round + 2) % 4;
                let request = read("carts", "k", at, &written.session_token);
                let got = world.get(node, request).await;
                assert_eq!(values(&got), [value.as_bytes()], "round {round} at {at}");
                let receipt = got.receipt.unwrap();
                let served = receipt.level.unwrap().level;
                assert_eq!(served == v1::Level::Session as i32, at == "session");
                token = receipt.session_token;
            }
            let page = v1::ScanRequest {
                keyspace: "carts".to_owned(),
                consistency: wished("session", &token),
                ..v1::ScanRequest::default()
            };
            let page = world.scan((round + 3) % 4, page).await.unwrap();
            assert_eq!(page.entries[0].value, value);
        }
        assert!(token.len() < 200, "{} bytes", token.len());
    });
}

#[test]
fn a_compare_and_a_scan_see_what_the_session_wrote_eventually() {
    in_world(85, |world| async move {
        let what = ("default", "k", "tentative");
        let written = put_at(&world, 1, what, "eventual:one", &BEGIN).await;
        let compare = Request::CompareAndSet(v1::CompareAndSetRequest {
            keyspace: "default".to_owned(),
            key: Bytes::from_static(b"k"),
            expect: Some(v1::Expect {
                state: Some(v1::expect::State::Value(Bytes::from_static(b"tentative"))),
            }),
            value: Bytes::from_static(b"decided"),
            consistency: wished("linearizable", &written.session_token),
            ..v1::CompareAndSetRequest::default()
        });
        let Response::CompareAndSet(set) = world.ask(2, compare).await.unwrap() else {
            panic!("another answer")
        };
        assert!(set.succeeded, "{set:?}");
        let token = set.receipt.unwrap().session_token;
        let token = put_at(&world, 3, ("default", "l", "other"), "eventual:one", &token).await;
        for at in ["linearizable", "session", "stale"] {
            let page = v1::ScanRequest {
                keyspace: "default".to_owned(),
                consistency: wished(at, &token.session_token),
                ..v1::ScanRequest::default()
            };
            let page = world.scan(0, page).await.unwrap();
            let found: Vec<_> = page.entries.iter().map(|entry| &entry.value[..]).collect();
            assert_eq!(found, [&b"decided"[..], b"other"], "{at}");
        }
    });
}

#[test]
fn strange_tokens_are_refused_by_name() {
    in_world(86, |world| async move {
        world.create("other", v1::KeyspaceOptions::default()).await;
        let what = ("default", "k", "v");
        let token = put_at(&world, 0, what, "eventual:one", &BEGIN)
            .await
            .session_token;
        let mut future = token.to_vec();
        future[0] += 1;
        let mut tampered = token.to_vec();
        tampered[20] ^= 1;
        let cases = [
            ("default", Bytes::from(future), "version"),
            ("default", token.slice(..token.len() - 3), "damaged"),
            ("default", Bytes::from(tampered), "damaged"),
            ("default", Bytes::from(vec![1; 1 << 17]), "longer"),
            ("other", token.clone(), "keyspace"),
        ];
        for (keyspace, token, word) in cases {
            for at in ["session", "linearizable", "eventual:one"] {
                let request = Request::Get(read(keyspace, "k", at, &token));
                let error = world.ask(1, request).await.unwrap_err();
                assert_eq!(
                    error.reason(),
                    Some(Reason::TokenInvalid),
                    "{word}: {error}"
                );
                assert_eq!(error.code(), Code::InvalidArgument);
                assert!(error.to_string().contains(word), "{word}: {error}");
            }
        }
    });
}

#[test]
fn a_write_replaces_an_absorbed_value_that_its_session_read_of_the_log() {
    in_world(87, |world| async move {
        let (holders, _) = world.holders("default", "k");
        let alone = holders[0];
        world.isolate(alone);
        put_at(
            &world,
            holders[1],
            ("default", "k", "absorbed"),
            "eventual:one",
            &BEGIN,
        )
        .await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let token = loop {
            let got = world
                .get(holders[1], read("default", "k", "linearizable", &BEGIN))
                .await;
            if values(&got) == [b"absorbed"] {
                break got.receipt.unwrap().session_token;
            }
            assert!(tokio::time::Instant::now() < deadline, "not absorbed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let page = v1::ScanRequest {
            keyspace: "default".to_owned(),
            consistency: wished("linearizable", &BEGIN),
            ..v1::ScanRequest::default()
        };
        let page = world.scan(holders[1], page).await.unwrap();
        // A page does not say which writes its values are: who lags cannot replace them.
        let Request::Put(blind) = put("default", "k", "blind") else {
            unreachable!()
        };
        let blind = Request::Put(v1::PutRequest {
            consistency: wished("eventual:one", &page.receipt.unwrap().session_token),
            ..blind
        });
        let error = world.ask_within(alone, SHORT, blind).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::NotCaughtUp), "{error}");
        let token = put_at(
            &world,
            alone,
            ("default", "k", "new"),
            "eventual:one",
            &token,
        )
        .await;
        world.network.heal();
        for at in ["linearizable", "eventual:one"] {
            let request = read("default", "k", at, &token.session_token);
            let got = world.get(holders[1], request).await;
            assert_eq!(values(&got), [b"new"], "{at}");
        }
    });
}
