//! Leases, locks and elections as a user types them: what comes back, in time, and what is refused.

use std::process::Stdio;
use std::time::{Duration, Instant};

use quorate_client::{ClientOptions, Operation, Txn, WriteOptions};
use quorate_proto::v1::LeaseKeepAliveRequest;
use quorate_proto::v1::lease_client::LeaseClient;
use quorate_types::{LeaseId, Reason};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::harness::{BINARY, Cluster, Ran};

/// Far more than the two seconds that are promised: the machine may be busy.
const GONE_MAX: Duration = Duration::from_secs(20);

/// In the keyspace that has leases.
async fn expect(cluster: &Cluster, code: i32, arguments: &[&str]) -> Ran {
    let all = [arguments, &["--keyspace", "jobs"]].concat();
    cluster.expect(code, &all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_locks_and_elections_do_what_they_say() {
    let cluster = Cluster::start(3).await;
    let create = ["keyspace", "create", "jobs", "--mode", "strong"];
    cluster.expect(0, &create).await;
    granted_and_revoked(&cluster).await;
    refused(&cluster).await;
    over_in_time(&cluster).await;
    locks(&cluster).await;
    elections(&cluster).await;
}

async fn granted_and_revoked(cluster: &Cluster) {
    let id = expect(cluster, 0, &["lease", "grant", "60"]).await;
    let id = id.text();
    assert_eq!(id.len(), 16, "{id}");
    for key in ["a", "b", "free"] {
        expect(cluster, 0, &["put", key, "v", "--lease", &id]).await;
    }
    expect(cluster, 0, &["put", "free", "v"]).await;
    expect(cluster, 4, &["cas", "a", "v", "--absent", "--lease", &id]).await;
    expect(cluster, 0, &["cas", "c", "v", "--absent", "--lease", &id]).await;
    in_transactions(cluster, &id).await;
    kept_by_a_stream(cluster, &id).await;
    let kept = expect(cluster, 0, &["lease", "keep-alive", "--once", &id]).await;
    assert_eq!(kept.text(), "1m");
    let shown = expect(cluster, 0, &["lease", "show", &id, "--keys", "-o", "json"]).await;
    let shown = shown.json();
    assert_eq!(shown["ttl_ms"], 60_000);
    assert_eq!(shown["keys"].as_array().unwrap().len(), 3, "{shown}");
    assert_eq!(
        expect(cluster, 0, &["lease", "revoke", &id]).await.text(),
        "3"
    );
    for key in ["a", "b", "c"] {
        expect(cluster, 3, &["get", key]).await;
    }
    expect(cluster, 0, &["get", "free"]).await;
    for command in ["revoke", "show", "keep-alive"] {
        let lost = expect(cluster, 3, &["lease", command, &id]).await;
        assert!(lost.stderr.contains(&id), "{lost:?}");
    }
    let lost = expect(cluster, 3, &["put", "k", "v", "--lease", &id]).await;
    assert!(lost.stderr.contains("quorate lease grant"), "{lost:?}");
}

/// A transaction attaches its puts, all or none.
async fn in_transactions(cluster: &Cluster, id: &str) {
    let client = cluster.client_with(ClientOptions {
        keyspace: "jobs".to_owned(),
        ..ClientOptions::default()
    });
    let lease: LeaseId = id.parse().unwrap();
    let put = |key: &'static str, lease| Operation::Put {
        key: key.into(),
        value: "v".into(),
        ttl: None,
        lease: Some(lease),
    };
    let txn = Txn::default()
        .then(put("t", lease))
        .then(put("u", LeaseId(7)));
    let refused = client.txn(txn, WriteOptions::default()).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::LeaseNotFound), "{refused}");
    assert!(client.get("t").await.unwrap().entry.is_none());
    let txn = Txn::default().then(put("t", lease)).then(put("u", lease));
    client.txn(txn, WriteOptions::default()).await.unwrap();
    let shown = client.lease(lease, true).await.unwrap();
    assert!(shown.keys.contains(&"t".into()), "{shown:?}");
    client.delete("t").await.unwrap();
    client.delete("u").await.unwrap();
}

