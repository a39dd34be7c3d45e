//! A request whose answer was lost is sent again by its name: it is told what its first attempt
//! found, not what is there by now.

use bytes::Bytes;
use quorate_proto::v1::operation::{self, Operation as Of};
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};

use crate::world::{World, in_world};

fn key(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn get(name: &'static str) -> v1::Operation {
    let get = operation::Get { key: key(name) };
    v1::Operation {
        operation: Some(Of::Get(get)),
    }
}

fn put(name: &'static str, value: &'static str) -> v1::Operation {
    let put = operation::Put {
        key: key(name),
        value: key(value),
        ..operation::Put::default()
    };
    v1::Operation {
        operation: Some(Of::Put(put)),
    }
}

fn delete(name: &'static str) -> v1::Operation {
    let delete = operation::Delete { key: key(name) };
    v1::Operation {
        operation: Some(Of::Delete(delete)),
    }
}

fn named(
    world: &World,
    sequence: u64,
    keyspace: &str,
    operations: Vec<v1::Operation>,
) -> v1::BatchRequest {
    v1::BatchRequest {
        keyspace: keyspace.to_owned(),
        operations,
        request_id: Some(v1::RequestId {
            client: 7,
            sequence,
            first_tried: world.nodes[0].now().0,
        }),
        ..v1::BatchRequest::default()
    }
}

async fn batch(world: &World, request: &v1::BatchRequest) -> v1::BatchResponse {
    match world.ask(0, Request::Batch(request.clone())).await.unwrap() {
        Response::Batch(batch) => batch,
        other => panic!("{other:?}"),
    }
}

/// What each operation is told: whether it found anything, and which value.
fn told(answer: &v1::BatchResponse) -> Vec<(bool, Option<Bytes>)> {
    let results = answer.results.iter();
    let told = results.map(|one| (one.found, one.entry.clone().map(|entry| entry.value)));
    told.collect()
}

fn all_of_it() -> Vec<v1::Operation> {
    vec![
        get("a"),
        put("a", "second"),
        get("a"),
        put("a", "third"),
        get("a"),
        delete("b"),
        get("b"),
    ]
}

#[test]
fn a_batch_that_is_sent_again_is_told_what_it_found_the_first_time() {
    in_world(95, |world| async move {
        batch(
            &world,
            &named(
                &world,
                1,
                "default",
                vec![put("a", "first"), put("b", "there")],
            ),
        )
        .await;
        let request = named(&world, 2, "default", all_of_it());
        let first = batch(&world, &request).await;
        let value = |value: &'static str| (true, Some(key(value)));
        let wanted = vec![
            value("first"),
            (false, None),
            value("second"),
            (false, None),
            value("third"),
            (true, None),
            (false, None),
        ];
        assert_eq!(told(&first), wanted);

        let other = vec![put("a", "later"), put("b", "again")];
        batch(&world, &named(&world, 3, "default", other)).await;
        let again = batch(&world, &request).await;
        assert!(again.receipt.as_ref().unwrap().replayed);
        assert_eq!(told(&again), wanted);
    });
}

#[test]
fn where_no_history_is_kept_a_batch_that_is_sent_again_says_that_it_cannot_tell() {
    in_world(96, |world| async move {
        let options = v1::KeyspaceOptions {
            history_ms: Some(0),
            ..v1::KeyspaceOptions::default()
        };
        world.create("short", options).await;
        batch(&world, &named(&world, 1, "short", vec![put("a", "first")])).await;
        let request = named(&world, 2, "short", vec![get("a"), put("a", "second")]);
        batch(&world, &request).await;
        let mut sequence = 2;
        let again = loop {
            // The floor follows the entries behind it.
            sequence += 1;
            let other = vec![put("c", "c")];
            batch(&world, &named(&world, sequence, "short", other)).await;
            let again = batch(&world, &request).await;
            if again.results[0].error.is_some() {
                break again;
            }
            assert_eq!(told(&again)[0], (true, Some(key("first"))));
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        };
        let error = again.results[0].error.as_ref().unwrap();
        assert_eq!(error.reason, "REVISION_COLLECTED");
        assert_eq!(again.results[1].error, None);
    });
}
