//! The gRPC port: our services, health and reflection, with every limit of the transport set.
//!
//! Not here: opening sockets (node assembly does), and services of other parts, which node
//! assembly adds to the same port.

use std::time::Duration;

use axum::middleware::map_response;
use axum::response::Response as AxumResponse;
use quorate_proto::FILE_DESCRIPTOR_SET;
use quorate_proto::v1::admin_server::AdminServer;
use quorate_proto::v1::kv_server::KvServer;
use quorate_proto::v1::lease_server::LeaseServer;
use quorate_proto::v1::watch_server::WatchServer;
use quorate_types::limits::MESSAGE_MAX_BYTES;
use thiserror::Error;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::connections::Connections;
use crate::errors::GatewayError;
use crate::gateway::Gateway;
use crate::service_admin::AdminService;
use crate::service_kv::KvService;
use crate::service_lease::LeaseService;
use crate::watch::WatchService;

/// Open connections of the gRPC port.
pub const CONNECTIONS_MAX: usize = 4096;
/// Calls at the same time on one connection.
const CONNECTION_STREAMS_MAX: u32 = 4096;
/// What a client may send on one stream before we have read it.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// The same for all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes of one request's headers.
const HEADERS_MAX_BYTES: u32 = 16 << 10;
/// A client that says nothing for so long is asked whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// A client that does not answer that is gone: its streams end.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the health service learns whether the node serves.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);

/// Why the gRPC port is not served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the gRPC port is not served any more")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors of our own services cannot be read.
    #[error("the descriptors for reflection cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The descriptors of etcd's services cannot be read.
    #[error("the descriptors for etcd's JSON gateway cannot be read")]
    Descriptors(#[from] prost_reflect::DescriptorError),
}

/// All services of a gateway: `Kv`, `Admin`, `Lease`, `Watch`, health, and reflection in both versions that clients
/// ask for. Others may be added.
///
/// # Errors
///
/// [`ServeError::Reflection`].
pub fn routes(gateway: &Gateway) -> Result<Routes, ServeError> {
    let (reporter, health) = health_reporter();
    tokio::spawn(report_health(gateway.clone(), reporter));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let kv = KvServer::new(KvService::new(gateway.clone()))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let admin = AdminServer::new(AdminService::new(gateway.clone()))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let watch = WatchServer::new(WatchService::new(gateway.clone()))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let lease = LeaseServer::new(LeaseService::new(gateway.clone()))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    Ok(Routes::new(kv)
        .add_service(admin)
        .add_service(watch)
        .add_service(lease)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

/// Serves routes on a listener until `stopped`, and then until the calls in work have ended.
///
/// # Errors
///
/// [`ServeError::Transport`].
pub async fn serve_grpc(
    routes: Routes,
    listener: TcpListener,
    stopped: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let router = routes.into_axum_router();
    let routes = Routes::from(router.layer(map_response(name_refusal)));
    serve_routes("grpc", routes, false, listener, stopped).await
}

/// Serves routes as they are, over HTTP/2 and, where they are more than gRPC, over HTTP/1.1.
pub(crate) async fn serve_routes(
    port: &'static str,
    routes: Routes,
    accepts_http1: bool,
    listener: TcpListener,
    stopped: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = Connections::new(port, CONNECTIONS_MAX).limit(incoming);
    Server::builder()
        .accept_http1(accepts_http1)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_MAX_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stopped)
        .await?;
    Ok(())
}

/// A message over the limit is refused by the codec, which knows no details: they are added here,
/// as every refusal has them. Errors of our own all have details.
async fn name_refusal(response: AxumResponse) -> AxumResponse {
    let status = response.headers().get(Status::GRPC_STATUS);
    if status.is_none_or(|code| Code::from_bytes(code.as_bytes()) != Code::OutOfRange) {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) => named(status).into_http(),
        None => response,
    }
}

/// The same for a status.
pub(crate) fn named(status: Status) -> Status {
    if status.code() != Code::OutOfRange || !status.details().is_empty() {
        return status;
    }
    let problem = format!(
        "{}; at most {MESSAGE_MAX_BYTES} bytes fit, send less at a time",
        status.message()
    );
    GatewayError::field("message", problem).into()
}

/// Keeps the health service up to date, until the node stops.
async fn report_health(gateway: Gateway, reporter: HealthReporter) {
    let gateway = {
        let weak = gateway.downgrade();
        drop(gateway);
        weak
    };
    let mut serving = None;
    while let Some(gateway) = gateway.upgrade() {
        let ready = gateway.ready().is_ok();
        if serving != Some(ready) {
            set_health(&reporter, ready).await;
            serving = Some(ready);
        }
        if gateway.is_stopping() {
            return;
        }
        drop(gateway);
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}

async fn set_health(reporter: &HealthReporter, ready: bool) {
    use tonic_health::ServingStatus;
    let status = if ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    reporter.set_service_status("", status).await;
    if ready {
        reporter.set_serving::<KvServer<KvService>>().await;
        reporter.set_serving::<AdminServer<AdminService>>().await;
        reporter.set_serving::<WatchServer<WatchService>>().await;
        reporter.set_serving::<LeaseServer<LeaseService>>().await;
    } else {
        reporter.set_not_serving::<KvServer<KvService>>().await;
        reporter
            .set_not_serving::<AdminServer<AdminService>>()
            .await;
        reporter
            .set_not_serving::<WatchServer<WatchService>>()
            .await;
        reporter
            .set_not_serving::<LeaseServer<LeaseService>>()
            .await;
    }
}
