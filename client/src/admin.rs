//! The operator's side: keyspaces, nodes, ranges, the ring. Answers are the messages of
//! `quorate.v1` as they travel.
//!
//! These requests carry no name, so those that change something are sent again only where
//! the attempt before surely did nothing.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::options::{quota_to_wire, to_wire};
use quorate_proto::v1;
use quorate_proto::v1::admin_client::AdminClient;
use quorate_types::{Effect, KeyspaceOptions, PrefixQuota, validate_keyspace_name};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::client::Client;
use crate::endpoints::Visited;
use crate::environment;
use crate::error::{ClientError, Fate, LostError};
use crate::failure::Failure;
use crate::limits::{BACKOFF_MAX, RETRY_TIME_MIN};
use crate::retry::{Course, Next};

/// What of a keyspace can be changed; none: stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceChange {
    /// How long superseded versions are kept.
    pub history: Option<Duration>,
    /// Zero: no expiry.
    pub ttl: Option<Duration>,
    /// Longest key.
    pub key_max_bytes: Option<u32>,
    /// Longest value.
    pub value_max_bytes: Option<u32>,
    /// 0: no quota.
    pub quota_bytes: Option<u64>,
    /// JSON Schemas by the prefix of the keys that they are for; an empty one is dropped.
    pub schemas: Vec<(String, String)>,
    /// What keys of a prefix may take, by the prefix; one without limits is dropped.
    pub quotas: Vec<(String, PrefixQuota)>,
}

/// The operator's side of a [`Client`].
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

