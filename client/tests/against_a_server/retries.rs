//! Single calls: what is sent again, where, under which name, and what is said in the end.

use std::time::{Duration, Instant};

use quorate_client::{ClientError, Code, WriteOptions};
use quorate_types::{ClientId, Effect, Reason, RequestId};

use crate::cluster::{Cluster, Fault, LEADER, RANGE};

/// Far above what a local exchange takes, far below the default deadline.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_applied_once() {
    let cluster = Cluster::start(3);
    cluster.faults([Fault::LoseAnswer, Fault::LoseAnswer]);
    let written = cluster.client().put("k", "v").await.unwrap();
    assert!(written.receipt.replayed);
    assert_eq!(cluster.applied("k"), 1);
    let seen = cluster.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.name() == seen.name()));
    let servers: std::collections::HashSet<_> = seen.iter().map(|seen| seen.server).collect();
    assert_eq!(servers.len(), 3, "each attempt went elsewhere");
}

#[tokio::test]
async fn all_attempts_carry_the_same_name_and_new_writes_another() {
    let cluster = Cluster::start(2);
    let client = cluster.client();
    cluster.faults([Fault::LoseRequest, Fault::Refuse("NO_LEADER", "none")]);
    client.put("a", "1").await.unwrap();
    client.put("b", "2").await.unwrap();
    let names: Vec<_> = cluster.seen().iter().map(|seen| seen.name()).collect();
    assert_eq!(names.len(), 4);
    assert_eq!(names[0], names[1]);
    assert_eq!(names[1], names[2]);
    assert_eq!(names[3].client, names[0].client);
    assert_eq!(names[3].sequence, names[0].sequence + 1);
    assert_eq!(names[0].client, client.client_id().0);
}

#[tokio::test]
async fn a_killed_server_costs_no_timeout() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    for turn in 0..6 {
        client.put("k", format!("{turn}")).await.unwrap();
    }
    cluster.kill(0);
    let started = Instant::now();
    for turn in 0..6 {
        client.put("k", format!("{turn}")).await.unwrap();
    }
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_hung_server_costs_one_attempt() {
    let cluster = Cluster::start(2);
    cluster.hang(0);
    let client = cluster.client_with(|options| {
        options.attempt_timeout = Duration::from_millis(200);
        options.timeout = Duration::from_secs(10);
    });
    let started = Instant::now();
    for _ in 0..4 {
        client.put("k", "v").await.unwrap();
    }
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test]
async fn silence_until_the_deadline_leaves_a_write_unknown_with_a_handle() {
    let cluster = Cluster::start(2);
    cluster.faults(vec![Fault::HangAfter; 100]);
    let client = cluster.client_with(|options| {
        options.timeout = Duration::from_millis(900);
        options.attempt_timeout = Duration::from_millis(100);
    });
    let started = Instant::now();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(error.effect(), Effect::Unknown);
    let request = error.request().unwrap();
    assert_eq!(request.client, client.client_id());
    let handle = error.handle().expect("the range was learned meanwhile");
    assert_eq!((handle.range.0, handle.request), (RANGE, request));
    assert!(error.is_retryable());
    assert_eq!(cluster.applied("k"), 1);
}

#[tokio::test]
async fn a_read_that_gets_no_answer_has_no_effect() {
    let cluster = Cluster::start(1);
    cluster.hang(0);
    let client = cluster.client_with(|options| options.timeout = Duration::from_millis(300));
    let error = client.get("k").await.unwrap_err();
    assert!(matches!(error, ClientError::Lost(_)), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert_eq!(error.request(), None);
}

#[tokio::test]
async fn what_never_left_this_machine_has_no_effect() {
    let mut cluster = Cluster::start(2);
    cluster.kill(0);
    cluster.kill(1);
    let client = cluster.client_with(|options| options.timeout = Duration::from_millis(300));
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.effect(), Effect::None, "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(
        error
            .to_string()
            .contains(&cluster.addresses[0].to_string()),
        "{error}"
    );
}

