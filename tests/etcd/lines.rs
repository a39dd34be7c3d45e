//! etcd's locks and elections: one holder at a time, in the order in which they came, and whoever
//! goes while it waits stands in nobody's way.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcd::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, RangeRequest};
use quorate_proto::etcd::v3electionpb::election_client::ElectionClient;
use quorate_proto::etcd::v3electionpb::{
    CampaignRequest, LeaderRequest, ProclaimRequest, ResignRequest,
};
use quorate_proto::etcd::v3lockpb::lock_client::LockClient;
use quorate_proto::etcd::v3lockpb::{LockRequest, UnlockRequest};
use tonic::transport::{Channel, Endpoint};

use crate::servers::start_quorate;

/// What should happen happens by then.
const WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

async fn lease(channel: &Channel) -> i64 {
    let request = LeaseGrantRequest { ttl: 60, id: 0 };
    let granted = LeaseClient::new(channel.clone()).lease_grant(request).await;
    granted.unwrap().into_inner().id
}

/// Waits until so many stand in a line.
async fn until_standing(channel: &Channel, name: &str, count: i64) {
    let request = RangeRequest {
        key: Bytes::from(format!("{name}/")),
        range_end: Bytes::from(format!("{name}0")),
        count_only: true,
        ..RangeRequest::default()
    };
    let standing = async {
        let mut client = KvClient::new(channel.clone());
        while client
            .range(request.clone())
            .await
            .unwrap()
            .into_inner()
            .count
            != count
        {
            tokio::time::sleep(POLL).await;
        }
    };
    let stood = tokio::time::timeout(WITHIN, standing).await;
    stood.unwrap_or_else(|_| panic!("not {count} in the line of {name}"));
}

fn lock(channel: &Channel, lease: i64) -> tokio::task::JoinHandle<(Bytes, i64)> {
    let mut client = LockClient::new(channel.clone());
    let mut reader = KvClient::new(channel.clone());
    tokio::spawn(async move {
        let name = Bytes::from_static(b"door");
        let response = client.lock(LockRequest { name, lease }).await.unwrap();
        let key = response.into_inner().key;
        let request = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let row = reader
            .range(request)
            .await
            .unwrap()
            .into_inner()
            .kvs
            .remove(0);
        (key, row.create_revision)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_and_elections_are_held_by_one_at_a_time() {
    let server = start_quorate();
    let endpoint = Endpoint::from_shared(server.endpoints[0].clone()).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..4 {
        leases.push(lease(&channel).await);
    }

    let (first, token) = lock(&channel, leases[0]).await.unwrap();
    let (again, same) = lock(&channel, leases[0]).await.unwrap();
    assert_eq!((&again, same), (&first, token), "who has it, has it");
    let second = lock(&channel, leases[1]);
    until_standing(&channel, "door", 2).await;
    let third = lock(&channel, leases[2]);
    until_standing(&channel, "door", 3).await;
    // The second goes away while it waits.
    second.abort();
    until_standing(&channel, "door", 2).await;
    assert!(!third.is_finished(), "two hold one lock");
    let mut locks = LockClient::new(channel.clone());
    locks.unlock(UnlockRequest { key: first }).await.unwrap();
    let (_, next) = tokio::time::timeout(WITHIN, third).await.unwrap().unwrap();
    assert!(next > token, "{next} is no later token than {token}");
    // The end of its lease gives it up.
    let fourth = lock(&channel, leases[3]);
    until_standing(&channel, "door", 2).await;
    let revoke = LeaseRevokeRequest { id: leases[2] };
    LeaseClient::new(channel.clone())
        .lease_revoke(revoke)
        .await
        .unwrap();
    tokio::time::timeout(WITHIN, fourth).await.unwrap().unwrap();

    elections(&channel, (leases[0], leases[1])).await;
}

async fn elections(channel: &Channel, (one, other): (i64, i64)) {
    let mut client = ElectionClient::new(channel.clone());
    let name = Bytes::from_static(b"chair");
    let of = || LeaderRequest { name: name.clone() };
    let nobody = client.leader(of()).await.unwrap_err();
    assert_eq!(nobody.message(), "election: no leader");
    let campaign = |lease, value: &'static str| CampaignRequest {
        name: Bytes::from_static(b"chair"),
        lease,
        value: Bytes::from_static(value.as_bytes()),
    };
    let mut observed = client.observe(of()).await.unwrap().into_inner();
    let won = client
        .campaign(campaign(one, "a"))
        .await
        .unwrap()
        .into_inner();
    let mut rival = client.clone();
    let waiting = tokio::spawn(async move { rival.campaign(campaign(other, "b")).await });
    until_standing(channel, "chair", 2).await;
    let say = |value: &'static str| ProclaimRequest {
        leader: won.leader.clone(),
        value: Bytes::from_static(value.as_bytes()),
    };
    client.proclaim(say("a2")).await.unwrap();
    let leads = client.leader(of()).await.unwrap().into_inner().kv.unwrap();
    assert_eq!(&leads.value[..], b"a2");
    assert!(!waiting.is_finished(), "two lead");
    let resign = ResignRequest {
        leader: won.leader.clone(),
    };
    client.resign(resign).await.unwrap();
    tokio::time::timeout(WITHIN, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let late = client.proclaim(say("a3")).await.unwrap_err();
    assert_eq!(late.message(), "election: not leader");
    let mut seen = Vec::new();
    while seen.last().is_none_or(|value: &Bytes| value != "b") {
        let told = tokio::time::timeout(WITHIN, observed.message()).await;
        let told = told.expect("the new leader is told").unwrap().unwrap();
        seen.push(told.kv.unwrap().value);
    }
    assert!(seen.iter().any(|value| value.starts_with(b"a")), "{seen:?}");
}