/// As a client in another language keeps them: many on one stream, and one that is dead among them.
async fn kept_by_a_stream(cluster: &Cluster, id: &str) {
    let id: LeaseId = id.parse().unwrap();
    let address = format!("http://{}", cluster.endpoints()[0]);
    let mut client = LeaseClient::connect(address).await.unwrap();
    let request = |ids: &[u64]| LeaseKeepAliveRequest {
        keyspace: "jobs".to_owned(),
        ids: ids.to_vec(),
    };
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut kept = client.keep_alive(requests).await.unwrap().into_inner();
    for _ in 0..3 {
        sender.send(request(&[id.0, 0xdead])).await.unwrap();
        let answer = tokio::time::timeout(GONE_MAX, kept.message()).await;
        let answer = answer.unwrap().unwrap().unwrap();
        let ttls: Vec<_> = answer.kept.iter().map(|one| (one.id, one.ttl_ms)).collect();
        assert_eq!(ttls, [(id.0, 60_000), (0xdead, 0)]);
    }
    sender.send(request(&[])).await.unwrap();
    let refused = tokio::time::timeout(GONE_MAX, kept.message()).await;
    let refused = refused.unwrap().unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
}

async fn refused(cluster: &Cluster) {
    for (ttl, words) in [
        ("0s", "from 1s to 30d"),
        ("999ms", "from 1s to 30d"),
        ("31d", "from 1s to 30d"),
        // A million years.
        ("365000000d", "at most 36500d"),
    ] {
        let refused = expect(cluster, 2, &["lease", "grant", "--ttl", ttl]).await;
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
    expect(cluster, 2, &["lease", "grant", "--ttl", "5s", "--id", "0"]).await;
    expect(
        cluster,
        0,
        &["lease", "grant", "--ttl", "30s", "--id", "c7"],
    )
    .await;
    let again = ["lease", "grant", "--ttl", "30s", "--id", "c7"];
    let again = expect(cluster, 4, &again).await;
    assert!(again.stderr.contains("another id"), "{again:?}");
    // A million years, as etcdctl would be told.
    for seconds in ["0", "31557600000000"] {
        let refused = expect(cluster, 2, &["lease", "grant", seconds]).await;
        assert!(refused.stderr.contains("from 1s to 30d"), "{refused:?}");
    }
    expect(cluster, 2, &["lease", "grant"]).await;
    expect(cluster, 2, &["lease", "grant", "5", "--ttl", "5s"]).await;
    let loose = ["keyspace", "create", "loose", "--mode", "eventual"];
    cluster.expect(0, &loose).await;
    let loose = ["lease", "grant", "--ttl", "5s", "--keyspace", "loose"];
    let loose = cluster.expect(2, &loose).await;
    assert!(loose.stderr.contains("--mode strong"), "{loose:?}");
    // `default` is mixed: what the log takes may have a lease there.
    let id = cluster.expect(0, &["lease", "grant", "--ttl", "30s"]).await;
    let id = id.text();
    let put = ["put", "held", "v", "--lease", &id];
    let eventual = [&put[..], &["--level", "eventual:one"]].concat();
    let eventual = cluster.expect(2, &eventual).await;
    assert!(
        eventual.stderr.contains("--level linearizable"),
        "{eventual:?}"
    );
    cluster.expect(0, &put).await;
    cluster.expect(0, &["lease", "revoke", &id]).await;
    cluster.expect(3, &["get", "held"]).await;
}

async fn over_in_time(cluster: &Cluster) {
    let began = Instant::now();
    let id = expect(cluster, 0, &["lease", "grant", "--ttl", "2s"]).await;
    expect(cluster, 0, &["put", "short", "v", "--lease", &id.text()]).await;
    loop {
        let asked = began.elapsed();
        let get = ["get", "short", "--keyspace", "jobs"];
        if cluster.run(&get).await.code == 3 {
            break;
        }
        assert!(asked < GONE_MAX, "it stays");
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "it went early");
}

/// What a shell runs while the lock is held.
async fn locked(cluster: &Cluster, code: i32, script: &str) -> Ran {
    let lock = ["lock", "job", "--ttl", "5s", "--wait", "30s"];
    let all = [&lock, &["--keyspace", "jobs", "--", "sh", "-c", script][..]].concat();
    cluster.expect(code, &all).await
}

async fn locks(cluster: &Cluster) {
    let put = format!("{BINARY} --keyspace jobs put state new --lock \"$QUORATE_LOCK\"");
    let token = locked(cluster, 0, &format!("{put} >&2; echo $QUORATE_LOCK"))
        .await
        .text();
    assert!(token.starts_with("job="), "{token}");
    assert_eq!(expect(cluster, 0, &["get", "state"]).await.text(), "new");
    let stale = expect(cluster, 4, &["put", "state", "old", "--lock", &token]).await;
    assert!(stale.stderr.contains("has moved on"), "{stale:?}");
    expect(cluster, 4, &["delete", "state", "--lock", &token]).await;
    assert_eq!(expect(cluster, 0, &["get", "state"]).await.text(), "new");
    locked(cluster, 7, "exit 7").await;
    expect(cluster, 3, &["get", "job"]).await;
    let next = locked(cluster, 0, "echo $QUORATE_LOCK").await.text();
    assert!(number(&next) > number(&token), "{token}, then {next}");
    // In buckets the lock and the key may lie apart: nothing could be promised.
    let create = [
        "keyspace",
        "create",
        "wide",
        "--mode",
        "strong",
        "--partitioning",
        "hash(8)",
    ];
    cluster.expect(0, &create).await;
    let mut apart = 0;
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let put = ["put", key, "v", "--lock", "job=7", "--keyspace", "wide"];
        let ran = cluster.run(&put).await;
        apart += usize::from(ran.code == 1 && ran.stderr.contains("one range"));
    }
    assert!(apart > 0, "no key lies in another range than the lock");
}