/// Whether a request may be sent again after its answer was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Freely,
    IfUndone,
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes a keyspace.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `KEYSPACE_EXISTS`, `FIELD_INVALID`.
    pub async fn create_keyspace(
        &self,
        name: &str,
        options: &KeyspaceOptions,
    ) -> Result<v1::Keyspace, ClientError> {
        validate_keyspace_name(name)?;
        options.validate()?;
        let request = v1::CreateKeyspaceRequest {
            name: name.to_owned(),
            options: Some(to_wire(options)),
        };
        let answer = self
            .ask(Repeat::IfUndone, request, async |mut admin, request| {
                admin.create_keyspace(request).await
            })
            .await?;
        answer
            .keyspace
            .ok_or_else(|| ClientError::malformed("a keyspace"))
    }

    /// Changes a keyspace.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `KEYSPACE_NOT_FOUND`, `FIELD_INVALID`.
    pub async fn alter_keyspace(
        &self,
        name: &str,
        change: KeyspaceChange,
    ) -> Result<v1::Keyspace, ClientError> {
        validate_keyspace_name(name)?;
        let request = v1::AlterKeyspaceRequest {
            name: name.to_owned(),
            options: Some(change_to_wire(change)),
        };
        // Setting the same options twice is setting them once.
        let answer = self
            .ask(Repeat::Freely, request, async |mut admin, request| {
                admin.alter_keyspace(request).await
            })
            .await?;
        answer
            .keyspace
            .ok_or_else(|| ClientError::malformed("a keyspace"))
    }

    /// Drops a keyspace with all that is in it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]; reason `KEYSPACE_NOT_FOUND`.
    pub async fn drop_keyspace(&self, name: &str) -> Result<(), ClientError> {
        validate_keyspace_name(name)?;
        let request = v1::DropKeyspaceRequest {
            name: name.to_owned(),
        };
        self.ask(Repeat::IfUndone, request, async |mut admin, request| {
            admin.drop_keyspace(request).await
        })
        .await
        .map(|_| ())
    }

    /// All keyspaces.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn list_keyspaces(&self) -> Result<Vec<v1::Keyspace>, ClientError> {
        self.keyspaces_named(String::new()).await
    }

    /// One keyspace; none if there is none of that name.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn keyspace(&self, name: &str) -> Result<Option<v1::Keyspace>, ClientError> {
        validate_keyspace_name(name)?;
        let found = self.keyspaces_named(name.to_owned()).await?;
        Ok(found.into_iter().find(|keyspace| keyspace.name == name))
    }

    async fn keyspaces_named(&self, name: String) -> Result<Vec<v1::Keyspace>, ClientError> {
        let request = v1::ListKeyspacesRequest { name };
        self.ask(Repeat::Freely, request, async |mut admin, request| {
            admin.list_keyspaces(request).await
        })
        .await
        .map(|answer| answer.keyspaces)
    }

    /// The nodes, as the one that answers sees them.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<v1::StatusResponse, ClientError> {
        let request = v1::StatusRequest {};
        self.ask(Repeat::Freely, request, async |mut admin, request| {
            admin.status(request).await
        })
        .await
    }

    /// The ranges of a keyspace, of all keyspaces if `keyspace` is empty. `hash` has each
    /// replica hash its state, which reads all of it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn ranges(
        &self,
        keyspace: &str,
        hash: bool,
    ) -> Result<Vec<v1::RangeStatus>, ClientError> {
        let request = v1::RangesRequest {
            keyspace: keyspace.to_owned(),
            hash,
        };
        self.ask(Repeat::Freely, request, async |mut admin, request| {
            admin.ranges(request).await
        })
        .await
        .map(|answer| answer.ranges)
    }

    /// Each node's share of the ring.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn ring(&self) -> Result<Vec<v1::RingShare>, ClientError> {
        let request = v1::RingRequest {};
        self.ask(Repeat::Freely, request, async |mut admin, request| {
            admin.ring(request).await
        })
        .await
        .map(|answer| answer.shares)
    }

    /// Has the node that answers hand the ranges that it leads to others.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]. If its answer was lost, it may have handed over, or some of it.
    pub async fn hand_over(&self) -> Result<v1::HandOverResponse, ClientError> {
        let request = v1::HandOverRequest {};
        self.ask(Repeat::IfUndone, request, async |mut admin, request| {
            admin.hand_over(request).await
        })
        .await
    }

    /// What each level would get now for a key, or, without one, for the worst range of a
    /// keyspace: as the node that answers sees it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn explain(
        &self,
        keyspace: &str,
        key: Option<Bytes>,
    ) -> Result<v1::ExplainResponse, ClientError> {
        let request = v1::ExplainRequest {
            keyspace: keyspace.to_owned(),
            key,
        };
        self.ask(Repeat::Freely, request, async |mut admin, request| {
            admin.explain(request).await
        })
        .await
    }

    /// Puts `with` (0: the one registered node without ranges) in the place of the lost
    /// `node`. Calls `progress` with each step, and returns the last one.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]. If it breaks off in the middle, the same call takes it up again.
    pub async fn replace_node(
        &self,
        node: u64,
        with: u64,
        mut progress: impl FnMut(&v1::ReplaceNodeProgress),
    ) -> Result<Option<v1::ReplaceNodeProgress>, ClientError> {
        let request = v1::ReplaceNodeRequest { node, with };
        let mut steps: Streaming<v1::ReplaceNodeProgress> = self
            .ask(Repeat::IfUndone, request, async |mut admin, request| {
                admin.replace_node(request).await
            })
            .await?;
        let mut last = None;
        loop {
            match steps.message().await {
                Ok(Some(step)) => {
                    progress(&step);
                    last = Some(step);
                }
                Ok(None) => return Ok(last),
                Err(status) => {
                    let failure = Failure::from_status(&status);
                    return Err(self.told(failure, Instant::now(), 1, true));
                }
            }
        }
    }

    /// Compares the replicas of the eventual plane of `keyspace` (empty: of all) now. Calls
    /// `progress` after each range.
    ///
    /// # Errors
    ///
    /// See [`ClientError`]. If it breaks off in the middle, what was mended stays.
    pub async fn repair(
        &self,
        keyspace: &str,
        mut progress: impl FnMut(&v1::RepairProgress),
    ) -> Result<(), ClientError> {
        let request = v1::RepairRequest {
            keyspace: keyspace.to_owned(),
        };
        let mut steps: Streaming<v1::RepairProgress> = self
            .ask(Repeat::Freely, request, async |mut admin, request| {
                admin.repair(request).await
            })
            .await?;
        loop {
            match steps.message().await {
                Ok(Some(step)) => progress(&step),
                Ok(None) => return Ok(()),
                Err(status) => {
                    let failure = Failure::from_status(&status);
                    return Err(self.told(failure, Instant::now(), 1, false));
                }
            }
        }
    }

    /// Sends a request to one endpoint after the other, until one answers.
    async fn ask<Q, A, F>(&self, repeat: Repeat, request: Q, send: F) -> Result<A, ClientError>
    where
        Q: Clone,
        F: AsyncFn(AdminClient<Channel>, Request<Q>) -> Result<Response<A>, Status>,
    {
        let shared = &self.client.shared;
        let started = Instant::now();
        let mut visited = Visited::default();
        let mut course = Course::default();
        loop {
            let left = shared.timeout.saturating_sub(started.elapsed());
            let index = shared.endpoints.pick(None, visited);
            visited.add(index);
            let mut call = Request::new(request.clone());
            call.set_timeout(left);
            let sent = send(shared.endpoints.get(index).admin(), call);
            let failure = match within(left, sent).await {
                Ok(answer) => {
                    shared.endpoints.is_well(index);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let untried = visited.leaves_any_of(shared.endpoints.len());
            let next = course.after(&failure, untried, false);
            let is_safe = repeat == Repeat::Freely || failure.effect() == Effect::None;
            let left = shared.timeout.saturating_sub(started.elapsed());
            match next {
                Next::Retry {
                    pause,
                    rest_endpoint,
                } if is_safe && shared.retries && pause + RETRY_TIME_MIN < left => {
                    if rest_endpoint {
                        shared.endpoints.rest(index);
                    }
                    tokio::time::sleep(environment::jittered(pause)).await;
                }
                Next::Retry { .. } | Next::Rename | Next::GiveUp => {
                    let changes = repeat == Repeat::IfUndone;
                    return Err(self.told(failure, started, course.failures, changes));
                }
            }
            if !untried {
                visited = Visited::default();
            }
        }
    }

    /// A failure as callers see it.
    fn told(
        &self,
        failure: Failure,
        started: Instant,
        attempts: u32,
        changes: bool,
    ) -> ClientError {
        let fate = Fate {
            effect: if changes {
                failure.effect()
            } else {
                Effect::None
            },
            attempts,
            ..Fate::UNTOUCHED
        };
        match failure {
            Failure::Refused(mut error) => {
                error.fate = fate;
                ClientError::Server(error)
            }
            Failure::NotSent { problem } | Failure::Lost { problem, .. } => {
                let waited = started.elapsed();
                ClientError::Lost(Box::new(LostError {
                    timed_out: waited + RETRY_TIME_MIN + BACKOFF_MAX >= self.client.shared.timeout,
                    waited,
                    problem,
                    endpoints: self.client.shared.endpoints.addresses(),
                    fate,
                }))
            }
        }
    }
}

async fn within<A>(
    timeout: Duration,
    sent: impl Future<Output = Result<Response<A>, Status>>,
) -> Result<A, Failure> {
    match tokio::time::timeout(timeout, sent).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Failure::from_status(&status)),
        Err(_) => Err(Failure::Lost {
            problem: format!("no answer within {timeout:?}"),
            timed_out: true,
        }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn schemas_to_wire(schemas: impl IntoIterator<Item = (String, String)>) -> Vec<v1::PrefixSchema> {
    let schemas = schemas.into_iter();
    schemas
        .map(|(prefix, schema)| v1::PrefixSchema { prefix, schema })
        .collect()
}

fn change_to_wire(change: KeyspaceChange) -> v1::KeyspaceOptions {
    v1::KeyspaceOptions {
        history_ms: change.history.map(millis),
        ttl_ms: change.ttl.map(millis),
        key_max_bytes: change.key_max_bytes,
        value_max_bytes: change.value_max_bytes,
        quota_bytes: change.quota_bytes,
        schemas: schemas_to_wire(change.schemas),
        quotas: change
            .quotas
            .iter()
            .map(|(prefix, quota)| quota_to_wire((prefix, quota)))
            .collect(),
        ..v1::KeyspaceOptions::default()
    }
}
