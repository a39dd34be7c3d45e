//! Writes as they become visible on the eventual plane, at a replica of this node: read from the
//! window that all who follow it share, and told unless the log has decided them already.
//!
//! Not here: which of them a client was told of before (`undecided`).

use quorate_eventual::{VisibleFollower, VisiblePlace, VisibleWrite};
use quorate_proto::internal as wire;
use quorate_proto::v1;
use quorate_raft::{AppliedAt, Group, KeyspaceView, Place, RangeView, Wanted};
use quorate_types::causal::{Actor, Dots};
use quorate_types::{RangeId, Revision};
use tokio::sync::watch;
use tokio::time::Instant;

use super::events::{Asked, Page, Reading, user_key};
use crate::errors::GatewayError;
use crate::eventual::Place as KeyPlace;
use crate::gateway::Gateway;

/// What a page is to bring of the eventual plane.
#[derive(Clone, Debug)]
pub(crate) struct TentativeAsked {
    /// None: from now on.
    pub(crate) after: Option<VisiblePlace>,
    /// Writes wait to be said to be decided.
    pub(crate) waits: bool,
}

/// What a page says of it beside its events.
#[derive(Clone, Debug)]
pub(crate) struct TentativeFound {
    pub(crate) place: VisiblePlace,
    pub(crate) missed: u64,
    /// Of these dots the log has decided all, as far as the page's place; none: not said.
    pub(crate) decided: Option<Dots>,
}

/// Reads on from a place.
pub(super) struct Reader {
    follower: VisibleFollower,
    place: VisiblePlace,
    missed: u64,
    waits: bool,
}

impl Reader {
    fn next(&mut self, wanted: Wanted<'_>) -> Vec<VisibleWrite> {
        let most = (wanted.events_max, wanted.bytes_max);
        let found = self.follower.read(self.place, wanted.interval, most);
        self.place = found.place;
        self.missed += found.missed;
        found.writes
    }

    const fn found(&self, decided: Option<Dots>) -> TentativeFound {
        TentativeFound {
            place: self.place,
            missed: self.missed,
            decided,
        }
    }
}

/// What lies beside the log of a range at some moment.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) visible: Vec<v1::WatchEvent>,
    /// Whether that was looked at.
    pub(super) is_read: bool,
    /// What the log has decided all of, and up to which revision; none: nobody waits for it.
    decided: Option<(Dots, Revision)>,
}

impl Beside {
    /// Whether it may settle what the client waits for.
    pub(super) const fn settles(&self) -> bool {
        self.decided.is_some()
    }

    /// Puts it into a page of what the log has decided after that moment.
    pub(super) fn into_page(self, mut page: Page, reader: Option<&Reader>) -> Page {
        page.events.splice(..0, self.visible);
        let decided = self.decided;
        page.tentative = reader.map(|reader| {
            // Not before the client has all that the log made of it.
            let told = decided.filter(|(_, last)| page.place.whole() >= *last);
            reader.found(told.map(|(dots, _)| dots))
        });
        page
    }
}

/// Returns once the log has decided more, or there is more to read.
pub(super) async fn changed(
    applied: &mut watch::Receiver<AppliedAt>,
    reader: Option<&mut Reader>,
) -> Result<(), watch::error::RecvError> {
    let Some(reader) = reader else {
        return applied.changed().await;
    };
    tokio::select! {
        biased;
        changed = applied.changed() => changed,
        () = reader.follower.changed() => Ok(()),
    }
}

impl Gateway {
    /// What is visible beside the log now. To be asked before what the log has decided, so that
    /// what is decided meanwhile comes behind it.
    pub(super) fn look_beside(
        &self,
        group: &Group,
        reading: &Reading<'_>,
        mut reader: Option<&mut Reader>,
        (at, place): (AppliedAt, &Place),
    ) -> Result<Beside, GatewayError> {
        // A replica that is not as far as the client cannot know what that was told.
        let is_far = at.closed >= place.revision;
        let visible = match reader.as_deref_mut().filter(|_| is_far) {
            Some(reader) => self.visible_events(Some(group), reading, reader)?,
            None => Vec::new(),
        };
        let waits = reader.is_some_and(|it| it.waits || !visible.is_empty());
        let decided = waits.then(|| (group.taken_in().0.gapless(), group.last_decided()));
        Ok(Beside {
            visible,
            is_read: is_far,
            decided,
        })
    }

    /// Who reads what becomes visible here, where a page wants that. From here on it is kept.
    pub(super) fn visible_reader(
        &self,
        range: RangeId,
        asked: &Asked,
    ) -> Result<Option<Reader>, GatewayError> {
        let Some(tentative) = &asked.tentative else {
            return Ok(None);
        };
        let follower = self.eventual().follow(range)?;
        Ok(Some(Reader {
            place: tentative.after.unwrap_or_else(|| follower.now()),
            follower,
            missed: 0,
            waits: tentative.waits,
        }))
    }

