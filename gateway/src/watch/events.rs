//! The events of one range behind a place, at a replica of this node: read, or waited for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quorate_proto::etcd::mvccpb;
use quorate_proto::internal::{EventsRequest, EventsResponse};
use quorate_proto::v1;
use quorate_proto::v1::watch_event::Kind;
use quorate_raft::machine::live_values;
use quorate_raft::{
    AppliedAt, Event, Follower, Found, Group, KeyspaceView, Place, RangeView, ReadError, Wanted,
};
use quorate_storage::engine::{EngineError, Version};
use quorate_types::causal::{Actor, Dot};
use quorate_types::limits::{CLOCK_OFFSET_MAX, MESSAGE_MAX_BYTES};
use quorate_types::{Api, KeyInterval, Mode, RangeId, Revision, Timestamp};
use tokio::time::Instant;

use super::tentative::{
    Beside, TentativeAsked, TentativeFound, asked_of_wire, changed, found_to_wire,
};
use super::{MESSAGE_BYTES_MAX, interval_within, place_of, position_of};
use crate::errors::GatewayError;
use crate::eventual::Place as KeyPlace;
use crate::gateway::Gateway;
use crate::write::{key_value, stored};

/// Longest time that a peer may have this node wait for events.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a replica is given to learn what "now" is.
const NOW_MAX: Duration = Duration::from_secs(2);
/// How often a replica that waits looks whether it still hears from a leader.
const LEADER_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A place in a range that rests is brought up so often within the time that history is kept.
const PLACES_PER_HISTORY: u32 = 4;
/// So many followers of one range wait a little for more events, once there are some. Fewer would
/// ask for less than a millisecond, and timers know nothing shorter.
const GATHER_COMPANY_MIN: usize = 50;
/// How long, for each of them.
const GATHER_TIME_EACH: Duration = Duration::from_micros(20);
/// And at the most.
const GATHER_TIME_MAX: Duration = Duration::from_millis(20);
/// Full messages that one read of history brings.
const STRETCH_MESSAGES: usize = 16;
/// What an event may come to with the value that it replaced: the message has other fields.
const EVENT_BYTES_MAX: usize = MESSAGE_MAX_BYTES - (1 << 20);

/// What is asked of one range.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// User keys; an empty end: none.
    pub(crate) start: Bytes,
    pub(crate) end: Bytes,
    /// None: from now on.
    pub(crate) after: Option<Place>,
    pub(crate) events_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) no_puts: bool,
    pub(crate) no_deletes: bool,
    pub(crate) previous: bool,
    /// None: tentative events are not wanted.
    pub(crate) tentative: Option<TentativeAsked>,
    /// How long to wait for the first event.
    pub(crate) wait: Duration,
}

/// Events of one range, and the place behind them.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Tentative ones first.
    pub(crate) events: Vec<v1::WatchEvent>,
    pub(crate) place: Place,
    /// Where tentative events were asked for.
    pub(crate) tentative: Option<TentativeFound>,
    /// The replica hears from no leader.
    pub(crate) is_cut_off: bool,
}

/// A range and its keys that are read.
pub(super) struct Reading<'a> {
    pub(super) keyspace: &'a KeyspaceView,
    pub(super) range: &'a RangeView,
    interval: KeyInterval,
    asked: &'a Asked,
}

impl<'a> Reading<'a> {
    pub(super) fn new(keyspace: &'a KeyspaceView, range: &'a RangeView, asked: &'a Asked) -> Self {
        Reading {
            keyspace,
            range,
            interval: interval_within(keyspace, range, &asked.start, &asked.end),
            asked,
        }
    }

    /// Whether a kind of events is wanted.
    pub(super) const fn takes(&self, kind: Kind) -> bool {
        match kind {
            Kind::Delete => !self.asked.no_deletes,
            Kind::Put | Kind::Unspecified => !self.asked.no_puts,
        }
    }

    pub(super) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            interval: &self.interval,
            events_max: self.asked.events_max,
            bytes_max: self.asked.bytes_max,
            no_puts: self.asked.no_puts,
            no_deletes: self.asked.no_deletes,
        }
    }
}

impl Gateway {
    /// What another node's gateway asks of a replica here.
    pub(crate) async fn events_for_peer(
        &self,
        range: RangeId,
        request: EventsRequest,
    ) -> EventsResponse {
        match self.events_of_peer(range, request).await {
            Ok(page) => EventsResponse {
                events: page.events,
                position: Some(position_of(range, &page.place)),
                error: None,
                is_cut_off: page.is_cut_off,
                tentative: page.tentative.as_ref().map(found_to_wire),
            },
            Err(error) => EventsResponse {
                error: Some(error.into()),
                ..EventsResponse::default()
            },
        }
    }

