//! The keeper of a lease: it goes on through whatever befalls single requests, and tells when the
//! lease is lost.

use std::time::Duration;

use quorate_client::{Client, LeaseLost, Request, WriteOptions};
use tokio::time::Instant;

use crate::cluster::{Cluster, Fault, LEASE_TTL_MILLISECONDS};

const TTL: Duration = Duration::from_millis(LEASE_TTL_MILLISECONDS);
const PATIENCE: Duration = Duration::from_secs(20);

fn count(cluster: &Cluster, is_meant: impl Fn(&Request) -> bool) -> usize {
    let seen = cluster.seen();
    seen.iter().filter(|seen| is_meant(&seen.request)).count()
}

fn renewals(cluster: &Cluster) -> usize {
    count(cluster, |request| {
        matches!(request, Request::LeaseKeepAlive(_))
    })
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_lease_is_kept_until_it_is_over() {
    let cluster = Cluster::start(2);
    let client = cluster.client().pipeline();
    let granted = client.grant_lease(TTL, None).await.unwrap();
    assert_eq!(granted.ttl, TTL);
    assert!(granted.lives_until <= Instant::now() + TTL);
    let mut keeper = client.keep_lease(&granted);
    cluster.faults([
        Fault::LoseAnswer,
        Fault::Refuse("NO_LEADER", "none"),
        Fault::LoseRequest,
    ]);
    until("six renewals", || renewals(&cluster) >= 6).await;
    assert!(!keeper.is_lost());
    cluster.end_leases();
    let lost = tokio::time::timeout(PATIENCE, keeper.lost()).await.unwrap();
    assert!(matches!(lost, LeaseLost::Over), "{lost}");
}

#[tokio::test]
async fn a_lease_that_nobody_answers_for_is_lost_by_the_clients_own_clock() {
    let cluster = Cluster::start(1);
    let client = cluster.client().pipeline();
    let granted = client.grant_lease(TTL, None).await.unwrap();
    cluster.faults(vec![Fault::Refuse("NO_MAJORITY", "none"); 10_000]);
    let mut keeper = client.keep_lease(&granted);
    let lost = tokio::time::timeout(PATIENCE, keeper.lost()).await.unwrap();
    assert!(matches!(lost, LeaseLost::Silence(_)), "{lost}");
    let late = Instant::now().saturating_duration_since(granted.lives_until);
    assert!(late < Duration::from_millis(500), "{late:?} after its end");
}

#[tokio::test]
async fn a_keeper_that_is_dropped_keeps_nothing() {
    let cluster = Cluster::start(1);
    let client = cluster.client().pipeline();
    let granted = client.grant_lease(TTL, None).await.unwrap();
    let keeper = client.keep_lease(&granted);
    until("a renewal", || renewals(&cluster) >= 1).await;
    drop(keeper);
    let before = renewals(&cluster);
    // Twice the time between two renewals.
    let later = Instant::now() + TTL;
    until("time passes", || Instant::now() >= later).await;
    assert!(renewals(&cluster) <= before + 1, "it goes on");
}

/// These servers serve no watches.
#[tokio::test]
async fn a_lock_of_which_nobody_tells_is_asked_for_again() {
    let cluster = Cluster::start(1);
    let client = Client::clone(&cluster.client().pipeline());
    client.put("lock", "of others").await.unwrap();
    let waiting = client.clone();
    let waiting =
        tokio::spawn(async move { waiting.lock("lock", "mine", TTL, PATIENCE).await.unwrap() });
    let attempts = || {
        count(&cluster, |request| {
            matches!(request, Request::CompareAndSet(_))
        })
    };
    until("three attempts", || attempts() >= 3).await;
    let mut freed = client.delete_prefix("lock", WriteOptions::default());
    freed.finish(|_| {}).await.unwrap();
    let held = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert!(held.unwrap().is_some());
}
