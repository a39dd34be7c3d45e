//! Over real sockets: statuses with their details, health, garbage, messages that are too large,
//! the HTTP pages.

use std::time::Duration;

use quorate_gateway::{Limits, recorder, router, routes, serve_grpc};
use quorate_proto::v1;
use quorate_proto::v1::admin_client::AdminClient;
use quorate_proto::v1::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use crate::world::{PATIENCE, World, get, hashed};

async fn served(world: &World, node: usize) -> (std::net::SocketAddr, Channel) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = routes(&world.gateways[node]).unwrap();
    tokio::spawn(serve_grpc(routes, listener, std::future::pending()));
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    (address, channel.connect().await.unwrap())
}

fn put(value: Vec<u8>) -> v1::PutRequest {
    v1::PutRequest {
        keyspace: "default".to_owned(),
        key: "k".into(),
        value: value.into(),
        ..Default::default()
    }
}

#[test]
fn clients_on_the_wire() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::start(51, Limits::default()).await;
        let (address, channel) = served(&world, 0).await;
        let mut kv = KvClient::new(channel.clone());
        kv.put(put(b"v".to_vec())).await.unwrap();
        let got = kv.get(get("default", "k")).await.unwrap().into_inner();
        assert_eq!(got.entry.unwrap().value, "v");
        errors_carry_details(&mut kv).await;
        garbage_does_no_harm(address).await;
        assert!(kv.get(get("default", "k")).await.is_ok());
        operators_see_the_cluster(channel.clone()).await;
        health_is_told(channel).await;
        pages_are_served(&world).await;
    });
}

async fn errors_carry_details(kv: &mut KvClient<Channel>) {
    let status = kv.get(get("nowhere", "k")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "KEYSPACE_NOT_FOUND");
    assert_eq!(info.metadata["effect"], "none");
    assert_eq!(info.metadata["keyspace"], "nowhere");

    let status = kv.put(put(vec![0; 2 << 20])).await.unwrap_err();
    let details = status.get_error_details();
    assert_eq!(
        details.bad_request().unwrap().field_violations[0].field,
        "value"
    );

    let mut strange = Request::new(get("default", "k"));
    strange
        .metadata_mut()
        .insert("grpc-timeout", "-1S".parse().unwrap());
    let status = kv.get(strange).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut long = Request::new(get("default", "k"));
    long.metadata_mut()
        .insert("grpc-timeout", "99999999H".parse().unwrap());
    assert!(kv.get(long).await.unwrap_err().message().contains("3600 s"));

    let status = kv.put(put(vec![0; 25 << 20])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "message");
    assert_eq!(details.error_info().unwrap().metadata["effect"], "none");
}

/// Whatever is sent, the port stays open for others.
async fn garbage_does_no_harm(address: std::net::SocketAddr) {
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        // The server may close at once.
        let _ = socket.write_all(garbage).await;
        let mut answer = [0; 1024];
        let reading = socket.read(&mut answer);
        let _ = tokio::time::timeout(Duration::from_millis(200), reading).await;
    }
}

async fn operators_see_the_cluster(channel: Channel) {
    let mut admin = AdminClient::new(channel);
    let made = admin
        .create_keyspace(v1::CreateKeyspaceRequest {
            name: "spread".to_owned(),
            options: Some(hashed(4)),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(made.keyspace.unwrap().ranges.len(), 4);
    let status = admin
        .status(v1::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(status.nodes.len(), 4);
    assert!(status.nodes.iter().all(|node| node.reachable));
    let request = v1::RangesRequest {
        keyspace: "spread".to_owned(),
        hash: true,
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let ranges = loop {
        let ranges = admin
            .ranges(request.clone())
            .await
            .unwrap()
            .into_inner()
            .ranges;
        if ranges.iter().all(|range| range.leader > 0) {
            break ranges;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "ranges without leaders: {ranges:?}"
        );
    };
    assert_eq!(ranges.len(), 4);
    for range in &ranges {
        assert_eq!(range.replicas.len(), 3);
        assert!(
            range
                .replicas
                .iter()
                .all(|replica| !replica.hash.is_empty())
        );
    }
    let ring = admin.ring(v1::RingRequest {}).await.unwrap().into_inner();
    let share: f64 = ring.shares.iter().map(|share| share.share).sum();
    assert!((share - 1.0).abs() < 0.01);
    let gone = v1::ReplaceNodeRequest { node: 9, with: 0 };
    let mut steps = admin.replace_node(gone).await.unwrap().into_inner();
    assert_eq!(
        steps.message().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

async fn health_is_told(channel: Channel) {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    let mut health = HealthClient::new(channel);
    for service in ["", "quorate.v1.Kv", "quorate.v1.Admin"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
}

async fn page(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).await.unwrap();
    page
}

async fn pages_are_served(world: &World) {
    // Of this thread: other tests count on theirs.
    let recorder = recorder().unwrap();
    let pages = recorder.handle();
    let _counted_here = metrics::set_default_local_recorder(&recorder);
    world.put(1, "default", "k", "v").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = router(world.gateways[1].clone(), pages);
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert!(page(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(page(address, "/debug/ranges").await.contains("\"applied\""));
    let metrics = page(address, "/metrics").await;
    let counted = r#"quorate_gateway_requests_total{op="put",level="linearizable",code="OK"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains("quorate_gateway_request_seconds_bucket"));
    world.gateways[1].stop();
    assert!(page(address, "/readyz").await.starts_with("HTTP/1.1 503"));
}
