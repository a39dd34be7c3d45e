//! The gRPC and HTTP services of a node: requests of clients become proposals and reads on the
//! ranges that they mean, wherever those live, and every answer says which guarantee was met.
//!
//! Start at [`Gateway`]. The way of a request: `service_kv` or `pipeline` → `Gateway::serve`
//! (`admission`, metrics) → the operation's own file (`read`, `write`, `scan`, `batch`, `txn`,
//! `delete_prefix`, `outcome`), which validates it (`validate`, `level`) → `route`, which finds a
//! replica here or on another node → the group's log, or `stand` and the group's table → `receipt`.
//! What another gateway sent on enters at `forwarded`, and takes the same way but for being sent
//! on again.
//!
//! Not here: consensus and placement (`quorate-raft`), sockets, the clock and randomness (node
//! assembly gives them), and whatever runs in the background of a range.

// The future of a request nests: call, ladder, search, replica, barrier.
#![recursion_limit = "256"]

mod admission;
mod answer;
mod batch;
mod chase;
mod clock_watch;
mod connections;
mod context;
mod converge;
mod coordinators;
mod costs;
mod deadline;
mod delete_prefix;
mod errors;
mod etcd;
mod eventual;
mod eventual_errors;
mod explain;
mod faults;
mod forwarded;
mod gateway;
mod http;
mod keyspaces;
mod ladder;
mod lease;
mod lease_watch;
mod level;
mod merge;
mod metrics;
mod names;
mod operations;
mod outcome;
mod page_token;
mod patience;
mod pipeline;
mod plane;
mod range_page;
mod read;
mod receipt;
mod repair;
mod route;
mod scan;
mod schema;
mod seal;
mod serve;
mod service_admin;
mod service_kv;
mod service_lease;
mod session;
mod shown;
mod stand;
mod status;
mod token;
mod txn;
mod typed;
mod unary;
mod validate;
mod watch;
mod write;

pub use admission::Limits;
pub use context::{Context, Forwarded};
pub use delete_prefix::STEP_KEYS_MAX;
pub use errors::{ERROR_DOMAIN, GatewayError, status_of};
#[doc(hidden)]
pub use etcd::{EtcdOptions, serve_etcd};
pub use faults::Faults;
pub use gateway::{Gateway, GatewayOptions};
pub use http::{HTTP_CONNECTIONS_MAX, router, serve_http};
pub use metrics::{install_recorder, recorder};
pub use pipeline::{Answers, PIPELINE_ANSWER_BYTES_MAX, PIPELINE_IN_FLIGHT_MAX};
pub use plane::start_eventual;
pub use serve::{CONNECTIONS_MAX, ServeError, routes, serve_grpc};
pub use service_admin::AdminService;
pub use service_kv::KvService;
pub use service_lease::LeaseService;
pub use watch::{WATCHES_MAX, WATCHES_PER_CONNECTION_MAX, WatchService};
