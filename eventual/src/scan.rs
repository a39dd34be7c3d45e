//! Scans: pages of as many primaries as the level wants, joined key by key.
//!
//! A key that one page has and another does not is judged by what the other's replica has taken
//! in: each page carries the base of its replica's clock. Stand-ins take no part: they cannot show
//! absence.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use quorate_proto::internal::{
    KeyState as WireState, Page, PageOf, eventual_request::Request, eventual_response::Response,
};
use quorate_types::causal::{Dots, KeyState};
use quorate_types::{Copies, NodeId, RangeId};
use tokio::time::Instant;

use crate::error::EventualError;
use crate::node::{EventualNode, Inner, dots_from_wire, dots_to_wire};
use crate::read::{SESSION_PAUSE, SESSION_PAUSE_MAX, Wanted};
use crate::replica::Replica;

/// A primary is given this long for a page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);
/// Most rows of a page.
const PAGE_ROWS_MAX: usize = 10_000;
/// Most bytes of a page; the row that crosses it is the last.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// A page of keys.
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// Of which range.
    pub range: RangeId,
    /// The first encoded key.
    pub start: Bytes,
    /// The encoded key behind the last; empty: up to the range's end.
    pub end: Bytes,
    /// From the end to the start.
    pub reverse: bool,
    /// Most rows.
    pub rows_max: usize,
    /// Most bytes; the row that crosses it is the last.
    pub bytes_max: usize,
    /// Over how many primaries.
    pub copies: Copies,
    /// What those who answer must know together.
    pub wanted: Wanted,
    /// Until when.
    pub deadline: Instant,
}

/// What a page came to.
#[derive(Clone, Debug, Default)]
pub struct ScanDone {
    /// Keys that some replica has, in the scan's order, deleted ones included.
    pub rows: Vec<(Bytes, KeyState)>,
    /// Where to go on: the next start, or the next end if reverse. `None`: this was all.
    pub resume: Option<Bytes>,
    /// The primaries that took part.
    pub replicas: Vec<NodeId>,
    /// All dots that they know of the range or of these keys: what a reader of the page has seen.
    pub context: Dots,
    /// As in `ReadDone`.
    pub missing: Dots,
    /// Whether the log of a `mixed` range may not have decided all of it.
    pub tentative: bool,
    /// As in `ReadDone`.
    pub visible_after: Option<Duration>,
}

/// One replica's page.
struct Part {
    node: NodeId,
    states: BTreeMap<Bytes, KeyState>,
    base: Dots,
    resume: Option<Bytes>,
    /// What is wanted and it does not know.
    missing: Dots,
    tentative: bool,
}

impl EventualNode {
    /// Reads a page.
    ///
    /// # Errors
    /// [`EventualError`]; a scan changes nothing.
    pub async fn scan(&self, request: ScanRequest) -> Result<ScanDone, EventualError> {
        let inner = &self.inner;
        let place = inner.place(request.range)?;
        let wanted = place.holders.wanted(request.copies)?;
        let me = inner.node;
        let spread = place.holders.spread(me, |node| inner.reach(node));
        // The last in the list is asked first.
        let mut others: Vec<NodeId> = spread.primaries.iter().rev().copied().collect();
        if place.holders.is_primary(me) {
            // It costs nothing.
            others.push(me);
        }
        if others.len() < wanted {
            return Err(EventualError::Unreachable {
                range: request.range,
                wanted,
                reachable: others.len(),
                missing: spread.missing,
            });
        }
        let everyone = others.clone();
        let wanted_by = request.wanted.best_by.unwrap_or(request.deadline);
        let mut pause = SESSION_PAUSE;
        loop {
            let parts = parts(inner, &request, others, wanted).await?;
            let all = parts.iter().fold(request.wanted.dots.clone(), |all, part| {
                all.common(&part.missing)
            });
            let again = Instant::now() + pause;
            if all.is_empty() || request.wanted.best_by.is_some() && again >= wanted_by {
                return Ok(ScanDone {
                    missing: all,
                    visible_after: inner.visible_after(request.range, &place.holders, wanted),
                    ..joined(parts, request.reverse)
                });
            }
            if again >= request.deadline {
                return Err(EventualError::SessionBehind {
                    range: request.range,
                    missing: Box::new(all),
                    asked: parts.iter().map(|part| part.node).collect(),
                });
            }
            tokio::time::sleep_until(again).await;
            pause = SESSION_PAUSE_MAX.min(pause * 2);
            let is_there = |node: &NodeId| *node == me || inner.peers.reachable(*node);
            others = everyone.iter().copied().filter(is_there).collect();
        }
    }
}