    async fn events_of_peer(
        &self,
        range: RangeId,
        request: EventsRequest,
    ) -> Result<Page, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = crate::gateway::any_keyspace(&catalog, &request.keyspace)?;
        let moved = GatewayError::RangeMoved { range };
        let view = keyspace.ranges.iter().find(|view| view.id == range);
        let Some(view) = view else {
            return Err(moved);
        };
        let most = |asked: u32, max: usize| (asked as usize).clamp(1, max);
        let asked = Asked {
            start: request.start,
            end: request.end,
            after: request.after.as_ref().map(place_of),
            events_max: most(request.events_max, self.admission().watch_events_max()),
            bytes_max: most(request.bytes_max, MESSAGE_BYTES_MAX),
            no_puts: request.no_puts,
            no_deletes: request.no_deletes,
            previous: request.previous,
            tentative: request
                .tentative
                .filter(|_| keyspace.options.mode != Mode::Strong)
                .map(asked_of_wire),
            wait: Duration::from_millis(u64::from(request.wait_ms)).min(WAIT_MAX),
        };
        self.watch_page_here((keyspace, view), &asked, Instant::now() + asked.wait)
            .await
    }

    /// The next events at this node, if it has a replica.
    pub(super) async fn watch_page_here(
        &self,
        (keyspace, range): (&KeyspaceView, &RangeView),
        asked: &Asked,
        until: Instant,
    ) -> Result<Page, GatewayError> {
        if keyspace.options.mode == Mode::Eventual {
            return self.visible_here((keyspace, range), asked, until).await;
        }
        let group = self.node().group(range.id);
        let group = group.ok_or(GatewayError::RangeMoved { range: range.id })?;
        self.events_here(&group, (keyspace, range), asked, until)
            .await
    }

    /// The next events at a replica of this node; none if none came until then.
    async fn events_here(
        &self,
        group: &Arc<Group>,
        (keyspace, range): (&KeyspaceView, &RangeView),
        asked: &Asked,
        until: Instant,
    ) -> Result<Page, GatewayError> {
        let reading = Reading::new(keyspace, range, asked);
        // Before anything else: what is decided or visible from here on is in the windows.
        let follower = group.follow();
        let mut reader = self.visible_reader(range.id, asked)?;
        let mut applied = group.watch_applied();
        let Some(mut place) = asked.after.clone() else {
            let page = self.now_at(group, keyspace).await?;
            return Ok(Beside::default().into_page(page, reader.as_ref()));
        };
        loop {
            let at = *applied.borrow_and_update();
            let beside = self.look_beside(group, &reading, reader.as_mut(), (at, &place))?;
            let found = self.behind(group, &follower, &reading, &place, at);
            let (events, next, more) = found.await?;
            place = next;
            let settles = beside.settles() && !more && asked.after.as_ref() != Some(&place);
            if !events.is_empty() || !beside.visible.is_empty() || settles {
                let page = self.events_page(group, &reading, events, place)?;
                return Ok(beside.into_page(page, reader.as_ref()));
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            // A range that is busy with other keys must say how far it has come, too.
            let now = Instant::now();
            let look = until.min(now + LEADER_CHECK_INTERVAL);
            let mut is_cut_off = false;
            let changed = changed(&mut applied, reader.as_mut().filter(|_| beside.is_read));
            match tokio::time::timeout_at(look, changed).await {
                Ok(Ok(())) if now < until => gather(follower.company()).await,
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(GatewayError::RangeMoved { range: range.id }),
                Err(_) => {
                    is_cut_off = self.is_cut_off(group);
                    if !is_cut_off && self.is_old(group, keyspace) {
                        // Where nobody can do that, the place stays old.
                        let _ = self.bring_up(group).await;
                    }
                }
            }
            if is_cut_off || Instant::now() >= until {
                let page = Page {
                    place,
                    is_cut_off,
                    ..Page::default()
                };
                return Ok(beside.into_page(page, reader.as_ref()));
            }
        }
    }

    /// The next events behind a place as far as this replica has come, the place behind them, and
    /// whether there may be more.
    async fn behind(
        &self,
        group: &Group,
        follower: &Follower,
        reading: &Reading<'_>,
        place: &Place,
        at: AppliedAt,
    ) -> Result<(Vec<Event>, Place, bool), GatewayError> {
        match follower.read(place, reading.wanted()) {
            Found::Events {
                events,
                place,
                more,
            } => Ok((events, place, more)),
            // The window has gone on, and what it has dropped is about to be told of.
            Found::Behind if at.closed <= place.whole() => Ok((Vec::new(), place.clone(), false)),
            // Nothing has changed since then, though it lies before the window.
            Found::Behind
                if at.last_change <= place.whole() || self.faults().watch_skips_history =>
            {
                Ok((Vec::new(), Place::behind(at.closed), true))
            }
            Found::Behind => {
                let history = &self.watches().catch_up;
                let events_max = self.admission().watch_events_max() * STRETCH_MESSAGES;
                let read = history.read(group, place, (at.closed, events_max), reading.wanted());
                let (events, next) = read.await?;
                Ok((events, next, true))
            }
        }
    }

    /// The place behind everything that was acknowledged before the call.
    async fn now_at(&self, group: &Group, keyspace: &KeyspaceView) -> Result<Page, GatewayError> {
        let range = group.range_id();
        let refused = |error| match error {
            ReadError::NoMajority => GatewayError::NoMajority {
                range,
                missing: Vec::new(),
            },
            ReadError::NotLeader { .. } | ReadError::TimedOut | ReadError::Stopped => {
                GatewayError::NoLeader {
                    range,
                    missing: Vec::new(),
                    hint: group.leader(),
                }
            }
        };
        let read = group.read_barrier(Instant::now() + NOW_MAX).await;
        read.map_err(refused)?;
        if self.is_old(group, keyspace) {
            self.bring_up(group).await.map_err(refused)?;
        }
        Ok(Page {
            events: Vec::new(),
            place: Place::behind(group.closed()),
            ..Page::default()
        })
    }

    /// Whether the range has rested for so long that a place in it would soon lie before what
    /// history keeps, though nothing has happened: the next write would make it so.
    fn is_old(&self, group: &Group, keyspace: &KeyspaceView) -> bool {
        let history = keyspace.options.history;
        let age = self
            .node()
            .now()
            .saturating_duration_since(Timestamp(group.closed().0));
        !history.is_zero() && age > history / PLACES_PER_HISTORY
    }

    /// Has the range say that nothing has happened until lately.
    async fn bring_up(&self, group: &Group) -> Result<(), ReadError> {
        let lately = self.node().now().saturating_sub(CLOCK_OFFSET_MAX);
        let limit = Instant::now() + NOW_MAX;
        group.close_at(Revision(lately.0), limit).await
    }

    /// Whether a replica here hears from nobody who leads.
    fn is_cut_off(&self, group: &Group) -> bool {
        let hears = |leader| leader == self.node_id() || self.node().peer_reachable(leader);
        !group.leader().is_some_and(hears)
    }

    /// As many of the events as fit into a message with what they replaced, as they travel.
    fn events_page(
        &self,
        group: &Group,
        reading: &Reading<'_>,
        events: Vec<Event>,
        mut place: Place,
    ) -> Result<Page, GatewayError> {
        let mut page = Vec::with_capacity(events.len());
        let mut bytes = 0;
        let mut last = None;
        for event in events {
            if bytes >= reading.asked.bytes_max
                && let Some(last) = last
            {
                place = last;
                break;
            }
            last = Some(event.place());
            let (told, size) = self.told_event(group, reading, event)?;
            bytes += size;
            page.push(told);
        }
        Ok(Page {
            events: page,
            place,
            ..Page::default()
        })
    }

    /// An event as it travels, and bytes of keys and values in it.
    fn told_event(
        &self,
        group: &Group,
        reading: &Reading<'_>,
        event: Event,
    ) -> Result<(v1::WatchEvent, usize), GatewayError> {
        let mut size = event.bytes();
        let revision = event.revision;
        let key = event.key.clone();
        let is_delete = event.version.is_none();
        let mut told = v1::WatchEvent {
            kind: match is_delete {
                true => Kind::Delete.into(),
                false => Kind::Put.into(),
            },
            state: v1::watch_event::State::Committed.into(),
            range: reading.range.id.0,
            ..v1::WatchEvent::default()
        };
        let user_key = user_key(reading.keyspace, &key);
        match event.version {
            None if reading.keyspace.options.api == Api::Etcd => {
                told.entry = Some(deleted_in_etcd(group, user_key.clone(), revision));
            }
            None => {
                told.entry = Some(v1::KeyValue {
                    key: user_key.clone(),
                    revision: revision.0,
                    ..v1::KeyValue::default()
                });
            }
            Some(version) if version.causal.is_none() => {
                told.entry = Some(key_value(user_key.clone(), version));
            }
            Some(version) => {
                if reading.asked.tentative.is_some() {
                    told.dots = new_names(group, &key, &version)?;
                }
                let place = KeyPlace {
                    keyspace: reading.keyspace,
                    range: reading.range,
                    user_key: &user_key,
                    key: key.clone(),
                };
                // As it was shown when it was decided, whatever has expired since.
                let shown = self.shown_version_at(&place, Some(version), Timestamp(revision.0))?;
                let mut entry = shown.entry.unwrap_or_else(|| v1::KeyValue {
                    key: user_key.clone(),
                    ..v1::KeyValue::default()
                });
                entry.revision = revision.0;
                told.entry = Some(entry);
                told.siblings = shown.siblings;
                told.typed = shown.typed;
            }
        }
        if reading.asked.previous && !is_oldest_in_etcd(reading.keyspace, group, revision) {
            size += previous(group, &mut told, &key, size)?;
        }
        Ok((told, size))
    }
}

