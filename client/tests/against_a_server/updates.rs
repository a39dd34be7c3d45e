//! The eventual plane: what may be sent again, where requests go, and merging.

use quorate_client::{Change, Client, ClientError, Request, TypedValue, WriteOptions};
use quorate_types::{Effect, Reason};

use crate::cluster::{CONTEXT, Cluster, Fault};

fn eventual() -> WriteOptions {
    WriteOptions {
        ladder: Some("eventual:one".parse().unwrap()),
        ..WriteOptions::default()
    }
}

async fn increment(client: &Client) -> Result<i64, ClientError> {
    let updated = client.increment("k", 1, WriteOptions::default()).await?;
    match updated.typed {
        Some(TypedValue::Counter(sum)) => Ok(sum),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_increment_whose_answer_was_lost_is_not_sent_again() {
    let cluster = Cluster::start(3);
    cluster.faults([Fault::LoseAnswer]);
    let error = increment(&cluster.client()).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert!(error.request().is_some());
    assert_eq!(error.handle(), None, "no range knows its name");
    assert_eq!((cluster.seen().len(), cluster.applied("k")), (1, 1));
}

#[tokio::test]
async fn an_increment_inside_a_map_is_not_sent_again_either() {
    let cluster = Cluster::start(3);
    let client = cluster.client().pipeline();
    cluster.faults([Fault::LoseRequest]);
    let inner = Change::Fields(vec![("b".into(), Change::Increment(1))]);
    let change = Change::Fields(vec![
        ("x".into(), Change::Put("y".into())),
        ("a".into(), inner),
    ]);
    let error = client.update("k", change, eventual()).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(cluster.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_of_unknown_effect_ends_an_increment() {
    for reason in ["HOLDERS_MISSING", "BELOW_WINDOW", "TIMED_OUT"] {
        let cluster = Cluster::start(3);
        cluster.faults([Fault::Refuse(reason, "unknown")]);
        let error = increment(&cluster.client()).await.unwrap_err();
        assert_eq!(error.effect(), Effect::Unknown, "{reason}");
        assert_eq!(cluster.seen().len(), 1, "{reason}");
    }
}

#[tokio::test]
async fn an_increment_that_surely_did_nothing_is_sent_again() {
    let mut cluster = Cluster::start(3);
    let client = cluster.client();
    cluster.kill(0);
    cluster.faults([Fault::Refuse("HOLDERS_MISSING", "none")]);
    assert_eq!(increment(&client).await.unwrap(), 1);
    assert_eq!(cluster.seen().len(), 2);
    assert_eq!(cluster.applied("k"), 1);
}

#[tokio::test]
async fn doubt_that_came_late_ends_an_increment_too() {
    let cluster = Cluster::start(3);
    cluster.faults([Fault::Refuse("HOLDERS_MISSING", "none"), Fault::LoseAnswer]);
    let error = increment(&cluster.client()).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(cluster.seen().len(), 2);
}

#[tokio::test]
async fn other_changes_puts_and_deletes_are_sent_again() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    cluster.faults([Fault::LoseAnswer]);
    client.set_add("set", ["a"], eventual()).await.unwrap();
    assert_eq!(cluster.applied("set"), 2);
    cluster.faults([Fault::LoseAnswer]);
    let written = client.put_with("put", "v", eventual()).await.unwrap();
    assert_eq!(written.dot, "1.1.2");
    assert_eq!(cluster.applied("put"), 2, "at least once, as documented");
}

#[tokio::test]
async fn an_eventual_put_that_ends_unknown_has_no_handle() {
    let cluster = Cluster::start(1);
    let client = cluster.client_with(|options| options.retries = false);
    // Enough for the client to have learned the range.
    for _ in 0..40 {
        client.put("k", "v").await.unwrap();
    }
    cluster.faults([Fault::LoseAnswer]);
    let error = client.put_with("k", "v", eventual()).await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(error.handle(), None, "the range would say: not applied");
}

#[tokio::test]
async fn eventual_requests_stay_with_the_endpoint_at_hand() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let servers = || {
        let seen = cluster.seen();
        let mut servers: Vec<_> = seen.iter().map(|seen| seen.server).collect();
        servers.dedup();
        servers
    };
    for _ in 0..20 {
        client.put_with("k", "v", eventual()).await.unwrap();
    }
    assert_eq!(servers(), [0]);
    cluster.faults([Fault::LoseAnswer]);
    for _ in 0..20 {
        client.put_with("k", "v", eventual()).await.unwrap();
    }
    assert_eq!(servers(), [0, 1], "one failure, and one move");
}

#[tokio::test]
async fn a_merge_sees_all_values_and_puts_with_their_context() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let merge = |siblings: &[quorate_client::Entry]| {
        let values = siblings.iter().map(|one| one.value.clone());
        values.collect::<Vec<_>>().join(&b'+')
    };
    client
        .read_modify_write("k", eventual(), merge)
        .await
        .unwrap();
    match &cluster.seen().last().unwrap().request {
        Request::Put(put) => {
            assert_eq!(put.value, "one+two");
            assert_eq!(put.context.as_deref(), Some(CONTEXT));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_merge_at_a_strong_level_is_refused_before_anything_is_written() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let merged = client.read_modify_write("k", WriteOptions::default(), |_| "v");
    let error = merged.await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::FieldInvalid));
    assert!(error.to_string().contains("compare_and_set"), "{error}");
    assert_eq!(cluster.applied("k"), 0);
}
