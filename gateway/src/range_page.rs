//! One page of one range: read here, or asked of a node that holds it. Also what another gateway
//! asks of this one.

use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_request::Request};
use quorate_raft::{Group, KeyspaceView, RangeView};
use quorate_storage::engine::ScanRequest;
use quorate_types::{Copies, Mode, Partitioning, ReadLevel, Revision, user_interval};

use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::Gateway;
use crate::read::{consistency_of, preference};
use crate::route::{Errand, Prefer, Tried};
use crate::session::{Saw, Session};
use crate::stand::{Standing, Want};
use crate::write::{key_value, stored};

/// Between gateways the page token only says that there is more.
pub(crate) const MORE: &[u8] = &[1];

/// What is read of a keyspace, in user keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The first key.
    pub(crate) start: Bytes,
    /// The first key after; empty: none.
    pub(crate) end: Bytes,
    /// From the end to the start.
    pub(crate) reverse: bool,
}

impl Bounds {
    /// The bounds of what follows after the rows up to `last`.
    pub(crate) fn after(&self, last: &[u8]) -> Bounds {
        let mut next = self.clone();
        if self.reverse {
            next.end = Bytes::copy_from_slice(last);
        } else {
            let mut start = Vec::with_capacity(last.len() + 1);
            start.extend_from_slice(last);
            start.push(0);
            next.start = start.into();
        }
        next
    }

    /// Whether no key lies inside.
    pub(crate) fn is_empty(&self) -> bool {
        !self.end.is_empty() && self.start >= self.end
    }
}

/// A scan's parameters that are the same for all its ranges.
pub(crate) struct Scan<'a> {
    pub(crate) keyspace: &'a KeyspaceView,
    pub(crate) keys_only: bool,
    pub(crate) level: ReadLevel,
    pub(crate) session: &'a Session,
    pub(crate) context: Context,
}

/// One page's limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageLimit {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Scan<'_> {
    /// Whether one state can be read at several moments.
    pub(crate) fn keeps_history(&self) -> bool {
        !self.keyspace.options.history.is_zero()
    }

    /// Whether the eventual plane serves it, which has no states in time.
    pub(crate) fn is_eventual(&self) -> bool {
        self.copies().is_some()
    }

    /// How many views it joins; `None`: the log's state answers.
    pub(crate) fn copies(&self) -> Option<Copies> {
        let has_log = self.keyspace.options.mode != Mode::Eventual;
        match self.level {
            ReadLevel::Eventual(copies) => Some(copies),
            ReadLevel::Session => (!has_log).then_some(Copies::One),
            ReadLevel::Linearizable | ReadLevel::Bounded(_) | ReadLevel::Stale => None,
        }
    }

    /// The encoded keys of a range that lie within the bounds.
    pub(crate) fn request(
        &self,
        range: &RangeView,
        bounds: &Bounds,
        at: Option<Revision>,
        limit: PageLimit,
    ) -> ScanRequest {
        let bucket = match self.keyspace.options.partitioning {
            Partitioning::Ordered => None,
            Partitioning::Hash(_) => u16::try_from(range.bucket).ok(),
        };
        let asked = user_interval(self.keyspace.id, bucket, &bounds.start, &bounds.end);
        let interval = asked.intersect(&range.interval);
        ScanRequest {
            start: interval.start,
            end: interval.end,
            reverse: bounds.reverse,
            at: at.map(|at| at.0),
            rows_max: limit.rows,
            bytes_max: limit.bytes,
            keys_only: self.keys_only,
        }
    }

    fn wire(&self, bounds: &Bounds, at: Option<Revision>, limit: PageLimit) -> v1::ScanRequest {
        v1::ScanRequest {
            keyspace: self.keyspace.name.clone(),
            start: bounds.start.clone(),
            end: bounds.end.clone(),
            reverse: bounds.reverse,
            keys_only: self.keys_only,
            limit: u32::try_from(limit.rows).unwrap_or(u32::MAX),
            bytes_max: u32::try_from(limit.bytes).unwrap_or(u32::MAX),
            at_revision: at.map_or(0, |at| at.0),
            consistency: Some(consistency_of(self.level, self.session)),
            ..v1::ScanRequest::default()
        }
    }
}

impl Gateway {
    /// A page of one range: as of `at`, or else as of a revision that the replica chooses by the
    /// level and names in the answer (zero where no history is kept).
    pub(crate) async fn range_page(
        &self,
        scan: &Scan<'_>,
        range: &RangeView,
        bounds: &Bounds,
        at: Option<Revision>,
        limit: PageLimit,
    ) -> Result<v1::ScanResponse, GatewayError> {
        if let Some(copies) = scan.copies() {
            return self.eventual_page(scan, range, bounds, copies, limit).await;
        }
        let want = match at {
            Some(at) => Want::At(at),
            None => scan.session.want(scan.level, range.id),
        };
        let here = |group: Arc<Group>| async move {
            let (session, deadline) = (scan.session, scan.context.deadline);
            let stood = self.stand_in_session(&group, None, want, session, deadline);
            match stood.await {
                Ok(standing) => {
                    Tried::Done(self.page_here(scan, range, bounds, &group, standing, limit))
                }
                Err(unmet) => unmet.into(),
            }
        };
        // A snapshot that is not closed yet needs the leader's help, so it is worth waiting for.
        let prefer = match (at, scan.level) {
            (Some(_), level) if level != ReadLevel::Stale => Prefer::Here,
            (_, level) => preference(level),
        };
        let errand = Errand {
            range,
            prefer,
            handle: None,
            context: &scan.context,
        };
        self.route(&errand, here, || {
            Request::Scan(scan.wire(bounds, at, limit))
        })
        .await
    }

    fn page_here(
        &self,
        scan: &Scan<'_>,
        range: &RangeView,
        bounds: &Bounds,
        group: &Group,
        mut standing: Standing,
        limit: PageLimit,
    ) -> Result<v1::ScanResponse, GatewayError> {
        if standing.at.is_none() && scan.keeps_history() {
            standing.at = Some(match scan.level {
                ReadLevel::Linearizable => standing.revision,
                // What is closed is complete here, also on ranges without recent writes.
                _ => group.closed().max(group.last_decided()),
            });
        }
        let page = group
            .table()
            .scan(&scan.request(range, bounds, standing.at, limit))
            .map_err(stored)?;
        let prefix_bytes = scan.keyspace.options.partitioning.prefix_bytes();
        let entries = page.rows.into_iter().map(|(key, version)| {
            let user_key = key.slice(prefix_bytes.min(key.len())..);
            key_value(user_key, version)
        });
        let context = &scan.context;
        Ok(v1::ScanResponse {
            entries: entries.collect(),
            next_page_token: page
                .resume
                .map_or_else(Bytes::new, |_| Bytes::from_static(MORE)),
            at_revision: standing.at.map_or(0, |at| at.0),
            receipt: Some(self.read_receipt(
                scan.session,
                group,
                (standing, Saw::Values),
                scan.level,
                context,
            )),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(start: &'static str, end: &'static str, reverse: bool) -> Bounds {
        Bounds {
            start: start.into(),
            end: end.into(),
            reverse,
        }
    }

    #[test]
    fn a_page_goes_on_after_its_last_row() {
        assert_eq!(
            bounds("a", "z", false).after(b"c"),
            bounds("c\0", "z", false)
        );
        assert_eq!(bounds("a", "z", true).after(b"c"), bounds("a", "c", true));
        assert!(bounds("a", "a", true).is_empty());
        assert!(!bounds("a", "", false).is_empty());
    }
}
