//! Writes and reads of single keys, batches, transactions, names: through every node.

use bytes::Bytes;
use quorate_gateway::GatewayError;
use quorate_proto::v1::{
    self, expect::State, operation, outcome_response, pipeline_request::Request,
    pipeline_response::Response,
};
use quorate_types::{Effect, Reason};
use tonic::Code;

use crate::world::{NODES, PATIENCE, World, get, hashed, in_world, put};

fn everywhere() -> std::ops::Range<usize> {
    0..usize::try_from(NODES).unwrap()
}

fn expect(state: State) -> Option<v1::Expect> {
    Some(v1::Expect { state: Some(state) })
}

fn op_put(key: &'static str, value: &'static str) -> v1::Operation {
    let put = operation::Put {
        key: key.into(),
        value: value.into(),
        ..operation::Put::default()
    };
    v1::Operation {
        operation: Some(operation::Operation::Put(put)),
    }
}

fn op_get(key: &'static str) -> v1::Operation {
    let get = operation::Get { key: key.into() };
    v1::Operation {
        operation: Some(operation::Operation::Get(get)),
    }
}

fn op_delete(key: &'static str) -> v1::Operation {
    let delete = operation::Delete { key: key.into() };
    v1::Operation {
        operation: Some(operation::Operation::Delete(delete)),
    }
}

async fn cas(
    world: &World,
    node: usize,
    state: State,
    value: &'static str,
) -> v1::CompareAndSetResponse {
    let request = v1::CompareAndSetRequest {
        keyspace: "default".to_owned(),
        key: "k".into(),
        expect: expect(state),
        value: value.into(),
        ..Default::default()
    };
    match world
        .ask(node, Request::CompareAndSet(request))
        .await
        .unwrap()
    {
        Response::CompareAndSet(cas) => cas,
        other => panic!("{other:?}"),
    }
}

#[test]
fn any_node_takes_any_request() {
    in_world(1, |world| async move {
        for node in everywhere() {
            let value = format!("from {node}");
            let written = world.put(node, "default", "k", &value).await;
            let receipt = written.receipt.unwrap();
            assert_eq!(receipt.revision, written.revision);
            assert_eq!(receipt.role, v1::Role::Leader as i32);
            // A majority of three, by name.
            assert!(receipt.replicas.len() >= 2, "{receipt:?}");
            assert!(receipt.range > 1);
            for reader in everywhere() {
                let answer = world.get(reader, get("default", "k")).await;
                let entry = answer.entry.unwrap();
                assert_eq!(entry.value, value);
                assert_eq!(entry.revision, written.revision);
                assert_eq!(answer.receipt.unwrap().staleness_ms, Some(0));
            }
        }
        let delete = v1::DeleteRequest {
            keyspace: "default".to_owned(),
            key: "k".into(),
            ..Default::default()
        };
        let Response::Delete(deleted) = world.ask(3, Request::Delete(delete)).await.unwrap() else {
            panic!("another answer");
        };
        assert_eq!(deleted.deleted, 1);
        assert_eq!(world.value(0, "default", "k").await, None);
    });
}

#[test]
fn compare_and_set_and_conditional_delete() {
    in_world(2, |world| async move {
        let made = cas(&world, 0, State::Absent(true), "one").await;
        assert!(made.succeeded);
        let refused = cas(&world, 1, State::Absent(true), "two").await;
        assert!(!refused.succeeded);
        assert_eq!(refused.revision, 0);
        let current = refused.current.unwrap();
        assert_eq!(
            (&current.key[..], &current.value[..]),
            (&b"k"[..], &b"one"[..])
        );
        assert!(
            cas(&world, 2, State::Revision(made.revision), "two")
                .await
                .succeeded
        );
        assert!(
            cas(&world, 3, State::Value("two".into()), "three")
                .await
                .succeeded
        );

        let delete = |if_revision| {
            let keyspace = "default".to_owned();
            let key = "k".into();
            Request::Delete(v1::DeleteRequest {
                keyspace,
                key,
                if_revision,
                ..Default::default()
            })
        };
        let error = world.ask(1, delete(made.revision)).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CompareFailed));
        assert_eq!(
            (error.code(), error.effect()),
            (Code::FailedPrecondition, Effect::None)
        );
        let now = world
            .get(0, get("default", "k"))
            .await
            .entry
            .unwrap()
            .revision;
        assert!(world.ask(1, delete(now)).await.is_ok());
        assert_eq!(world.value(2, "default", "k").await, None);
    });
}

