//! The port that etcd's clients connect to.

use quorate_proto::etcd::etcdserverpb::auth_server::AuthServer;
use quorate_proto::etcd::etcdserverpb::cluster_server::ClusterServer;
use quorate_proto::etcd::etcdserverpb::kv_server::KvServer;
use quorate_proto::etcd::etcdserverpb::lease_server::LeaseServer;
use quorate_proto::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use quorate_proto::etcd::etcdserverpb::watch_server::WatchServer;
use quorate_proto::etcd::v3electionpb::election_server::ElectionServer;
use quorate_proto::etcd::v3lockpb::lock_server::LockServer;
use quorate_types::limits::MESSAGE_MAX_BYTES;
use tokio::net::TcpListener;
use tonic::service::Routes;

use super::EtcdStore;
use super::cluster::{AuthService, ClusterService};
use super::election::ElectionService;
use super::json::JsonGateway;
use super::kv::KvService;
use super::lease::LeaseService;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::watch::WatchService;
use crate::gateway::Gateway;
use crate::serve::{ServeError, serve_routes};

/// What etcd's port serves.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// The keyspace.
    pub keyspace: String,
}

/// Serves etcd's clients on a listener, over gRPC and over its JSON gateway, until `stopped`, and then
/// until the calls in work have ended.
///
/// # Errors
///
/// [`ServeError::Transport`], [`ServeError::Descriptors`].
pub async fn serve_etcd(
    gateway: Gateway,
    options: EtcdOptions,
    listener: TcpListener,
    stopped: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let store = EtcdStore::new(gateway, options.keyspace);
    let kv = KvServer::new(KvService(store.clone()))
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(usize::MAX);
    let watch = WatchServer::new(WatchService(store.clone())).max_encoding_message_size(usize::MAX);
    let routes = Routes::new(kv)
        .add_service(watch)
        .add_service(LeaseServer::new(LeaseService(store.clone())))
        .add_service(LockServer::new(LockService(store.clone())))
        .add_service(ElectionServer::new(ElectionService(store.clone())))
        .add_service(ClusterServer::new(ClusterService(store.clone())))
        .add_service(MaintenanceServer::new(MaintenanceService(store.clone())))
        .add_service(AuthServer::new(AuthService(store.clone())));
    let json = JsonGateway::new(store, routes.clone())?;
    let router = routes.into_axum_router();
    let router = router.fallback(move |request| json.clone().serve(request));
    serve_routes("etcd", router.into(), true, listener, stopped).await
}
