//! A small HTTP/1.1 client to one address: connections are kept and used again, one request at a
//! time on each. No TLS, no redirects, no retries: the lab talks to its own nodes.

use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use thiserror::Error;
use tokio::net::TcpStream;

/// Longest answer that is read.
const ANSWER_MAX_BYTES: usize = 16 << 20;
/// Connections that wait for the next request.
const IDLE_MAX: usize = 64;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum HttpError {
    /// Nobody listens.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The connection broke, or it is not HTTP.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The answer is too long, or was cut off.
    #[error("the answer cannot be read: {0}")]
    Body(String),
    /// The request cannot be written.
    #[error("no such request")]
    Request(#[source] hyper::http::Error),
    /// It answered, with another status than 200.
    #[error("status {status}: {body}")]
    Status {
        /// The status.
        status: u16,
        /// What it said beside it.
        body: String,
    },
}

/// A way to one address.
pub(super) struct Http {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Http {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Mutex::default(),
        }
    }

    /// The text of a page.
    pub(super) async fn get(&self, path: &str) -> Result<String, HttpError> {
        let answer = self.send(Method::GET, path, Bytes::new()).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// What a call with JSON answers.
    pub(super) async fn post(&self, path: &str, asked: &Json) -> Result<Json, HttpError> {
        let answer = self.send(Method::POST, path, asked.to_string().into());
        serde_json::from_slice(&answer.await?).map_err(|error| HttpError::Body(error.to_string()))
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().expect("nobody panics with it");
        // What was closed meanwhile is no longer ready.
        idle.retain(SendRequest::is_ready);
        idle.pop()
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>, HttpError> {
        if let Some(idle) = self.take_idle() {
            return Ok(idle);
        }
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(HttpError::Connect)?;
        // Without it small messages wait for company, which is only slow.
        let _ = stream.set_nodelay(true);
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, driver) = shaken.map_err(HttpError::Broken)?;
        // It ends with its sender; what breaks it, the sender tells.
        tokio::spawn(async move {
            let _ = driver.await;
        });
        Ok(sender)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, HttpError> {
        let mut sender = self.connection().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(HttpError::Request)?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(HttpError::Broken)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect();
        let body = body
            .await
            .map_err(|error| HttpError::Body(error.to_string()))?;
        let body = body.to_bytes();
        // It is ready again once the driver has seen the end of the answer.
        if sender.ready().await.is_ok() {
            let mut idle = self.idle.lock().expect("nobody panics with it");
            if idle.len() < IDLE_MAX {
                idle.push(sender);
            }
        }
        match status {
            200 => Ok(body),
            status => Err(HttpError::Status {
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_used_again_and_another_status_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = Http::new(listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            // One connection alone: a second one would never be taken.
            let (mut stream, _) = listener.accept().await.unwrap();
            let answers = [
                "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}",
                "HTTP/1.1 503 Away\r\ntransfer-encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nx 1\n",
            ];
            let mut asked = Vec::new();
            for answer in answers {
                let mut buffer = vec![0; 4096];
                let read = stream.read(&mut buffer).await.unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let json = http.post("/v3/kv/put", &serde_json::json!({"k": 1})).await;
        assert_eq!(json.unwrap()["a"], 1);
        let error = http.get("/away").await.unwrap_err();
        assert_eq!(error.to_string(), "status 503: no");
        assert_eq!(http.get("/metrics").await.unwrap(), "x 1\n");
        let asked = serving.await.unwrap();
        assert!(
            asked[0].starts_with("POST /v3/kv/put HTTP/1.1\r\n"),
            "{asked:?}"
        );
        assert!(asked[0].ends_with("{\"k\":1}"), "{asked:?}");
    }
}
