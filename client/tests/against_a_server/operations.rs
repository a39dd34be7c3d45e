//! Operations that take more than one exchange, and what callers can spawn.

use std::time::Duration;

use futures::TryStreamExt;
use quorate_client::{
    ClientError, ClientOptions, Expect, Operation, ReadOptions, Request, SESSION_BEGIN,
    ScanOptions, Txn, WriteOptions,
};
use quorate_types::{Effect, Reason};

use crate::cluster::{Cluster, Fault};

fn three_puts() -> Vec<Operation> {
    ["a", "b", "c"].map(|key| Operation::put(key, "v")).into()
}

#[tokio::test]
async fn a_batch_is_sent_again_until_all_of_it_is_done() {
    let cluster = Cluster::start(2);
    cluster.faults([
        Fault::RefuseOne(1, "NO_LEADER", "none"),
        Fault::RefuseOne(1, "TIMED_OUT", "unknown"),
    ]);
    let done = cluster.client().batch(three_puts()).await.unwrap();
    assert!(done.results.iter().all(Result::is_ok));
    let names: std::collections::HashSet<_> = cluster
        .seen()
        .into_iter()
        .map(|seen| match seen.request {
            Request::Batch(batch) => batch.request_id.unwrap().sequence,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names.len(), 1, "one name for all attempts");
    assert_eq!(cluster.seen().len(), 3);
}

#[tokio::test]
async fn a_batch_tells_what_was_refused_for_good_and_what_was_done() {
    let cluster = Cluster::start(2);
    cluster.faults([Fault::RefuseOne(2, "VALUE_TOO_LONG", "none")]);
    let done = cluster.client().batch(three_puts()).await.unwrap();
    assert!(done.results[0].is_ok());
    let error = done.results[2].as_ref().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ValueTooLong));
    assert_eq!(cluster.seen().len(), 1);
}

#[tokio::test]
async fn a_batch_that_is_not_done_in_time_keeps_what_is_done_and_what_is_doubtful() {
    let cluster = Cluster::start(2);
    cluster.faults([Fault::RefuseOne(1, "TIMED_OUT", "unknown")]);
    cluster.faults(vec![Fault::RefuseOne(1, "NO_LEADER", "none"); 1000]);
    let client = cluster.client_with(|options| options.timeout = Duration::from_millis(400));
    let done = client.batch(three_puts()).await.unwrap();
    assert!(done.results[0].is_ok());
    let error = done.results[1].as_ref().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::NoLeader));
    assert_eq!(
        error.effect(),
        Effect::Unknown,
        "the first attempt may have been applied"
    );
}

#[tokio::test]
async fn a_scan_goes_over_its_pages() {
    let cluster = Cluster::start(2);
    let client = cluster.client();
    for key in ["a1", "a2", "a3", "a4", "a5", "b1"] {
        client.put(key, "v").await.unwrap();
    }
    cluster.faults([Fault::None, Fault::LoseAnswer]);
    let entries: Vec<_> = client
        .scan_all(ScanOptions::prefix("a"))
        .try_collect()
        .await
        .unwrap();
    let keys: Vec<_> = entries.iter().map(|entry| &entry.key[..]).collect();
    assert_eq!(keys, [b"a1", b"a2", b"a3", b"a4", b"a5"]);
}

#[tokio::test]
async fn a_scan_ends_with_its_first_error() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    for key in ["a1", "a2", "a3"] {
        client.put(key, "v").await.unwrap();
    }
    cluster.faults([Fault::None, Fault::Refuse("REVISION_COLLECTED", "none")]);
    let mut pages = Box::pin(client.scan_pages(ScanOptions::prefix("a")));
    assert_eq!(pages.try_next().await.unwrap().unwrap().entries.len(), 2);
    assert!(pages.try_next().await.is_err());
    assert!(pages.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_prefix_goes_in_steps() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    for index in 0..5 {
        client.put(format!("p{index}"), "v").await.unwrap();
    }
    client.put("q", "stays").await.unwrap();
    let mut told = Vec::new();
    let mut deletion = client.delete_prefix("p", WriteOptions::default());
    let deleted = deletion.finish(|so_far| told.push(so_far)).await.unwrap();
    assert_eq!(deleted, 5);
    assert_eq!(told, [2, 4, 5]);
    assert!(deletion.step().await.unwrap().is_none());
    assert!(client.get("q").await.unwrap().entry.is_some());
}

#[tokio::test]
async fn a_session_carries_its_token_along() {
    let cluster = Cluster::start(1);
    let mut session = cluster.client().session();
    assert_eq!(session.token(), &SESSION_BEGIN);
    session.put("k", "v").await.unwrap();
    session.get("k").await.unwrap();
    assert_eq!(session.token(), &b"\0++"[..]);
    let resumed = cluster.client().session().resume("t");
    assert_eq!(resumed.token(), "t");
}

#[tokio::test]
async fn a_missing_key_is_no_error() {
    let cluster = Cluster::start(1);
    let got = cluster.client().get("nothing").await.unwrap();
    assert_eq!(got.entry, None);
}

#[tokio::test]
async fn bad_options_are_refused_before_anything_is_sent() {
    let refused = |options: ClientOptions| match quorate_client::Client::connect(options) {
        Err(ClientError::Invalid(error)) => error.field,
        other => panic!("{other:?}"),
    };
    let default = ClientOptions::default;
    assert_eq!(
        refused(ClientOptions {
            endpoints: vec![],
            ..default()
        }),
        "endpoints"
    );
    let nonsense = vec!["not an address".to_owned()];
    assert_eq!(
        refused(ClientOptions {
            endpoints: nonsense,
            ..default()
        }),
        "endpoints"
    );
    let zero = Duration::ZERO;
    assert_eq!(
        refused(ClientOptions {
            timeout: zero,
            ..default()
        }),
        "timeout"
    );

    let cluster = Cluster::start(1);
    let options = WriteOptions {
        ttl: Some(Duration::from_nanos(1)),
        ..WriteOptions::default()
    };
    let error = cluster
        .client()
        .put_with("k", "v", options)
        .await
        .unwrap_err();
    assert_eq!(error.effect(), Effect::None);
    assert!(cluster.seen().is_empty());
}

#[test]
fn all_futures_can_be_spawned() {
    fn is_send<T: Send>(_: T) {}
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let client = quorate_client::Client::connect(ClientOptions::default()).unwrap();
    is_send(client.get_with("k", ReadOptions::default()));
    is_send(client.put("k", "v"));
    is_send(client.compare_and_set("k", Expect::Absent, "v", WriteOptions::default()));
    is_send(client.txn(Txn::default(), WriteOptions::default()));
    is_send(client.batch(vec![Operation::get("k")]));
    is_send(client.scan_all(ScanOptions::default()));
    is_send(
        client
            .delete_prefix("p", WriteOptions::default())
            .finish(|_| {}),
    );
    is_send(client.session().get("k"));
    let admin = client.admin();
    is_send(admin.create_keyspace("a", &quorate_types::KeyspaceOptions::default()));
    is_send(admin.status());
    is_send(admin.replace_node(1, 2, |_| {}));
}