#[tokio::test]
async fn refusals_until_the_deadline_are_told_as_such() {
    let cluster = Cluster::start(2);
    cluster.faults(vec![Fault::Refuse("NO_MAJORITY", "none"); 1000]);
    let client = cluster.client_with(|options| options.timeout = Duration::from_millis(400));
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoMajority));
    assert_eq!(error.effect(), Effect::None);
    assert!(error.fate().attempts > 2, "{:?}", error.fate());
}

#[tokio::test]
async fn one_lost_attempt_makes_later_refusals_doubtful() {
    let cluster = Cluster::start(2);
    cluster.faults([Fault::LoseAnswer]);
    cluster.faults(vec![Fault::Refuse("NO_LEADER", "none"); 1000]);
    let client = cluster.client_with(|options| options.timeout = Duration::from_millis(400));
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoLeader));
    assert_eq!(error.effect(), Effect::Unknown);
}

#[tokio::test]
async fn what_cannot_pass_is_asked_once() {
    let cluster = Cluster::start(3);
    cluster.faults([Fault::Refuse("VALUE_TOO_LONG", "none")]);
    let error = cluster.client().put("k", "v").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ValueTooLong));
    assert!(!error.is_retryable());
    assert_eq!(cluster.seen().len(), 1);
}

#[tokio::test]
async fn without_retries_nothing_is_sent_twice() {
    let cluster = Cluster::start(3);
    let client = cluster.client_with(|options| options.retries = false);
    cluster.faults([Fault::LoseAnswer]);
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(cluster.seen().len(), 1);
}

#[tokio::test]
async fn a_name_below_the_window_is_replaced_if_it_was_sent_once() {
    let cluster = Cluster::start(2);
    cluster.faults([Fault::Refuse("BELOW_WINDOW", "unknown")]);
    cluster.client().put("k", "v").await.unwrap();
    let names: Vec<_> = cluster.seen().iter().map(|seen| seen.name()).collect();
    assert_eq!(names.len(), 2);
    assert_ne!(names[0].sequence, names[1].sequence);
    assert_eq!(cluster.applied("k"), 1);
}

#[tokio::test]
async fn a_name_below_the_window_is_kept_if_it_may_have_been_applied() {
    let cluster = Cluster::start(2);
    cluster.faults([Fault::LoseAnswer, Fault::Refuse("BELOW_WINDOW", "unknown")]);
    let error = cluster.client().put("k", "v").await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::BelowWindow));
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(cluster.applied("k"), 1);
}

#[tokio::test]
async fn a_write_can_be_taken_up_under_its_name_or_go_without() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let id = RequestId {
        client: ClientId(77),
        sequence: 5,
    };
    let named = || WriteOptions {
        request_id: Some(id),
        first_tried: Some(quorate_types::Timestamp(123)),
        ..WriteOptions::default()
    };
    client.put_with("k", "v", named()).await.unwrap();
    let again = client.put_with("k", "v", named()).await.unwrap();
    assert!(again.receipt.replayed);
    let name = cluster.seen()[0].name();
    assert_eq!((name.client, name.sequence, name.first_tried), (77, 5, 123));

    let unnamed = WriteOptions {
        at_least_once: true,
        ..WriteOptions::default()
    };
    cluster.faults([Fault::LoseAnswer]);
    client.put_with("twice", "v", unnamed).await.unwrap();
    assert_eq!(cluster.applied("twice"), 2);
}

#[tokio::test]
async fn requests_learn_the_way_to_the_leader() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let leader = usize::try_from(LEADER).unwrap() - 1;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut in_a_row = 0;
    while in_a_row < 12 {
        assert!(Instant::now() < deadline, "the way was not learned");
        client.put("k", "v").await.unwrap();
        let last = cluster.seen().last().unwrap().server;
        in_a_row = if last == leader { in_a_row + 1 } else { 0 };
    }
}

#[tokio::test]
async fn a_dead_leader_is_left_and_its_followers_asked() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    for _ in 0..40 {
        client.put("k", "v").await.unwrap();
    }
    cluster.kill(usize::try_from(LEADER).unwrap() - 1);
    let started = Instant::now();
    for _ in 0..40 {
        client.put("k", "v").await.unwrap();
    }
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}
