//! A node that lost its disk: a new identity takes its place, and the old one stays out.

use std::time::Duration;

use crate::harness::{Cluster, wait_until};
use crate::load::{Load, check};

const WRITES: u64 = 500;
const JOIN_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_takes_the_place_of_a_lost_one() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(vec![cluster.client(), cluster.client()], "load/");
    wait_until("writes", JOIN_MAX, async || load.acknowledged() >= WRITES).await;
    let ledger = load.end().await;

    let lost = cluster.leader().await;
    let dir = cluster.node(lost).dir.clone();
    let kept = cluster.dir().join("kept");
    cluster.node(lost).kill();
    std::fs::rename(&dir, &kept).unwrap();
    cluster.join(4);
    let client = cluster.client();
    wait_until("node 4 in the status", JOIN_MAX, async || {
        let status = client.admin().status().await;
        status.is_ok_and(|status| status.nodes.iter().any(|n| n.id == 4 && n.reachable))
    })
    .await;
    let replace = ["node", "replace", &lost.to_string(), "--timeout", "60s"];
    let replaced = cluster.expect(0, &replace).await;
    assert!(replaced.text().contains("node 4"), "{replaced:?}");
    check(&cluster.client(), "load/", &ledger).await;

    let ranges = cluster.client().admin().ranges("", false).await.unwrap();
    for range in &ranges {
        let mut nodes: Vec<_> = range.replicas.iter().map(|r| r.node).collect();
        nodes.sort_unstable();
        let expected: Vec<u64> = (1..=4).filter(|id| *id != lost).collect();
        assert_eq!(nodes, expected, "range {}", range.id);
    }
    the_old_one_stays_out(&mut cluster, lost, &kept).await;

    // The new node counts: with another one gone there is still a majority.
    let other = (1..=3).find(|id| *id != lost).unwrap();
    cluster.node(other).kill();
    check(&cluster.client(), "load/", &ledger).await;
    cluster.client().put("after", "v").await.unwrap();
}

async fn the_old_one_stays_out(cluster: &mut Cluster, lost: u64, kept: &std::path::Path) {
    let dir = cluster.node(lost).dir.clone();
    std::fs::rename(kept, dir).unwrap();
    cluster.node(lost).start();
    let endpoint = cluster.node(lost).listen.to_string();
    let options = quorate_client::ClientOptions {
        endpoints: vec![endpoint],
        timeout: Duration::from_secs(2),
        ..quorate_client::ClientOptions::default()
    };
    let old = quorate_client::Client::connect(options).unwrap();
    let stale = quorate_client::ReadOptions {
        ladder: Some(quorate_types::Ladder::from(quorate_types::Level::Stale)),
        ..quorate_client::ReadOptions::default()
    };
    // It may route to the others; its own replicas answer nothing.
    wait_until("the old node to be out", JOIN_MAX, async || {
        match old.get_with("load/0/once-0", stale.clone()).await {
            Ok(got) => got.receipt.node.0 != lost,
            Err(_) => true,
        }
    })
    .await;
    let (leader, _) = cluster.leader_and_term().await;
    assert_ne!(leader, lost);
    cluster.node(lost).kill();
}
