//! Where a watch gets the next events of one range: from the replica of this node, or from a node
//! that has one; from another one if that does not answer, or hears from no leader.
//!
//! Asking changes nothing, and who is asked keeps nothing, so any replica may be asked next.

use std::time::Duration;

use quorate_proto::internal::EventsRequest;
use quorate_raft::{KeyspaceView, Place, RangeView};
use quorate_types::{Effect, NodeId, RangeId, Reason};
use tokio::time::Instant;

use super::events::{Asked, Page};
use super::tentative::{TentativeAsked, asked_to_wire, found_of_wire};
use super::{Watched, place_of, position_of};
use crate::chase::{Chase, Step};
use crate::errors::GatewayError;
use crate::gateway::Gateway;

/// Longest time that a replica is asked to wait for events, before it says how far it has come.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How much longer its answer may take.
const ANSWER_GRACE: Duration = Duration::from_secs(2);
/// How long a range may be without anybody who answers before its watch ends: the client then goes
/// on at another gateway.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after a round over replicas that hear from no leader.
const CUT_OFF_PAUSE: Duration = Duration::from_millis(100);

/// Why one replica has given no page.
enum Missed {
    /// Another one, or a later moment, may.
    Elsewhere(GatewayError),
    /// None will.
    Never(GatewayError),
}

impl From<GatewayError> for Missed {
    fn from(error: GatewayError) -> Self {
        let passes = matches!(
            error.reason(),
            None | Some(
                Reason::NoLeader
                    | Reason::NoMajority
                    | Reason::RangeMoved
                    | Reason::NodeStopping
                    | Reason::TimedOut
                    | Reason::KeyspaceNotFound
            )
        );
        if passes {
            Missed::Elsewhere(error)
        } else {
            Missed::Never(error)
        }
    }
}

impl Gateway {
    /// The next events of a range behind a place, from whichever replica has them. An empty page
    /// after a while: nothing has come.
    pub(crate) async fn next_page(
        &self,
        watched: &Watched,
        range: RangeId,
        asked: &Asked,
    ) -> Result<Page, GatewayError> {
        let began = Instant::now();
        let mut last = GatewayError::NoLeader {
            range,
            missing: Vec::new(),
            hint: None,
        };
        loop {
            let catalog = self.node().catalog();
            let (keyspace, view) = find(catalog.keyspace(&watched.keyspace), watched, range)?;
            let mut chase = Chase::new(&view.replicas, self.first_source(view));
            let mut cut_off = None;
            loop {
                let node = match chase.step() {
                    Step::Try(node) => node,
                    Step::Pause(pause) => {
                        if let Some(page) = cut_off.take() {
                            tokio::time::sleep(CUT_OFF_PAUSE).await;
                            return Ok(page);
                        }
                        tokio::time::sleep(pause).await;
                        break;
                    }
                };
                match self.page_at(node, (keyspace, view), asked).await {
                    Ok(page) if page.is_cut_off && page.events.is_empty() => cut_off = Some(page),
                    Ok(page) => {
                        if node != self.node_id() {
                            self.served_by(range, node);
                        }
                        return Ok(page);
                    }
                    Err(Missed::Elsewhere(error)) => last = error,
                    Err(Missed::Never(error)) => return Err(error),
                }
            }
            if began.elapsed() >= PATIENCE {
                return Err(self.named_missing(last, view));
            }
        }
    }

    /// Who is asked first: the replica of this node, or who answered last.
    fn first_source(&self, range: &RangeView) -> Option<NodeId> {
        if range.replicas.contains(&self.node_id()) {
            return Some(self.node_id());
        }
        self.last_served(range.id).or_else(|| {
            let reachable = |node: &&NodeId| self.node().peer_reachable(**node);
            range.replicas.iter().find(reachable).copied()
        })
    }

    async fn page_at(
        &self,
        node: NodeId,
        (keyspace, range): (&KeyspaceView, &RangeView),
        asked: &Asked,
    ) -> Result<Page, Missed> {
        if node != self.node_id() {
            return self.page_from(node, keyspace, range.id, asked).await;
        }
        let until = Instant::now() + asked.wait.min(WAIT_MAX);
        Ok(self
            .watch_page_here((keyspace, range), asked, until)
            .await?)
    }

    async fn page_from(
        &self,
        node: NodeId,
        keyspace: &KeyspaceView,
        range: RangeId,
        asked: &Asked,
    ) -> Result<Page, Missed> {
        let lost = || GatewayError::NoLeader {
            range,
            missing: vec![node],
            hint: None,
        };
        if !self.node().peer_reachable(node) {
            return Err(Missed::Elsewhere(lost()));
        }
        let wait = asked.wait.min(WAIT_MAX);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let request = EventsRequest {
            keyspace: keyspace.name.clone(),
            start: asked.start.clone(),
            end: asked.end.clone(),
            after: asked.after.as_ref().map(|place| position_of(range, place)),
            events_max: count(asked.events_max),
            bytes_max: count(asked.bytes_max),
            wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            no_puts: asked.no_puts,
            no_deletes: asked.no_deletes,
            previous: asked.previous,
            tentative: asked.tentative.as_ref().map(asked_to_wire),
        };
        let asking = self
            .node()
            .ask_events(node, range, request, wait + ANSWER_GRACE);
        let answer = self.while_reachable(node, asking).await;
        let answer = answer.map_err(|_| Missed::Elsewhere(lost()))?;
        if let Some(error) = answer.error {
            return Err(GatewayError::Remote(Box::new(error)).into());
        }
        let position = answer.position.ok_or_else(|| {
            let what = format!("node {node} answered with no position");
            GatewayError::Internal {
                what,
                effect: Effect::None,
            }
        })?;
        Ok(Page {
            events: answer.events,
            place: place_of(&position),
            tentative: answer.tentative.as_ref().and_then(found_of_wire),
            is_cut_off: answer.is_cut_off,
        })
    }

    fn named_missing(&self, error: GatewayError, range: &RangeView) -> GatewayError {
        match error {
            GatewayError::NoLeader {
                range: id, hint, ..
            } => GatewayError::NoLeader {
                range: id,
                missing: self.missing(range),
                hint,
            },
            other => other,
        }
    }
}

/// The keyspace and the range, if they are still those that are watched.
fn find<'a>(
    keyspace: Option<&'a KeyspaceView>,
    watched: &Watched,
    range: RangeId,
) -> Result<(&'a KeyspaceView, &'a RangeView), GatewayError> {
    let same = keyspace.filter(|found| found.incarnation == watched.incarnation);
    let found = same.and_then(|keyspace| {
        let view = keyspace.ranges.iter().find(|view| view.id == range)?;
        Some((keyspace, view))
    });
    found.ok_or_else(|| GatewayError::KeyspaceNotFound {
        name: watched.keyspace.clone(),
    })
}

/// What a watch of so many ranges asks of each behind a place.
pub(super) fn asked_of(
    watched: &Watched,
    (after, tentative): (Option<Place>, Option<TentativeAsked>),
    (ranges, events_max): (usize, usize),
) -> Asked {
    let share = super::MESSAGE_BYTES_MAX * 2 / ranges.max(1);
    Asked {
        start: watched.start.clone(),
        end: watched.end.clone(),
        after,
        events_max,
        bytes_max: share.clamp(super::SHARE_BYTES_MIN, super::MESSAGE_BYTES_MAX),
        no_puts: watched.no_puts,
        no_deletes: watched.no_deletes,
        previous: watched.previous,
        tentative,
        wait: watched.progress_interval,
    }
}
