//! Waiting until all primaries hold what a session or a context names, and, beside a log, that has
//! decided it on each of them.
//!
//! Nothing is moved here: spreading, hints, repair and absorption do that by themselves.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use quorate_eventual::EventualError;
use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use quorate_raft::{KeyspaceView, RangeView};
use quorate_types::causal::{Context as Sealed, Dots};
use quorate_types::{Mode, NodeId, RangeId, Revision};
use tokio::time::Instant;

use crate::context::Context;
use crate::errors::{GatewayError, Lack};
use crate::eventual::Place;
use crate::gateway::{Gateway, keyspace};
use crate::session::{Session, in_words};
use crate::token::Seen;
use crate::validate;

/// Replicas that are asked at the same time.
const ASKED_MAX: usize = 64;
/// A replica is given this long before it says what it lacks.
const HERE_MAX: Duration = Duration::from_millis(500);
/// Before a replica looks again at what it has.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Before a replica that could not say is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// What is waited for, of one range.
struct Named<'a> {
    range: &'a RangeView,
    seen: Seen,
    /// The encoded key, of a context.
    key: Option<Bytes>,
}

/// The whole request.
struct Awaited<'a> {
    keyspace: &'a KeyspaceView,
    session: Session,
    named: Vec<Named<'a>>,
}