/// Lets more events come together for one message, where many wait for them: each message costs
/// each of them as much as some events do.
async fn gather(company: usize) {
    if company >= GATHER_COMPANY_MIN {
        let company = u32::try_from(company).unwrap_or(u32::MAX);
        let pause = GATHER_TIME_EACH
            .saturating_mul(company)
            .min(GATHER_TIME_MAX);
        tokio::time::sleep(pause).await;
    }
}

/// The names of writes of the eventual plane whose values a version is the first to show; where
/// what was there before is collected: of all that it shows.
fn new_names(group: &Group, key: &Bytes, version: &Version) -> Result<Vec<String>, GatewayError> {
    let before = match group
        .table()
        .get_at(key, version.revision.saturating_sub(1))
    {
        Ok(before) => before,
        Err(EngineError::BelowFloor { .. }) => None,
        Err(error) => return Err(stored(error)),
    };
    let before = live_values(key, before).map_err(stored)?;
    let live = live_values(key, Some(version.clone())).map_err(stored)?;
    let is_new = |dot: &Dot| dot.actor != Actor::LOG && before.iter().all(|(old, _)| old != dot);
    let new = live.into_iter().map(|(dot, _)| dot).filter(is_new);
    Ok(new.map(|dot| dot.to_string()).collect())
}

