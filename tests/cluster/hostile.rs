//! What no well-meaning client does: the node stays up, serves others, and its memory is bounded.

use std::time::{Duration, Instant};

use futures::StreamExt;
use quorate_gateway::CONNECTIONS_MAX;
use quorate_proto::v1;
use quorate_proto::v1::kv_client::KvClient;
use quorate_types::limits::MESSAGE_MAX_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic_types::StatusExt;

use crate::harness::Cluster;

/// More than a node keeps.
const IDLE_CONNECTIONS: usize = 10_000;
/// Files that a node has open beside its connections.
const OTHER_FILES: usize = 500;
const PATIENCE: Duration = Duration::from_secs(30);
/// More than what a node holds for its limits; far less than what is sent.
const MEMORY_GROWTH_MAX_KIB: u64 = 200 << 10;
const VALUE_BYTES: usize = 512 << 10;
/// Gets of such values asked for and never read, 1 GiB of answers.
const UNREAD_REQUESTS: u64 = 2000;
const UNREAD_FOR: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_half_requests_and_idle_connections_harm_nobody() {
    let mut cluster = Cluster::start(1).await;
    let listen = cluster.node(1).listen;
    let before = cluster.node(1).resident_kib();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let half = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 40, 1]].concat();
    let headers = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let frame_too_large = [&preface[..], &[255; 64]].concat();
    for garbage in [vec![0; 1 << 16], headers, half.clone(), frame_too_large] {
        let mut stream = TcpStream::connect(listen).await.unwrap();
        // The node may hang up while it is being sent to.
        let _ = stream.write_all(&garbage).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        assert!(
            ended.is_ok(),
            "the node keeps a connection whose client has hung up"
        );
    }
    let mut held = Vec::new();
    for number in 0..IDLE_CONNECTIONS {
        // This process may open fewer files than that.
        let Ok(mut stream) = TcpStream::connect(listen).await else {
            break;
        };
        if number % 2 == 0 {
            // The node may have hung up.
            let _ = stream.write_all(&half).await;
        }
        held.push(stream);
    }
    assert!(held.len() > CONNECTIONS_MAX, "{} connections", held.len());
    // Who says nothing makes room for who does.
    let client = cluster.client();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = client.put("k", "v").await {
        assert!(Instant::now() < deadline, "{error}");
    }
    cluster.expect(0, &["put", "k", "v"]).await;
    cluster.expect(0, &["get", "k"]).await;
    let after = cluster.node(1).resident_kib();
    let files = cluster.node(1).open_files();
    eprintln!(
        "{} idle connections: {before} KiB before, {after} KiB with them, {files} files open",
        held.len()
    );
    assert!(files < CONNECTIONS_MAX + OTHER_FILES, "{files} files");
    assert!(
        after < before + MEMORY_GROWTH_MAX_KIB,
        "{before} to {after} KiB"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_holds_little() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client();
    client.put("large", vec![7; VALUE_BYTES]).await.unwrap();
    let before = cluster.node(1).resident_kib();
    let endpoint = format!("http://{}", cluster.node(1).listen);
    let mut kv = KvClient::connect(endpoint).await.unwrap();
    let requests = futures::stream::iter(1..=UNREAD_REQUESTS).map(large_get);
    let answers = kv
        .pipeline(requests.chain(futures::stream::pending()))
        .await;
    let unread = answers.unwrap().into_inner();
    let end = Instant::now() + UNREAD_FOR;
    let mut most = 0;
    while Instant::now() < end {
        client.put("k", "v").await.unwrap();
        most = most.max(cluster.node(1).resident_kib());
    }
    eprintln!("a client that reads nothing: {before} KiB before, at most {most} KiB");
    assert!(
        most < before + MEMORY_GROWTH_MAX_KIB,
        "{before} to {most} KiB"
    );
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_is_refused_with_both_sizes() {
    let mut cluster = Cluster::start(1).await;
    let endpoint = format!("http://{}", cluster.node(1).listen);
    let mut kv = KvClient::connect(endpoint).await.unwrap();
    let over = v1::PutRequest {
        keyspace: "default".to_owned(),
        key: bytes::Bytes::from_static(b"over"),
        value: vec![7; MESSAGE_MAX_BYTES + 1].into(),
        ..v1::PutRequest::default()
    };
    let refused = kv.put(over).await.unwrap_err();
    let limit = MESSAGE_MAX_BYTES.to_string();
    assert!(refused.message().contains(&limit), "{refused:?}");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let details = refused.get_error_details();
    let info = details
        .error_info()
        .expect("every refusal names its reason");
    assert_eq!(info.reason, "FIELD_INVALID");
    assert_eq!(info.metadata["effect"], "none");
    // The same connection goes on.
    let get = v1::GetRequest {
        keyspace: "default".to_owned(),
        key: bytes::Bytes::from_static(b"over"),
        ..v1::GetRequest::default()
    };
    assert!(!kv.get(get).await.unwrap().into_inner().found);
}

fn large_get(id: u64) -> v1::PipelineRequest {
    use v1::pipeline_request::Request;
    v1::PipelineRequest {
        id,
        request: Some(Request::Get(v1::GetRequest {
            keyspace: "default".to_owned(),
            key: bytes::Bytes::from_static(b"large"),
            ..v1::GetRequest::default()
        })),
        ..v1::PipelineRequest::default()
    }
}
