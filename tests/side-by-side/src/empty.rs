//! A call that does nothing: what a unary call costs on this machine before any store begins.

use quorate::bench::{BenchError, Connection, Operation, Target};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// The health check of gRPC servers as a target; what is asked is ignored.
#[derive(Debug)]
pub struct EmptyTarget {
    endpoints: Vec<String>,
}

/// One client.
#[derive(Debug)]
pub struct EmptyConnection(HealthClient<Channel>);

impl EmptyTarget {
    /// Clients are spread over `endpoints`, `HOST:PORT` each.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self { endpoints }
    }

    async fn channel(&self, number: usize) -> Result<Channel, tonic::transport::Error> {
        let endpoint = &self.endpoints[number % self.endpoints.len()];
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))?;
        endpoint.tcp_nodelay(true).connect().await
    }
}

impl Target for EmptyTarget {
    type Connection = EmptyConnection;

    async fn connect(&self, number: usize, _depth: usize) -> Result<EmptyConnection, BenchError> {
        match self.channel(number).await {
            Ok(channel) => Ok(EmptyConnection(HealthClient::new(channel))),
            Err(error) => Err(BenchError::Connect {
                client: number,
                problem: error.to_string(),
            }),
        }
    }
}

impl Connection for EmptyConnection {
    async fn perform(&self, _operation: Operation) -> Result<(), String> {
        let answer = self.0.clone().check(HealthCheckRequest::default()).await;
        answer.map(|_| ()).map_err(|error| error.to_string())
    }
}