fn number(fence: &str) -> u64 {
    fence.rsplit_once('=').unwrap().1.parse().unwrap()
}

/// A leader in the background, once it is elected; and its token.
async fn elected(cluster: &Cluster, who: &str) -> (Child, String) {
    let mut command = cluster.command();
    command.args(["elect", "chief", who, "--ttl", "2s", "--keyspace", "jobs"]);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let elected = tokio::time::timeout(GONE_MAX, lines.next_line()).await;
    let token = elected.unwrap().unwrap().unwrap();
    (child, token)
}

async fn elections(cluster: &Cluster) {
    let (mut first, token) = elected(cluster, "first").await;
    assert_eq!(expect(cluster, 0, &["get", "chief"]).await.text(), "first");
    expect(cluster, 0, &["put", "plan", "1", "--lock", &token]).await;
    let other = ["elect", "chief", "other", "--wait", "0s"];
    let other = expect(cluster, 4, &other).await;
    assert!(other.stderr.contains("held by others"), "{other:?}");
    // It is killed, so nobody gives the lease back: its time must come.
    first.kill().await.unwrap();
    let (second, next) = elected(cluster, "second").await;
    assert!(number(&next) > number(&token));
    expect(cluster, 4, &["put", "plan", "stale", "--lock", &token]).await;
    expect(cluster, 0, &["put", "plan", "2", "--lock", &next]).await;
    assert_eq!(expect(cluster, 0, &["get", "plan"]).await.text(), "2");
    // Taken away by hand: what the deposed leader writes is refused all the same.
    expect(cluster, 0, &["delete", "chief"]).await;
    expect(cluster, 4, &["put", "plan", "3", "--lock", &next]).await;
    drop(second);
}
