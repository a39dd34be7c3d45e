//! The operator's side: what is sent again and what is not.

use quorate_types::{Effect, KeyspaceOptions, Reason};

use crate::cluster::{Cluster, Fault};

#[tokio::test]
async fn questions_are_repeated() {
    let cluster = Cluster::start(2);
    cluster.admin_faults([Fault::LoseAnswer, Fault::LoseAnswer]);
    let status = cluster.client().admin().status().await.unwrap();
    assert!(status.answered_by > 0);
    assert_eq!(cluster.admin_calls(), ["status"; 3]);
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_not_repeated() {
    let cluster = Cluster::start(2);
    cluster.admin_faults([Fault::LoseAnswer]);
    let admin = cluster.client().admin();
    let error = admin
        .create_keyspace("a", &KeyspaceOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!(cluster.admin_calls(), ["create"]);
}

#[tokio::test]
async fn a_creation_that_was_refused_for_now_is_repeated() {
    let cluster = Cluster::start(2);
    cluster.admin_faults([Fault::Refuse("NO_LEADER", "none")]);
    let admin = cluster.client().admin();
    let keyspace = admin
        .create_keyspace("a", &KeyspaceOptions::default())
        .await
        .unwrap();
    assert_eq!(keyspace.name, "a");
    assert_eq!(cluster.admin_calls(), ["create", "create"]);
}

#[tokio::test]
async fn a_refusal_for_good_is_told() {
    let cluster = Cluster::start(2);
    cluster.admin_faults([Fault::Refuse("KEYSPACE_NOT_FOUND", "none")]);
    let error = cluster
        .client()
        .admin()
        .drop_keyspace("a")
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::KeyspaceNotFound));
    assert_eq!(error.effect(), Effect::None);
}

#[tokio::test]
async fn a_replacement_tells_its_steps() {
    let cluster = Cluster::start(1);
    let mut done = Vec::new();
    let admin = cluster.client().admin();
    let last = admin
        .replace_node(1, 0, |step| done.push(step.ranges_done))
        .await
        .unwrap();
    assert_eq!(done, [1, 2]);
    assert_eq!(last.unwrap().with, 4);
}