/// Pages of at least `copies` primaries; of more, until they know together what is wanted.
async fn parts(
    inner: &Arc<Inner>,
    request: &ScanRequest,
    mut others: Vec<NodeId>,
    copies: usize,
) -> Result<Vec<Part>, EventualError> {
    let mut asked = FuturesUnordered::new();
    let mut parts: Vec<Part> = Vec::new();
    let mut missing = request.wanted.dots.clone();
    loop {
        let enough = parts.len() >= copies;
        if enough && missing.is_empty() {
            break;
        }
        let least = if enough { parts.len() + 1 } else { copies };
        while parts.len() + asked.len() < least
            && let Some(node) = others.pop()
        {
            asked.push(part(inner, node, request));
        }
        tokio::select! {
            part = asked.next() => match part {
                Some(Ok(part)) => {
                    missing = missing.common(&part.missing);
                    parts.push(part);
                }
                Some(Err(error)) => tracing::debug!(%error, "a page was not told"),
                None => break,
            },
            () = tokio::time::sleep_until(request.deadline) => break,
        }
    }
    if parts.len() < copies {
        return Err(EventualError::TooFewAnswers {
            range: request.range,
            wanted: copies,
            answered: parts.len(),
        });
    }
    Ok(parts)
}

async fn part(
    inner: &Arc<Inner>,
    node: NodeId,
    request: &ScanRequest,
) -> Result<Part, EventualError> {
    let page = Page {
        start: request.start.clone(),
        end: request.end.clone(),
        reverse: request.reverse,
        rows_max: u32::try_from(request.rows_max).unwrap_or(u32::MAX),
        bytes_max: u32::try_from(request.bytes_max).unwrap_or(u32::MAX),
        wanted: dots_to_wire(&request.wanted.dots),
    };
    let told = if node == inner.node {
        page_of(&*inner.replica(request.range)?, &page)?
    } else {
        let question = Request::Page(page);
        match inner
            .ask(node, request.range, question, PAGE_TIMEOUT)
            .await?
        {
            Response::PageOf(told) => told,
            _ => return Err(EventualError::Peer("an answer of another kind".to_owned())),
        }
    };
    let states = told.states.into_iter().map(|WireState { key, state }| {
        let state = KeyState::decode(&state)?;
        Ok((key, state))
    });
    Ok(Part {
        node,
        tentative: told.tentative,
        states: states.collect::<Result<_, EventualError>>()?,
        base: KeyState::decode(&told.base)?.context().clone(),
        resume: (!told.resume.is_empty()).then_some(told.resume),
        missing: match &told.missing {
            Some(missing) => dots_from_wire(missing)?,
            None => request.wanted.dots.clone(),
        },
    })
}

