//! Pipelines: out of order, bounded, and harmless when nobody reads them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use quorate_gateway::{KvService, PIPELINE_IN_FLIGHT_MAX};
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use tonic::Status;

use crate::world::{get, in_world, put};

type Asked = Result<v1::PipelineRequest, Status>;

fn asked(id: u64, request: Request) -> Asked {
    Ok(v1::PipelineRequest {
        id,
        request: Some(request),
        timeout_ms: 30_000,
    })
}

#[test]
fn every_request_is_answered_once_by_its_id() {
    in_world(41, |world| async move {
        let service = KvService::new(world.gateways[1].clone());
        let puts = (0..3000).map(|id| asked(id, put("default", &format!("k{id}"), "v")));
        let empty = Ok(v1::PipelineRequest {
            id: 3000,
            request: None,
            timeout_ms: 0,
        });
        let requests = stream::iter(puts.chain([empty]));
        let mut answers = service.run_pipeline(requests);
        let mut seen: BTreeMap<u64, Response> = BTreeMap::new();
        while let Some(answer) = answers.next().await {
            let answer = answer.unwrap();
            assert!(seen.insert(answer.id, answer.response.unwrap()).is_none());
        }
        assert_eq!(seen.len(), 3001);
        assert!((0..3000).all(|id| matches!(seen[&id], Response::Put(_))));
        let Response::Error(error) = &seen[&3000] else {
            panic!("{:?}", seen[&3000])
        };
        assert_eq!(
            (error.reason.as_str(), error.effect.as_str()),
            ("FIELD_INVALID", "none")
        );
        assert_eq!(
            world.value(2, "default", "k2999").await.as_deref(),
            Some("v")
        );
    });
}

#[test]
fn a_client_that_reads_nothing_is_not_read_either() {
    in_world(42, |world| async move {
        world.put(0, "default", "k", &"v".repeat(100_000)).await;
        let service = KvService::new(world.gateways[0].clone());
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let requests = stream::iter(0..100_000u64).map(move |id| {
            counter.fetch_add(1, Ordering::Relaxed);
            asked(id, Request::Get(get("default", "k")))
        });
        let mut answers = service.run_pipeline(requests);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(taken.load(Ordering::Relaxed) <= PIPELINE_IN_FLIGHT_MAX);
        // What it could not hold it says: the rest of the answers are refusals of reads.
        let (mut values, mut refused) = (0, 0);
        for _ in 0..PIPELINE_IN_FLIGHT_MAX {
            match answers.next().await.unwrap().unwrap().response.unwrap() {
                Response::Get(_) => values += 1,
                Response::Error(error) => {
                    assert_eq!(error.reason, "OVERLOADED");
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(
            values > 100 && refused > 500,
            "{values} values, {refused} refusals"
        );
        // Others are served all the while.
        drop(answers);
        assert!(world.value(0, "default", "k").await.is_some());
    });
}

#[test]
fn a_stopping_node_ends_its_pipelines_after_the_answers_that_are_due() {
    in_world(43, |world| async move {
        let service = KvService::new(world.gateways[0].clone());
        let (sender, receiver) = tokio::sync::mpsc::channel::<Asked>(16);
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = service.run_pipeline(requests);
        sender
            .send(asked(1, put("default", "k", "v")))
            .await
            .unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap().id, 1);
        world.gateways[0].stop();
        assert!(answers.next().await.is_none());
    });
}
