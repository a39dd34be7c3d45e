//! Loads by etcd's API, on whatever store serves it: one client, so that only servers differ.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{Client, GetOptions, KvClient, WatchStream};
use quorate::bench::{BenchError, Connection, LoadOptions, Operation, Report, Target};
use tokio::sync::Mutex;

use crate::cell::Work;
use crate::store::{Counter, run_counted};

/// Puts one kind of load on nodes that serve etcd's API.
///
/// # Errors
///
/// A client that cannot connect, a load that fails altogether.
pub async fn load_by_etcd_api(
    endpoints: &[String],
    work: Work,
    options: &LoadOptions,
    counter: Counter,
) -> Result<Report, BenchError> {
    if work == Work::Watch {
        let target = WatchTarget(endpoints.to_vec());
        return run_counted(target, options, counter).await;
    }
    run_counted(EtcdTarget::new(endpoints, work), options, counter).await
}

fn refused(client: usize) -> impl Fn(etcd_client::Error) -> BenchError {
    move |error| BenchError::Connect {
        client,
        problem: error.to_string(),
    }
}

/// A store that etcd's clients speak to: each of them has one connection, to one node.
#[derive(Debug)]
pub struct EtcdTarget {
    endpoints: Vec<String>,
    serializable: bool,
}

impl EtcdTarget {
    /// Clients are spread over `endpoints`.
    pub fn new(endpoints: &[String], work: Work) -> Self {
        Self {
            endpoints: endpoints.to_vec(),
            serializable: work == Work::StaleGet,
        }
    }
}

/// One client.
pub struct EtcdConnection {
    client: KvClient,
    read: Option<GetOptions>,
}

impl Target for EtcdTarget {
    type Connection = EtcdConnection;

    async fn connect(&self, number: usize, _depth: usize) -> Result<EtcdConnection, BenchError> {
        let endpoint = &self.endpoints[number % self.endpoints.len()];
        let client = Client::connect([endpoint], None).await;
        Ok(EtcdConnection {
            client: client.map_err(refused(number))?.kv_client(),
            read: self
                .serializable
                .then(|| GetOptions::new().with_serializable()),
        })
    }
}

impl Connection for EtcdConnection {
    async fn perform(&self, operation: Operation) -> Result<(), String> {
        // A handle on the same connection.
        let mut client = self.client.clone();
        match operation {
            Operation::Put { key, value } => client.put(key, value, None).await.map(|_| true),
            Operation::Get { key } => {
                let got = client.get(key, self.read.clone()).await;
                got.map(|got| !got.kvs().is_empty())
            }
            Operation::Scan { start, rows } => {
                let options = GetOptions::new()
                    .with_from_key()
                    .with_limit(i64::from(rows));
                let got = client.get(start, Some(options)).await;
                got.map(|got| !got.kvs().is_empty())
            }
        }
        .map_err(|error| error.to_string())
        .and_then(|found| match found {
            true => Ok(()),
            false => Err("nothing there to read".to_owned()),
        })
    }
}

/// From a put to its event: each client writes a key of its own by one node, and watches it by the
/// next one.
#[derive(Debug)]
struct WatchTarget(Vec<String>);

/// One client. It has one request in flight, so the next event is that of its own put.
struct WatchConnection {
    client: KvClient,
    key: String,
    events: Mutex<WatchStream>,
    /// Keeps the stream's other half, and with it the watch.
    _watcher: Arc<etcd_client::WatchClient>,
}

impl Target for WatchTarget {
    type Connection = WatchConnection;

    async fn connect(&self, number: usize, _depth: usize) -> Result<WatchConnection, BenchError> {
        let Self(endpoints) = self;
        let endpoint = |number: usize| &endpoints[number % endpoints.len()];
        let client = Client::connect([endpoint(number)], None).await;
        let watching = Client::connect([endpoint(number + 1)], None).await;
        let mut watcher = watching.map_err(refused(number))?.watch_client();
        let key = format!("watched/{number}");
        let events = watcher.watch(key.clone(), None).await;
        Ok(WatchConnection {
            client: client.map_err(refused(number))?.kv_client(),
            key,
            events: Mutex::new(events.map_err(refused(number))?),
            _watcher: Arc::new(watcher),
        })
    }
}

impl Connection for WatchConnection {
    async fn perform(&self, operation: Operation) -> Result<(), String> {
        let value = match operation {
            Operation::Put { value, .. } => value,
            Operation::Get { .. } | Operation::Scan { .. } => Bytes::new(),
        };
        let mut events = self.events.lock().await;
        let mut client = self.client.clone();
        let put = client.put(self.key.clone(), value, None).await;
        let put = put.map_err(|error| error.to_string())?;
        let revision = put.header().map_or(0, |header| header.revision());
        loop {
            let message = events.message().await.map_err(|error| error.to_string())?;
            let message = message.ok_or("the watch has ended")?;
            let kvs = message.events().iter().filter_map(|event| event.kv());
            if kvs.into_iter().any(|kv| kv.mod_revision() >= revision) {
                return Ok(());
            }
        }
    }
}
