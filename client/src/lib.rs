//! The Rust client of Quorate, a key-value store in which every request picks its own
//! consistency.
//!
//! ```no_run
//! use quorate_client::{Client, ClientOptions, ReadOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(ClientOptions {
//!     endpoints: vec!["127.0.0.1:7450".into(), "127.0.0.1:7452".into()],
//!     ..ClientOptions::default()
//! })?;
//!
//! // At the keyspace's default level, linearizable unless it was made otherwise.
//! let written = client.put("greeting", "hello").await?;
//! let got = client.get("greeting").await?;
//! assert_eq!(got.entry.map(|entry| entry.revision), Some(written.revision));
//!
//! // Any replica will do, as long as it is at most five seconds behind.
//! let options = ReadOptions {
//!     ladder: Some("bounded:5s".parse()?),
//!     ..ReadOptions::default()
//! };
//! let got = client.get_with("greeting", options).await?;
//! println!("served by node {}, {:?} old at most", got.receipt.node, got.receipt.staleness);
//! # Ok(())
//! # }
//! ```
//!
//! # Retries
//!
//! A request is tried until it is answered, cannot succeed, or its time is up: at the next
//! endpoint, after a pause that grows. Reads change nothing, and a write carries a name, the
//! same on all attempts, under which a range applies it once: so trying again is always safe.
//! What the caller gets to see is the truth about all attempts together:
//!
//! ```no_run
//! use quorate_client::{Client, OutcomeState};
//! use quorate_types::Effect;
//!
//! # async fn example(client: Client) -> Result<(), quorate_client::ClientError> {
//! match client.put("k", "v").await {
//!     Ok(written) => println!("written at revision {}", written.revision),
//!     Err(error) if error.effect() == Effect::None => println!("not written: {error}"),
//!     Err(error) => match error.handle() {
//!         // The answer was lost. The range remembers, and can be asked.
//!         Some(handle) => match client.outcome(handle).await?.state {
//!             OutcomeState::Applied { revision, .. } => println!("written at {revision}"),
//!             OutcomeState::NotApplied => println!("not written, and it never will be"),
//!             OutcomeState::TooOld => println!("nobody remembers"),
//!         },
//!         None => return Err(error),
//!     },
//! }
//! # Ok(())
//! # }
//! ```
//!
//! At eventual levels a name is known to one node only, which a retry may not reach. Puts and
//! deletes are sent again all the same, and may then be applied twice: as one more sibling, the
//! same value again, or a delete of nothing. An increment is not sent again once it may have
//! arrived: it ends with an unknown effect, and no handle to ask with.
//!
//! # Siblings, counters, sets, maps
//!
//! ```no_run
//! use quorate_client::{Client, TypedValue, WriteOptions};
//!
//! # async fn example(client: Client) -> Result<(), quorate_client::ClientError> {
//! // In a keyspace with `--conflict siblings`, the default: concurrent values are all kept,
//! // until someone who has seen them puts one in their place.
//! client
//!     .read_modify_write("title", WriteOptions::default(), |siblings| {
//!         siblings.iter().map(|one| one.value.clone()).max().unwrap_or_default()
//!     })
//!     .await?;
//!
//! // In one with `--conflict counter`.
//! let visits = client.keyspace("visits")?;
//! let updated = visits.increment("front page", 1, WriteOptions::default()).await?;
//! assert!(matches!(updated.typed, Some(TypedValue::Counter(_))));
//! # Ok(())
//! # }
//! ```
//!
//! # Conditions
//!
//! ```no_run
//! use quorate_client::{CasOutcome, Client, Expect, Operation, Txn, WriteOptions};
//!
//! # async fn example(client: Client) -> Result<(), quorate_client::ClientError> {
//! let options = WriteOptions::default();
//! match client.compare_and_set("leader", Expect::Absent, "me", options).await? {
//!     CasOutcome::Done(written) => println!("elected at {}", written.revision),
//!     CasOutcome::Refused { current, .. } => println!("it is {current:?}"),
//! }
//!
//! let txn = Txn::default()
//!     .compare("from", Expect::Value("10".into()))
//!     .then(Operation::put("from", "0"))
//!     .then(Operation::put("to", "10"))
//!     .otherwise(Operation::get("from"));
//! let outcome = client.txn(txn, WriteOptions::default()).await?;
//! println!("moved: {}", outcome.succeeded);
//! # Ok(())
//! # }
//! ```
//!
//! # Many keys
//!
//! ```no_run
//! use futures::TryStreamExt;
//! use quorate_client::{Client, ScanOptions};
//!
//! # async fn example(client: Client) -> Result<(), quorate_client::ClientError> {
//! // One snapshot, however many pages it takes.
//! let mut entries = Box::pin(client.scan_all(ScanOptions::prefix("users/")));
//! while let Some(entry) = entries.try_next().await? {
//!     println!("{:?} = {:?}", entry.key, entry.value);
//! }
//!
//! // Many requests in flight on one stream. All operations of a client are here.
//! let pipeline = client.pipeline();
//! let puts = (0..1000).map(|n| pipeline.put(format!("n/{n}"), n.to_string()));
//! futures::future::try_join_all(puts).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Leases, locks
//!
//! ```no_run
//! use std::time::Duration;
//! use quorate_client::{Client, Fenced, WriteOptions};
//!
//! # async fn example(client: Client) -> Result<(), quorate_client::ClientError> {
//! // Goes with its lease, once nobody has kept that alive for ten seconds.
//! let lease = client.grant_lease(Duration::from_secs(10), None).await?;
//! let options = WriteOptions { lease: Some(lease.id), ..WriteOptions::default() };
//! client.put_with("workers/7", "here", options).await?;
//! let mut keeper = client.keep_lease(&lease);
//!
//! // A lock is a key with a lease; its revision is the token that writes demand.
//! let (ttl, wait) = (Duration::from_secs(10), Duration::from_secs(60));
//! if let Some(lock) = client.lock("job", "me", ttl, wait).await? {
//!     match client.put_fenced(&lock.fence, "job/state", "done", WriteOptions::default()).await? {
//!         Fenced::Done { revision, .. } => println!("written at {revision}"),
//!         Fenced::MovedOn { .. } => println!("somebody else is at work"),
//!     }
//!     lock.unlock().await?;
//! }
//! println!("{}", keeper.lost().await);
//! # Ok(())
//! # }
//! ```
//!
//! # Sessions
//!
//! ```no_run
//! # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::ClientError> {
//! let mut session = client.session();
//! session.put("k", "mine").await?;
//! // By any replica that has caught up with this session: its own writes are there.
//! let got = session.get("k").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Watches
//!
//! ```no_run
//! # use quorate_client::WatchOptions;
//! # async fn example(client: quorate_client::Client) -> Result<(), quorate_client::ClientError> {
//! // From now on, over lost connections, gateways and leaders: each event once and in order.
//! let mut watch = client.watch(WatchOptions::prefix("config/")).await?;
//! loop {
//!     let event = watch.next().await?;
//!     println!("{:?} {:?} = {:?}", event.kind, event.entry.key, event.entry.value);
//! }
//! # }
//! ```
//!
//! # Configuration, flags, and reading when nothing answers
//!
//! ```no_run
//! use quorate_client::Client;
//! use quorate_client::cached::CachedOptions;
//! use quorate_client::flags::{EvaluationContext, FlagsOptions};
//!
//! # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
//! // Many keys change in one step, which can be gone back to.
//! let config = client.config("app")?;
//! let bundle = [("db/host".into(), "h".into()), ("db/port".into(), "5432".into())];
//! let plan = config.plan(bundle.into(), false).await?;
//! let made = config.apply(&plan, "me", "why").await?;
//! println!("step {} at revision {}", made.step.number, made.revision);
//!
//! // From servers, or else from a copy that is at most ten minutes old; the receipt says so.
//! let options = CachedOptions { prefix: "app/".into(), folder: Some("cache".into()) };
//! let copy = client.cached(options).await?;
//! let state = copy.read(&"linearizable@200ms > cached:10m".parse()?).await?;
//! println!("{} keys, from a copy: {:?}", state.entries.len(), state.receipt.cached_age);
//!
//! // Evaluated here, without a round trip.
//! let flags = client.flags(FlagsOptions::default()).await?;
//! println!("{}", flags.boolean("new-checkout", false, &EvaluationContext::of("user-7")));
//! # Ok(())
//! # }
//! ```
//!
//! What is *not* here: anything that runs on a node, and the meaning of levels
//! (`quorate-types`).