#[test]
fn transactions_are_atomic_within_a_range_and_refused_over_several() {
    in_world(3, |world| async move {
        world.put(0, "default", "a", "1").await;
        let txn = |compared: &'static str| {
            Request::Txn(v1::TxnRequest {
                keyspace: "default".to_owned(),
                compare: vec![v1::Compare {
                    key: "a".into(),
                    expect: expect(State::Value(compared.into())),
                }],
                then: vec![op_put("b", "2"), op_get("b"), op_delete("a")],
                otherwise: vec![op_get("a")],
                ..Default::default()
            })
        };
        for (node, compared, succeeded) in [(1, "9", false), (2, "1", true)] {
            let Response::Txn(done) = world.ask(node, txn(compared)).await.unwrap() else {
                panic!("another answer");
            };
            assert_eq!(done.succeeded, succeeded);
            let seen = done
                .results
                .iter()
                .find_map(|result| result.entry.clone())
                .unwrap();
            let expected = if succeeded { ("b", "2") } else { ("a", "1") };
            assert_eq!(
                (&seen.key[..], &seen.value[..]),
                (expected.0.as_bytes(), expected.1.as_bytes())
            );
        }
        assert_eq!(world.value(3, "default", "a").await, None);
        assert_eq!(world.value(3, "default", "b").await.as_deref(), Some("2"));

        world.create("spread", hashed(8)).await;
        let keys = ["a", "b", "c", "d", "e", "f", "g"];
        let spanning = Request::Txn(v1::TxnRequest {
            keyspace: "spread".to_owned(),
            then: keys.iter().map(|key| op_put(key, "x")).collect(),
            ..Default::default()
        });
        let error = world.ask(0, spanning).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::RangesSpanned));
        let GatewayError::RangesSpanned { ranges } = error else {
            panic!("{error}")
        };
        assert!(ranges.len() > 1);
    });
}

#[test]
fn a_batch_reaches_all_its_ranges_and_answers_in_order() {
    in_world(4, |world| async move {
        world.create("spread", hashed(8)).await;
        let batch = |operations| {
            let keyspace = "spread".to_owned();
            Request::Batch(v1::BatchRequest {
                keyspace,
                operations,
                ..Default::default()
            })
        };
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let puts = keys.iter().map(|key| op_put(key, key)).collect();
        let Response::Batch(written) = world.ask(1, batch(puts)).await.unwrap() else {
            panic!("another answer");
        };
        assert!(
            written
                .results
                .iter()
                .all(|result| result.error.is_none() && result.revision > 0)
        );
        for node in everywhere() {
            let mut gets: Vec<_> = keys.iter().map(|key| op_get(key)).collect();
            gets.push(op_get("nothing"));
            let Response::Batch(read) = world.ask(node, batch(gets)).await.unwrap() else {
                panic!("another answer");
            };
            for (key, result) in keys.iter().zip(&read.results) {
                assert_eq!(result.entry.as_ref().unwrap().value, key.as_bytes());
            }
            assert!(!read.results[keys.len()].found);
        }
        let mixed = vec![
            op_delete("a"),
            op_get("a"),
            op_delete("nothing"),
            op_put("b", "new"),
            op_get("b"),
        ];
        let Response::Batch(mixed) = world.ask(2, batch(mixed)).await.unwrap() else {
            panic!("another answer");
        };
        let found: Vec<bool> = mixed.results.iter().map(|result| result.found).collect();
        assert_eq!(found, [true, false, false, false, true]);
        assert_eq!(mixed.results[4].entry.as_ref().unwrap().value, "new");
    });
}

#[test]
fn a_named_write_is_applied_once_and_its_outcome_can_be_asked() {
    in_world(5, |world| async move {
        let named = |sequence, value: &'static str| {
            let first_tried = world.nodes[0].now().0;
            let request_id = Some(v1::RequestId {
                client: 77,
                sequence,
                first_tried,
            });
            let Request::Put(put) = put("default", "k", value) else {
                unreachable!()
            };
            Request::Put(v1::PutRequest { request_id, ..put })
        };
        let Response::Put(first) = world.ask(0, named(1, "first")).await.unwrap() else {
            panic!("another answer");
        };
        world.put(1, "default", "k", "second").await;
        let Response::Put(again) = world.ask(2, named(1, "first")).await.unwrap() else {
            panic!("another answer");
        };
        assert!(again.receipt.as_ref().unwrap().replayed);
        assert_eq!(again.revision, first.revision);
        assert_eq!(
            world.value(3, "default", "k").await.as_deref(),
            Some("second")
        );

        let range = first.receipt.unwrap().range;
        let outcome = |sequence: u64| {
            let handle = format!("r{range}-{:016x}-{sequence}", 77);
            Request::Outcome(v1::OutcomeRequest { handle })
        };
        let state_of =
            async |node, sequence| match world.ask(node, outcome(sequence)).await.unwrap() {
                Response::Outcome(outcome) => (outcome.state(), outcome.revision),
                other => panic!("{other:?}"),
            };
        let applied = outcome_response::State::Applied;
        assert_eq!(state_of(3, 1).await, (applied, first.revision));
        let not_applied = outcome_response::State::NotApplied;
        assert_eq!(state_of(1, 2).await.0, not_applied);
        // The question closed the id: a copy that comes late does nothing.
        let late = world.ask(0, named(2, "late")).await.unwrap_err();
        assert_eq!(
            (late.reason(), late.effect()),
            (Some(Reason::BelowWindow), Effect::None)
        );
        assert_eq!(state_of(2, 2).await.0, not_applied);
        assert_eq!(
            world.value(3, "default", "k").await.as_deref(),
            Some("second")
        );
    });
}