impl Gateway {
    /// Waits until all primaries hold what is named.
    ///
    /// # Errors
    ///
    /// `NOT_CONVERGED`, which says who lacks what; a token or context that cannot be used.
    pub(crate) async fn await_converged(
        &self,
        request: v1::AwaitConvergedRequest,
        context: Context,
    ) -> Result<v1::AwaitConvergedResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        let awaited = self.awaited(keyspace, &request)?;
        if let Some(forwarded) = context.forwarded {
            let named = awaited.named.iter();
            let named = named.filter(|named| named.range.id == forwarded.range);
            let revision = self.all_here(&awaited, named, context.deadline).await?;
            return Ok(self.converged(&awaited, &[(forwarded.range, revision)], &[]));
        }
        let mut asked = Vec::new();
        for named in &awaited.named {
            for node in &named.range.replicas {
                asked.push(self.ask_until(&awaited, named, *node, &request, context.deadline));
            }
        }
        let told: Vec<_> = futures::stream::iter(asked)
            .buffer_unordered(ASKED_MAX)
            .collect()
            .await;
        let (mut held, mut lacking) = (Vec::new(), Vec::new());
        for one in told {
            match one {
                Ok(one) => held.push(one),
                Err(lack) => lacking.push(lack),
            }
        }
        if !lacking.is_empty() {
            lacking.sort_by_key(|lack| (lack.range, lack.node));
            return Err(GatewayError::NotConverged { lacking });
        }
        let nodes: Vec<NodeId> = held.iter().map(|(node, _, _)| *node).collect();
        let ranges: Vec<_> = held
            .iter()
            .map(|(_, range, revision)| (*range, *revision))
            .collect();
        Ok(self.converged(&awaited, &ranges, &nodes))
    }

    /// What a request names.
    fn awaited<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        request: &v1::AwaitConvergedRequest,
    ) -> Result<Awaited<'a>, GatewayError> {
        let wished = v1::Consistency {
            session_token: request.session_token.clone(),
            ..v1::Consistency::default()
        };
        let session = self.session(keyspace, Some(&wished))?;
        let named = match (session.is_some(), request.context.is_empty()) {
            (true, true) => {
                let of_range = |(id, seen): (RangeId, &Seen)| {
                    // A range that is no more was dropped with all that it held.
                    let range = keyspace.ranges.iter().find(|range| range.id == id)?;
                    Some(Named {
                        range,
                        seen: seen.clone(),
                        key: None,
                    })
                };
                session.ranges().filter_map(of_range).collect()
            }
            (false, false) => vec![self.named_by_context(keyspace, request)?],
            (true, false) | (false, true) => {
                let problem = "give a session token, or a key with its context";
                return Err(GatewayError::field("session_token", problem));
            }
        };
        Ok(Awaited {
            keyspace,
            session,
            named,
        })
    }

    fn named_by_context<'a>(
        &self,
        keyspace: &'a KeyspaceView,
        request: &v1::AwaitConvergedRequest,
    ) -> Result<Named<'a>, GatewayError> {
        validate::key("key", &request.key, &keyspace.options)?;
        let (range, key) = keyspace.route(&request.key);
        let place = Place {
            keyspace,
            range,
            user_key: &request.key,
            key: key.clone(),
        };
        let dots = place.with_binding(self.node().cluster(), |binding| {
            Sealed(request.context.clone()).open(binding)
        });
        let dots = dots.map_err(EventualError::from)?;
        Ok(Named {
            range,
            seen: Seen::of_context(&dots),
            key: Some(key),
        })
    }

    fn converged(
        &self,
        awaited: &Awaited<'_>,
        ranges: &[(RangeId, Revision)],
        nodes: &[NodeId],
    ) -> v1::AwaitConvergedResponse {
        let mut replicas: Vec<u64> = nodes.iter().map(|node| node.0).collect();
        replicas.sort_unstable();
        replicas.dedup();
        let revision = ranges.iter().map(|(_, revision)| revision.0).max();
        // Without a log there is no revision that would say what the dots do.
        let token = match awaited.keyspace.options.mode {
            Mode::Strong | Mode::Mixed => awaited.session.settled(ranges.iter().copied()),
            Mode::Eventual => awaited.session.settled(std::iter::empty()),
        };
        v1::AwaitConvergedResponse {
            receipt: Some(v1::Receipt {
                node: self.node_id().0,
                replicas,
                revision: revision.unwrap_or(0),
                session_token: token,
                ..v1::Receipt::default()
            }),
        }
    }

    /// Asks one primary until it holds what is named. Returns as of which revision its log says
    /// so.
    async fn ask_until(
        &self,
        awaited: &Awaited<'_>,
        named: &Named<'_>,
        node: NodeId,
        request: &v1::AwaitConvergedRequest,
        deadline: Instant,
    ) -> Result<(NodeId, RangeId, Revision), Lack> {
        let range = named.range.id;
        loop {
            let until = deadline.min(Instant::now() + HERE_MAX);
            let told = match node == self.node_id() {
                true => {
                    let here = self.all_here(awaited, std::iter::once(named), until);
                    here.await.map_err(|error| error.to_string())
                }
                false => self.ask_there(node, range, request, until).await,
            };
            let again = Instant::now() + ASK_PAUSE;
            match told {
                Ok(revision) => return Ok((node, range, revision)),
                Err(why) if again >= deadline => return Err(Lack { node, range, why }),
                Err(_) => tokio::time::sleep_until(again).await,
            }
        }
    }

    async fn ask_there(
        &self,
        node: NodeId,
        range: RangeId,
        request: &v1::AwaitConvergedRequest,
        until: Instant,
    ) -> Result<Revision, String> {
        if !self.node().peer_reachable(node) {
            return Err("cannot be reached".to_owned());
        }
        let asked = v1::PipelineRequest {
            id: 1,
            request: Some(Request::AwaitConverged(request.clone())),
            timeout_ms: 0,
        };
        let left = until.saturating_duration_since(Instant::now());
        let answer = self.node().forward(node, range, left, asked).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match answer.response.and_then(|answer| answer.response) {
            Some(Response::AwaitConverged(done)) => {
                let receipt = done.receipt.unwrap_or_default();
                Ok(Revision(receipt.revision))
            }
            Some(Response::Error(error)) => Err(error.message),
            Some(_) | None => Err("an answer of another kind".to_owned()),
        }
    }

    /// Waits until this node holds what is named of its ranges.
    async fn all_here<'a>(
        &self,
        awaited: &Awaited<'_>,
        named: impl Iterator<Item = &'a Named<'a>>,
        deadline: Instant,
    ) -> Result<Revision, GatewayError> {
        let mut revision = Revision::ZERO;
        for one in named {
            revision = revision.max(self.is_here(awaited.keyspace, one, deadline).await?);
        }
        Ok(revision)
    }

    async fn is_here(
        &self,
        keyspace: &KeyspaceView,
        named: &Named<'_>,
        deadline: Instant,
    ) -> Result<Revision, GatewayError> {
        loop {
            let (missing, revision) = self.lacks(keyspace, named)?;
            if missing.is_empty() {
                return Ok(revision);
            }
            let again = Instant::now() + LOOK_PAUSE;
            if again >= deadline {
                return Err(GatewayError::NotConverged {
                    lacking: vec![Lack {
                        node: self.node_id(),
                        range: named.range.id,
                        why: missing,
                    }],
                });
            }
            tokio::time::sleep_until(again).await;
        }
    }

    /// What this node lacks of a range, in words, and as of which revision of its log.
    fn lacks(
        &self,
        keyspace: &KeyspaceView,
        named: &Named<'_>,
    ) -> Result<(String, Revision), GatewayError> {
        let (range, seen, key) = (named.range.id, &named.seen, named.key.as_deref());
        if keyspace.options.mode == Mode::Eventual {
            let missing = match key {
                Some(key) => self.eventual().lacking_of_key(range, key, &seen.dots)?,
                None => self.eventual().lacking(range, &seen.dots)?,
            };
            return Ok((in_words(&missing), Revision::ZERO));
        }
        let Some(group) = self.node().group(range) else {
            return Ok(("has no replica yet".to_owned(), Revision::ZERO));
        };
        let missing: Dots = group.undecided(key, &seen.dots);
        let revision = group.last_decided();
        if !missing.is_empty() {
            return Ok((format!("undecided {}", in_words(&missing)), revision));
        }
        if group.closed().max(revision) < seen.revision {
            return Ok((format!("the log up to {}", seen.revision), revision));
        }
        Ok((String::new(), revision))
    }
}
