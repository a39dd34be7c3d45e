//! Quorate as a target: the client library, by unary calls or by one stream for each client.

use quorate_client::{Client, ClientError, ClientOptions, ReadOptions, ScanOptions, WriteOptions};
use quorate_types::Ladder;

use super::BenchError;
use super::target::{Connection, Operation, Target};

/// A cluster of Quorate under load.
#[derive(Clone, Debug)]
pub struct QuorateTarget {
    /// How each client connects.
    pub client: ClientOptions,
    /// The level of reads; none: the keyspace's default.
    pub read: Option<Ladder>,
    /// The level of writes; none: the keyspace's default.
    pub write: Option<Ladder>,
    /// Whether each request of a strong level has the log take in first what a majority of
    /// primaries holds.
    pub fence: bool,
}

/// One client of the load.
#[derive(Debug)]
pub struct QuorateConnection {
    client: Client,
    read: ReadOptions,
    write: WriteOptions,
}

impl Target for QuorateTarget {
    type Connection = QuorateConnection;

    async fn connect(&self, number: usize, depth: usize) -> Result<QuorateConnection, BenchError> {
        let mut options = self.client.clone();
        // Clients begin at different nodes, as those of different machines would.
        let nodes = options.endpoints.len().max(1);
        options.endpoints.rotate_left(number % nodes);
        let client = Client::connect(options).map_err(|error| BenchError::Connect {
            client: number,
            problem: error.to_string(),
        })?;
        Ok(QuorateConnection {
            client: match depth {
                0 | 1 => client,
                _ => Client::clone(&client.pipeline()),
            },
            read: ReadOptions {
                ladder: self.read.clone(),
                fence: self.fence,
                ..ReadOptions::default()
            },
            write: WriteOptions {
                ladder: self.write.clone(),
                fence: self.fence,
                ..WriteOptions::default()
            },
        })
    }
}

impl QuorateConnection {
    async fn ask(&self, operation: Operation) -> Result<bool, ClientError> {
        match operation {
            Operation::Put { key, value } => {
                let written = self.client.put_with(key, value, self.write.clone());
                written.await.map(|_| true)
            }
            Operation::Get { key } => {
                let got = self.client.get_with(key, self.read.clone()).await?;
                Ok(got.entry.is_some())
            }
            Operation::Scan { start, rows } => {
                let options = ScanOptions {
                    start,
                    limit: rows,
                    read: self.read.clone(),
                    ..ScanOptions::default()
                };
                let page = self.client.scan(options).await?;
                Ok(!page.entries.is_empty())
            }
        }
    }
}

impl Connection for QuorateConnection {
    async fn perform(&self, operation: Operation) -> Result<(), String> {
        match self.ask(operation).await {
            Ok(true) => Ok(()),
            Ok(false) => Err("nothing there to read (`--load always` writes the keys)".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