mod admin;
mod answer;
mod attempts;
pub mod cached;
mod client;
pub mod config;
mod endpoints;
mod environment;
mod error;
mod failure;
pub mod flags;
mod identity;
mod lane;
mod leases;
mod level;
pub mod limits;
mod locks;
mod operation;
mod options;
mod partial;
mod pipeline;
mod reads;
mod request;
mod retry;
mod routes;
mod scans;
mod session;
mod typed;
mod unary;
mod updates;
mod watch;
mod writes;

pub use admin::{Admin, KeyspaceChange};
pub use answer::{
    BatchDone, CasOutcome, Deleted, Entry, Got, History, HistoryEntry, Micros, OperationDone,
    Outcome, OutcomeState, Receipt, Role, ScanPage, TxnOutcome, Updated, Written,
};
pub use client::Client;
pub use error::{ClientError, Fate, FieldViolation, LostError, ServerError};
pub use leases::{Granted, LeaseKeeper, LeaseLost, LeaseShown, Revoked};
pub use level::level_from_wire;
pub use locks::{Fence, Fenced, HeldLock};
pub use operation::{Compare, Expect, Operation, Txn};
pub use options::{ClientOptions, ReadOptions, ScanOptions, WriteOptions};
pub use pipeline::Pipeline;
pub use request::{Request, Response};
pub use session::{SESSION_BEGIN, Session};
pub use tonic::Code;
pub use typed::{Change, FieldValue, TypedValue};
pub use watch::{
    PROGRESS_INTERVAL_DEFAULT, Watch, WatchBatch, WatchEvent, WatchKind, WatchOptions,
    WatchPosition, WatchState,
};
pub use writes::PrefixDelete;