#[test]
fn what_has_a_time_to_live_goes_by_the_log() {
    in_world(8, |world| async move {
        let Request::Put(short) = put("default", "k", "short") else {
            unreachable!()
        };
        let short = v1::PutRequest {
            ttl_ms: 2_000,
            ..short
        };
        world.ask(0, Request::Put(short)).await.unwrap();
        let entry = world.get(1, get("default", "k")).await.entry.unwrap();
        assert!(entry.expires_at >= entry.revision + 2_000_000);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while world.value(3, "default", "k").await.is_some() {
            assert!(tokio::time::Instant::now() < deadline, "it never expired");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        for node in everywhere() {
            assert_eq!(world.value(node, "default", "k").await, None);
        }
    });
}

#[test]
fn bad_requests_are_named_and_have_no_effect() {
    in_world(6, |world| async move {
        let check = async |request: Request, reason: Reason, word: &str| {
            for node in [0, 3] {
                let error = world.ask(node, request.clone()).await.unwrap_err();
                assert_eq!(error.reason(), Some(reason), "{error}");
                assert_eq!(error.effect(), Effect::None);
                assert!(error.to_string().contains(word), "`{error}` lacks `{word}`");
            }
        };
        check(put("default", "", "v"), Reason::KeyEmpty, "key").await;
        check(
            put("default", &"k".repeat(5000), "v"),
            Reason::KeyTooLong,
            "4096",
        )
        .await;
        check(
            put("default", "k", &"v".repeat(1_048_577)),
            Reason::ValueTooLong,
            "1048576",
        )
        .await;
        check(
            put("nowhere", "k", "v"),
            Reason::KeyspaceNotFound,
            "nowhere",
        )
        .await;
        check(put("No Name", "k", "v"), Reason::FieldInvalid, "keyspace").await;
        let handle = "what".to_owned();
        let outcome = Request::Outcome(v1::OutcomeRequest { handle });
        check(outcome, Reason::FieldInvalid, "handle").await;
        // Keys and values are bytes, kept exactly.
        let bytes = Bytes::from_static(&[0xff, 0, 0xfe]);
        let Request::Put(exact) = put("default", "x", "") else {
            unreachable!()
        };
        let exact = v1::PutRequest {
            key: bytes.clone(),
            value: bytes.clone(),
            ..exact
        };
        world.ask(1, Request::Put(exact)).await.unwrap();
        let read = v1::GetRequest {
            key: bytes.clone(),
            ..get("default", "")
        };
        assert_eq!(world.get(2, read).await.entry.unwrap().value, bytes);
    });
}

#[test]
fn keyspaces_are_made_changed_and_dropped() {
    in_world(7, |world| async move {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let made = world.create("spread", hashed(4)).await;
        assert_eq!(made.ranges.len(), 4);
        let again = v1::CreateKeyspaceRequest {
            name: "spread".to_owned(),
            options: None,
        };
        let error = world.gateways[1]
            .create_keyspace(again, deadline)
            .await
            .unwrap_err();
        assert_eq!(error.reason(), Some(Reason::KeyspaceExists));
        let bad = v1::CreateKeyspaceRequest {
            name: "bad".to_owned(),
            options: Some(hashed(0)),
        };
        let error = world.gateways[1]
            .create_keyspace(bad, deadline)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("partitioning"), "{error}");

        let alter = |options| v1::AlterKeyspaceRequest {
            name: "spread".to_owned(),
            options: Some(options),
        };
        let mode = v1::KeyspaceOptions {
            mode: "strong".to_owned(),
            ..Default::default()
        };
        let error = world.gateways[2]
            .alter_keyspace(alter(mode), deadline)
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("options.mode"), "{error}");
        let limit = v1::KeyspaceOptions {
            value_max_bytes: Some(4),
            ..Default::default()
        };
        world.gateways[2]
            .alter_keyspace(alter(limit), deadline)
            .await
            .unwrap();
        let error = world.ask(2, put("spread", "k", "12345")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::ValueTooLong));

        let drop = |name: &str| v1::DropKeyspaceRequest {
            name: name.to_owned(),
        };
        assert!(
            world.gateways[0]
                .drop_keyspace(drop("default"), deadline)
                .await
                .is_err()
        );
        world.gateways[0]
            .drop_keyspace(drop("spread"), deadline)
            .await
            .unwrap();
        let error = world.ask(0, put("spread", "k", "v")).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::KeyspaceNotFound));
    });
}
