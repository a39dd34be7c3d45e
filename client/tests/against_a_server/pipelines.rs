//! Many requests on one stream: order, loss of the stream, bounds.

use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use quorate_client::limits::PIPELINE_IN_FLIGHT_MAX;
use quorate_client::{Request, Response};
use quorate_proto::v1;
use quorate_types::{Effect, Reason};

use crate::cluster::{Cluster, Fault};

fn put(key: &str) -> Request {
    Request::Put(v1::PutRequest {
        key: key.to_owned().into(),
        value: "v".into(),
        ..v1::PutRequest::default()
    })
}

#[tokio::test]
async fn answers_find_their_callers_in_any_order() {
    let cluster = Cluster::start(1);
    let pipeline = cluster.client().pipeline();
    let late = Duration::from_millis(300);
    cluster.faults([Fault::Delay(late)]);
    let started = Instant::now();
    let slow = async {
        let answer = pipeline.put("slow", "1").await.unwrap();
        (answer.revision, started.elapsed())
    };
    let fast = async {
        // The slow one is first at the server: only then this one is sent.
        while cluster.seen().is_empty() {
            tokio::task::yield_now().await;
        }
        let answer = pipeline.put("fast", "2").await.unwrap();
        (answer.revision, started.elapsed())
    };
    let ((slow, slow_time), (fast, fast_time)) = join(slow, fast).await;
    assert!(fast < slow, "the fast one was applied first");
    assert!(fast_time < slow_time);
    assert!(slow_time >= late);
}

#[tokio::test]
async fn a_stream_lost_in_the_middle_loses_and_repeats_nothing() {
    let cluster = Cluster::start(2);
    let pipeline = cluster.client().pipeline();
    let mut faults = vec![Fault::None; 20];
    faults.push(Fault::LoseAnswer);
    faults.extend(vec![Fault::None; 20]);
    faults.push(Fault::LoseRequest);
    cluster.faults(faults);
    let keys: Vec<String> = (0..100).map(|index| format!("k{index}")).collect();
    let puts = keys.iter().map(|key| pipeline.put(key.clone(), "v"));
    for answer in join_all(puts).await {
        answer.unwrap();
    }
    for key in &keys {
        assert_eq!(cluster.applied(key), 1, "{key}");
    }
    assert!(cluster.seen().len() > 100, "something was sent again");
}

#[tokio::test]
async fn a_killed_server_loses_no_pipelined_request() {
    let mut cluster = Cluster::start(3);
    let pipeline = cluster.client().pipeline();
    cluster.faults(vec![Fault::Delay(Duration::from_millis(50)); 60]);
    let keys: Vec<String> = (0..60).map(|index| format!("k{index}")).collect();
    let puts = join_all(keys.iter().map(|key| pipeline.put(key.clone(), "v")));
    let kill = async {
        while cluster.seen().len() < 30 {
            tokio::task::yield_now().await;
        }
        cluster.kill(0);
    };
    let (answers, ()) = join(puts, kill).await;
    for answer in answers {
        answer.unwrap();
    }
    for key in &keys {
        assert_eq!(cluster.applied(key), 1, "{key}");
    }
}

#[tokio::test]
async fn a_hung_stream_is_left_for_another_endpoint() {
    let cluster = Cluster::start(2);
    cluster.hang(0);
    let client =
        cluster.client_with(|options| options.attempt_timeout = Duration::from_millis(200));
    let pipeline = client.pipeline();
    for _ in 0..4 {
        pipeline.put("k", "v").await.unwrap();
    }
    assert!(cluster.seen().iter().all(|seen| seen.server == 1));
}

#[tokio::test]
async fn in_band_errors_are_told_like_others() {
    let cluster = Cluster::start(1);
    let pipeline = cluster.client().pipeline();
    cluster.faults([Fault::Refuse("KEY_TOO_LONG", "none")]);
    let error = pipeline.get("k").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::KeyTooLong));
    assert_eq!(error.effect(), Effect::None);
    cluster.faults([Fault::Refuse("NO_LEADER", "none")]);
    pipeline.get("k").await.unwrap();
}

#[tokio::test]
async fn raw_requests_get_keyspace_and_name() {
    let cluster = Cluster::start(1);
    let client = cluster.client().keyspace("other").unwrap();
    let answer = client.pipeline().send(put("k")).await.unwrap();
    assert!(matches!(answer, Response::Put(_)), "{answer:?}");
    let seen = &cluster.seen()[0];
    assert_eq!(seen.name().sequence, 1);
    assert!(matches!(&seen.request, Request::Put(put) if put.keyspace == "other"));
}

#[tokio::test]
async fn what_is_in_flight_is_bounded() {
    let cluster = Cluster::start(1);
    let pipeline = cluster.client().pipeline();
    let requests = 2 * PIPELINE_IN_FLIGHT_MAX;
    cluster.faults(vec![Fault::Delay(Duration::from_millis(20)); requests]);
    let gets = (0..requests).map(|index| pipeline.get(format!("k{index}")));
    for answer in join_all(gets).await {
        answer.unwrap();
    }
    assert!(cluster.in_flight_most() <= PIPELINE_IN_FLIGHT_MAX);
    assert!(
        cluster.in_flight_most() > PIPELINE_IN_FLIGHT_MAX / 4,
        "many were in flight"
    );
}

#[tokio::test]
async fn each_pipeline_names_its_own_writes() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let (one, two) = (client.pipeline(), client.pipeline());
    assert_ne!(one.client_id(), two.client_id());
    one.put("a", "1").await.unwrap();
    two.put("b", "1").await.unwrap();
    assert_eq!(
        cluster.applied("b"),
        1,
        "not taken for the first one's write"
    );
}
