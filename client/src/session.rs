//! Sessions: requests that carry a token of what they have read and written, so that each
//! sees at least what those before it saw.

use bytes::Bytes;
use quorate_types::{Ladder, Level};

use crate::answer::{CasOutcome, Deleted, Got, Receipt, Written};
use crate::client::Client;
use crate::error::ClientError;
use crate::operation::Expect;
use crate::options::{ReadOptions, WriteOptions};

/// The token with which a session begins: nothing seen yet.
pub const SESSION_BEGIN: Bytes = Bytes::from_static(&[0]);

/// A client that remembers its session token. Requests of one session follow each other
/// (`&mut self`): two tokens cannot be joined by a client.
#[derive(Debug)]
pub struct Session {
    client: Client,
    token: Bytes,
}

impl Session {
    /// A session that has seen nothing yet.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            token: SESSION_BEGIN,
        }
    }

    /// Goes on where an earlier session ended.
    #[must_use]
    pub fn resume(mut self, token: impl Into<Bytes>) -> Self {
        self.token = token.into();
        self
    }

    /// What this session has seen, to be kept for later.
    pub fn token(&self) -> &Bytes {
        &self.token
    }

    /// Reads a key, no older than what this session has seen.
    ///
    /// # Errors
    ///
    /// As [`Client::get`]; reason `NOT_CAUGHT_UP` if no reachable replica is that far.
    pub async fn get(&mut self, key: impl Into<Bytes>) -> Result<Got, ClientError> {
        let options = ReadOptions {
            ladder: Some(Ladder::from(Level::Session)),
            ..ReadOptions::default()
        };
        self.get_with(key, options).await
    }

    /// Reads a key at a level of the caller's, and adds it to what this session has seen.
    ///
    /// # Errors
    ///
    /// As [`Client::get`].
    pub async fn get_with(
        &mut self,
        key: impl Into<Bytes>,
        options: ReadOptions,
    ) -> Result<Got, ClientError> {
        let options = ReadOptions {
            token: self.token.clone(),
            ..options
        };
        let got = self.client.get_with(key, options).await?;
        self.remember(&got.receipt);
        Ok(got)
    }

    /// Writes a key.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn put(
        &mut self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, ClientError> {
        let options = self.write_options();
        let written = self.client.put_with(key, value, options).await?;
        self.remember(&written.receipt);
        Ok(written)
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn delete(&mut self, key: impl Into<Bytes>) -> Result<Deleted, ClientError> {
        let options = self.write_options();
        let deleted = self.client.delete_with(key, options).await?;
        self.remember(&deleted.receipt);
        Ok(deleted)
    }

    /// Writes a key if its present state is as expected.
    ///
    /// # Errors
    ///
    /// As [`Client::compare_and_set`].
    pub async fn compare_and_set(
        &mut self,
        key: impl Into<Bytes>,
        expect: Expect,
        value: impl Into<Bytes>,
    ) -> Result<CasOutcome, ClientError> {
        let options = self.write_options();
        let outcome = self
            .client
            .compare_and_set(key, expect, value, options)
            .await?;
        match &outcome {
            CasOutcome::Done(written) => self.remember(&written.receipt),
            CasOutcome::Refused { receipt, .. } => self.remember(receipt),
        }
        Ok(outcome)
    }

    /// Adds a receipt of a request that carried this session's token.
    pub fn remember(&mut self, receipt: &Receipt) {
        if !receipt.session_token.is_empty() {
            self.token = receipt.session_token.clone();
        }
    }

    fn write_options(&self) -> WriteOptions {
        WriteOptions {
            token: self.token.clone(),
            ..WriteOptions::default()
        }
    }
}
