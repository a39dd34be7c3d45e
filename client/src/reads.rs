//! The operations that read: one key, its history, what became of a write.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::{RequestHandle, Revision};

use crate::answer::{Got, History, Outcome, Receipt, outcome, receipt};
use crate::attempts::Call;
use crate::client::Client;
use crate::error::ClientError;
use crate::options::ReadOptions;
use crate::request::{Request, Response};

impl Client {
    /// Reads a key at the keyspace's default level.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]. A key that is not there is no error.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Got, ClientError> {
        self.get_with(key, ReadOptions::default()).await
    }

    /// Reads a key.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); reason `REVISION_COLLECTED` or `REVISION_FUTURE` if
    /// [`at`](ReadOptions::at) cannot be read.
    pub async fn get_with(
        &self,
        key: impl Into<Bytes>,
        options: ReadOptions,
    ) -> Result<Got, ClientError> {
        let request = Request::Get(v1::GetRequest {
            keyspace: self.keyspace.to_string(),
            key: key.into(),
            consistency: options.consistency()?,
            at_revision: options.at.unwrap_or(Revision::ZERO).0,
        });
        match self.run(request, Call::read(options.timeout)).await? {
            Response::Get(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of a get")),
        }
    }

    /// The versions of a key, newest first, as far as they are kept.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn history(&self, key: impl Into<Bytes>) -> Result<History, ClientError> {
        self.history_with(key, 0, ReadOptions::default()).await
    }

    /// The newest `limit` versions of a key; 0: as many as the server gives.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn history_with(
        &self,
        key: impl Into<Bytes>,
        limit: u32,
        options: ReadOptions,
    ) -> Result<History, ClientError> {
        let request = Request::History(v1::HistoryRequest {
            keyspace: self.keyspace.to_string(),
            key: key.into(),
            limit,
            consistency: options.consistency()?,
        });
        match self.run(request, Call::read(options.timeout)).await? {
            Response::History(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of a history")),
        }
    }

    /// Waits until all primaries hold all that a session has read and written (in keyspaces of mode
    /// mixed: until their logs have decided it), for as long as the request may take. The receipt
    /// names the primaries, and has the session's token, which is shorter then.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get); reason `NOT_CONVERGED` says who lacks what.
    pub async fn await_converged(
        &self,
        token: impl Into<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<Receipt, ClientError> {
        let named = v1::AwaitConvergedRequest {
            keyspace: self.keyspace.to_string(),
            session_token: token.into(),
            ..v1::AwaitConvergedRequest::default()
        };
        self.converged(named, timeout).await
    }

    /// As [`await_converged`](Self::await_converged), of what a reader of a key has seen, by the
    /// context of its receipt.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn await_key_converged(
        &self,
        key: impl Into<Bytes>,
        context: impl Into<Bytes>,
        timeout: Option<Duration>,
    ) -> Result<Receipt, ClientError> {
        let named = v1::AwaitConvergedRequest {
            keyspace: self.keyspace.to_string(),
            key: key.into(),
            context: context.into(),
            ..v1::AwaitConvergedRequest::default()
        };
        self.converged(named, timeout).await
    }

    async fn converged(
        &self,
        named: v1::AwaitConvergedRequest,
        timeout: Option<Duration>,
    ) -> Result<Receipt, ClientError> {
        let call = Call::read(timeout);
        match self.run(Request::AwaitConverged(named), call).await? {
            Response::AwaitConverged(done) => Ok(receipt(done.receipt)),
            _ => Err(ClientError::malformed("that of a wait")),
        }
    }

    /// What became of a write whose answer was lost. If it was not applied, its id is
    /// closed, so that it never will be.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn outcome(&self, handle: RequestHandle) -> Result<Outcome, ClientError> {
        let request = Request::Outcome(v1::OutcomeRequest {
            handle: handle.to_string(),
        });
        match self.run(request, Call::default()).await? {
            Response::Outcome(answer) => {
                outcome(answer).ok_or_else(|| ClientError::malformed("a known outcome"))
            }
            _ => Err(ClientError::malformed("an outcome")),
        }
    }
}