/// Adds what an event replaced, and says how many bytes that is.
fn previous(
    group: &Group,
    told: &mut v1::WatchEvent,
    key: &Bytes,
    size: usize,
) -> Result<usize, GatewayError> {
    let entry = told.entry.as_ref();
    let (revision, user_key) = entry.map_or((0, Bytes::new()), |e| (e.revision, e.key.clone()));
    let before = group.table().get_at(key, revision.saturating_sub(1));
    match before {
        Ok(None) => Ok(0),
        Ok(Some(version)) if size + version.value.len() > EVENT_BYTES_MAX => {
            told.previous_omitted = true;
            Ok(0)
        }
        Ok(Some(version)) => {
            let bytes = version.value.len();
            told.previous = Some(key_value(user_key, version));
            Ok(bytes)
        }
        Err(EngineError::BelowFloor { .. }) => {
            told.previous_omitted = true;
            Ok(0)
        }
        Err(error) => Err(stored(error)),
    }
}

/// Whether what was there before an event is what etcd's clients have compacted.
fn is_oldest_in_etcd(keyspace: &KeyspaceView, group: &Group, revision: Revision) -> bool {
    keyspace.options.api == Api::Etcd
        && group.etcd(|revisions| revisions.at(revision) <= revisions.compacted())
}

/// A delete in an etcd keyspace, whose clients count revisions in their own way.
fn deleted_in_etcd(group: &Group, key: Bytes, revision: Revision) -> v1::KeyValue {
    let row = mvccpb::KeyValue {
        mod_revision: group.etcd(|revisions| revisions.at(revision)),
        ..mvccpb::KeyValue::default()
    };
    v1::KeyValue {
        key,
        revision: revision.0,
        value: row.encode_to_vec().into(),
        ..v1::KeyValue::default()
    }
}

pub(super) fn user_key(keyspace: &KeyspaceView, key: &Bytes) -> Bytes {
    let prefix_bytes = keyspace.options.partitioning.prefix_bytes();
    key.slice(prefix_bytes.min(key.len())..)
}

/// The first revision that a place wants.
pub(super) fn first_wanted(place: &Place) -> Revision {
    Revision(place.whole().0.saturating_add(1))
}