    /// The next events of writes that the log has not decided. `group`: where the range has a log.
    fn visible_events(
        &self,
        group: Option<&Group>,
        reading: &Reading<'_>,
        reader: &mut Reader,
    ) -> Result<Vec<v1::WatchEvent>, GatewayError> {
        let mut told = Vec::new();
        for mut write in reader.next(reading.wanted()) {
            if let Some(group) = group.filter(|_| !self.faults().watch_tells_decided) {
                let dots: Dots = write.dots.iter().copied().collect();
                let undecided = group.undecided(Some(&write.key), &dots);
                write.dots.retain(|dot| undecided.contains(*dot));
                if write.dots.is_empty() {
                    continue;
                }
            }
            let event = self.visible_event(reading, write)?;
            if reading.takes(event.kind()) {
                told.push(event);
            }
        }
        Ok(told)
    }

    fn visible_event(
        &self,
        reading: &Reading<'_>,
        write: VisibleWrite,
    ) -> Result<v1::WatchEvent, GatewayError> {
        use v1::watch_event::{Kind, State};
        let user_key = user_key(reading.keyspace, &write.key);
        let place = KeyPlace {
            keyspace: reading.keyspace,
            range: reading.range,
            user_key: &user_key,
            key: write.key,
        };
        let mut shown = self.shown(&place, &write.state)?;
        for value in shown.entry.iter_mut().chain(&mut shown.siblings) {
            // There is none to begin from.
            value.revision = 0;
        }
        let is_delete = write.state.live().len() == 0 || shown.entry.is_none();
        let entry = shown.entry.filter(|_| !is_delete);
        Ok(v1::WatchEvent {
            kind: if is_delete { Kind::Delete } else { Kind::Put }.into(),
            state: State::Tentative.into(),
            entry: Some(entry.unwrap_or_else(|| v1::KeyValue {
                key: user_key.clone(),
                ..v1::KeyValue::default()
            })),
            siblings: shown.siblings,
            typed: shown.typed.filter(|_| !is_delete),
            range: reading.range.id.0,
            dots: write.dots.iter().map(ToString::to_string).collect(),
            ..v1::WatchEvent::default()
        })
    }

    /// The next events at a replica of this node of a range without a log; none if none came until
    /// then.
    pub(super) async fn visible_here(
        &self,
        (keyspace, range): (&KeyspaceView, &RangeView),
        asked: &Asked,
        until: Instant,
    ) -> Result<Page, GatewayError> {
        let moved = GatewayError::RangeMoved { range: range.id };
        if !range.replicas.contains(&self.node_id()) {
            return Err(moved);
        }
        let reading = Reading::new(keyspace, range, asked);
        let mut reader = self.visible_reader(range.id, asked)?.ok_or(moved)?;
        let mut events = Vec::new();
        // Where it begins is to be known at once.
        while asked.after.is_some() {
            events = self.visible_events(None, &reading, &mut reader)?;
            let is_over = !events.is_empty() || Instant::now() >= until;
            let changed = tokio::time::timeout_at(until, reader.follower.changed());
            if is_over || changed.await.is_err() {
                break;
            }
        }
        Ok(Page {
            events,
            tentative: Some(reader.found(None)),
            ..Page::default()
        })
    }
}

pub(super) fn asked_to_wire(asked: &TentativeAsked) -> wire::TentativeAsked {
    wire::TentativeAsked {
        after: asked.after.map(place_to_wire),
        waits: asked.waits,
    }
}

pub(super) fn asked_of_wire(asked: wire::TentativeAsked) -> TentativeAsked {
    TentativeAsked {
        after: asked.after.map(place_of_wire),
        waits: asked.waits,
    }
}

pub(super) fn found_to_wire(found: &TentativeFound) -> wire::TentativeFound {
    wire::TentativeFound {
        place: Some(place_to_wire(found.place)),
        missed: found.missed,
        decided: found.decided.as_ref().map(Dots::to_bytes),
    }
}

/// None: what is there does not decode.
pub(super) fn found_of_wire(found: &wire::TentativeFound) -> Option<TentativeFound> {
    let decided = found.decided.as_ref().map(Dots::from_bytes);
    Some(TentativeFound {
        place: place_of_wire(found.place?),
        missed: found.missed,
        decided: decided.transpose().ok()?,
    })
}

const fn place_to_wire(place: VisiblePlace) -> wire::VisiblePlace {
    wire::VisiblePlace {
        disk: place.actor.disk,
        start: place.actor.start,
        number: place.number,
    }
}

const fn place_of_wire(place: wire::VisiblePlace) -> VisiblePlace {
    VisiblePlace {
        actor: Actor {
            disk: place.disk,
            start: place.start,
        },
        number: place.number,
    }
}