/// Joins pages up to where all of them reach.
fn joined(mut parts: Vec<Part>, reverse: bool) -> ScanDone {
    let bounds = parts.iter().filter_map(|part| part.resume.clone());
    let resume = if reverse { bounds.max() } else { bounds.min() };
    let within = |key: &Bytes| {
        resume
            .as_ref()
            .is_none_or(|bound| if reverse { key >= bound } else { key < bound })
    };
    let mut rows: BTreeMap<Bytes, KeyState> = BTreeMap::new();
    for part in &mut parts {
        for key in part.states.keys().filter(|key| within(key)) {
            rows.entry(key.clone()).or_default();
        }
    }
    for (key, row) in &mut rows {
        for part in &parts {
            match part.states.get(key) {
                Some(state) => row.join(state),
                None => row.join(&KeyState::of([], part.base.clone())),
            }
        }
    }
    let mut context = Dots::new();
    let bases = parts.iter().map(|part| &part.base);
    for known in bases.chain(rows.values().map(KeyState::context)) {
        context.union(known);
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    if reverse {
        rows.reverse();
    }
    ScanDone {
        rows,
        resume,
        replicas: parts.iter().map(|part| part.node).collect(),
        context,
        missing: Dots::new(),
        tentative: parts.iter().any(|part| part.tentative),
        visible_after: None,
    }
}

/// Answers with this primary's page.
pub(crate) fn page_of(replica: &Replica, page: &Page) -> Result<PageOf, EventualError> {
    let rows = usize::try_from(page.rows_max).unwrap_or(usize::MAX);
    let bytes = usize::try_from(page.bytes_max).unwrap_or(usize::MAX);
    // Before the rows are read, which so know no less.
    let missing = replica.lacking(&dots_from_wire(&page.wanted)?)?;
    let (rows, bytes) = (rows.clamp(1, PAGE_ROWS_MAX), bytes.clamp(1, PAGE_BYTES_MAX));
    let interval = (&page.start, &page.end, page.reverse);
    let (states, base, resume, tentative) = if replica.has_log() {
        let page = replica.scan_view(interval, rows, bytes)?;
        (page.states, page.base, page.resume, page.tentative)
    } else {
        let (start, end, reverse) = interval;
        let (states, base, resume) = replica.scan((start, end, reverse), rows, bytes)?;
        (states, base, resume, false)
    };
    let states = states.into_iter().map(|(key, state)| WireState {
        key,
        state: state.encode(),
    });
    Ok(PageOf {
        states: states.collect(),
        base: KeyState::of([], base).encode(),
        resume: resume.unwrap_or_default(),
        missing: Some(dots_to_wire(&missing)),
        tentative,
    })
}

#[cfg(test)]
mod tests {
    use quorate_types::Timestamp;
    use quorate_types::causal::{Actor, Dot, Value};

    use super::*;

    fn dot(counter: u64) -> Dot {
        Dot::new(Actor { disk: 1, start: 1 }, counter)
    }

    fn state(counter: u64) -> KeyState {
        let value = Value {
            payload: Bytes::from_static(b"v"),
            timestamp: Timestamp(1),
            expiry: None,
        };
        KeyState::of([(dot(counter), value)], Dots::new())
    }

    fn part(
        node: u64,
        states: &[(&'static str, u64)],
        seen: u64,
        resume: Option<&'static str>,
    ) -> Part {
        let mut base = Dots::new();
        for counter in 1..=seen {
            base.insert(dot(counter));
        }
        Part {
            node: NodeId(node),
            states: states
                .iter()
                .map(|(key, counter)| (Bytes::from_static(key.as_bytes()), state(*counter)))
                .collect(),
            base,
            resume: resume.map(|key| Bytes::from_static(key.as_bytes())),
            missing: Dots::new(),
            tentative: false,
        }
    }

    #[test]
    fn a_key_that_the_other_replica_knows_to_be_deleted_is_shown_as_gone() {
        let ours = part(1, &[("a", 1), ("b", 2)], 2, None);
        let theirs = part(2, &[("a", 1)], 2, None);
        let done = joined(vec![ours, theirs], false);
        let live: Vec<_> = done.rows.iter().map(|(_, row)| row.live().len()).collect();
        assert_eq!(live, [1, 0]);
    }

    #[test]
    fn a_key_that_the_other_replica_has_not_heard_of_is_shown() {
        let ours = part(1, &[("a", 1), ("b", 2)], 2, None);
        let theirs = part(2, &[("a", 1)], 1, None);
        let done = joined(vec![ours, theirs], false);
        assert!(done.rows.iter().all(|(_, row)| row.live().len() == 1));
    }

    #[test]
    fn pages_are_joined_as_far_as_all_of_them_reach() {
        let ours = part(1, &[("a", 1), ("c", 3)], 3, None);
        let theirs = part(2, &[("a", 1), ("b", 2)], 3, Some("c"));
        let done = joined(vec![ours, theirs], false);
        assert_eq!(done.resume, Some(Bytes::from_static(b"c")));
        let keys: Vec<_> = done.rows.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, ["a", "b"]);
    }
}
