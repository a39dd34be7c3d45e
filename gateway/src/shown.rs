//! What clients are told of a key of both planes: its values, what they come to, and its context;
//! what they say to have seen; and fences, which bring what is seen on one plane to the other.
//!
//! Not here: who is asked (`read`, `eventual`), and what a value means (`quorate_types::causal`).

use bytes::Bytes;
use quorate_eventual::EventualError;
use quorate_proto::v1;
use quorate_raft::machine::live_values;
use quorate_raft::{Group, KeyspaceView};
use quorate_storage::engine::Version;
use quorate_types::causal::{Actor, Binding, Context as Seen, Dots, Intervals, KeyState};
use quorate_types::{Mode, Timestamp};

use crate::context::Context;
use crate::errors::GatewayError;
use crate::eventual::{Place, identity_of};
use crate::gateway::{Gateway, range_of};
use crate::typed;
use crate::write::Write;

/// What clients are told of a key.
#[derive(Default)]
pub(crate) struct Shown {
    pub(crate) entry: Option<v1::KeyValue>,
    pub(crate) siblings: Vec<v1::KeyValue>,
    /// Live values beside the first.
    beside: usize,
    pub(crate) typed: Option<v1::TypedValue>,
    pub(crate) context: Bytes,
    /// What the context says, of a key as the log has decided it.
    pub(crate) seen: Option<Dots>,
}

impl Shown {
    /// What its reader sends back with its next write.
    pub(crate) fn context(self) -> Bytes {
        self.context
    }

    /// As the answer of a get.
    pub(crate) fn answer(self, mut receipt: v1::Receipt) -> v1::GetResponse {
        receipt.siblings = u32::try_from(self.beside).unwrap_or(u32::MAX);
        receipt.context = self.context;
        v1::GetResponse {
            found: self.entry.is_some(),
            entry: self.entry,
            siblings: self.siblings,
            receipt: Some(receipt),
            typed: self.typed,
            partial: false,
        }
    }
}

impl Gateway {
    /// Whether the log has not decided yet what was read of a key. Where this node is no replica
    /// of the range it cannot tell.
    pub(crate) fn is_tentative(
        &self,
        place: &Place<'_>,
        state: &KeyState,
    ) -> Result<bool, GatewayError> {
        if place.keyspace.options.mode != Mode::Mixed {
            return Ok(false);
        }
        let differs = self
            .eventual()
            .differs_from_log(place.range.id, &place.key, state)?;
        Ok(differs.unwrap_or(state.live().len() > 0))
    }

    /// Does what a request's fence asks for, if it has one.
    ///
    /// # Errors
    ///
    /// A fence where there is none to be had, or that is not decided in time: without an effect
    /// but that the log may know more.
    pub(crate) async fn fence(
        &self,
        keyspace: &KeyspaceView,
        user_key: &Bytes,
        consistency: Option<&v1::Consistency>,
        context: &Context,
    ) -> Result<(), GatewayError> {
        let Some(consistency) = consistency.filter(|consistency| consistency.fence) else {
            return Ok(());
        };
        let is_strong = |rung: &v1::Rung| {
            [
                v1::Level::Linearizable as i32,
                v1::Level::Unspecified as i32,
            ]
            .contains(&rung.level)
        };
        if keyspace.options.mode != Mode::Mixed || !consistency.rungs.iter().all(is_strong) {
            let problem = "fences are for level linearizable in keyspaces of mode mixed";
            return Err(GatewayError::field("consistency.fence", problem));
        }
        let (range, key) = range_of(keyspace, user_key, context)?;
        let fenced = self.eventual().fence(range.id, &key, context.deadline);
        match fenced.await {
            Ok(_) => Ok(()),
            // Whatever was decided of it, the request itself was not begun.
            Err(EventualError::NotDecided { range, .. }) => Err(EventualError::TooFewAnswers {
                range,
                wanted: 1,
                answered: 0,
            }
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The dots that the client of a strong write says to have seen, as its entry carries them:
    /// in its context, or else in its session.
    pub(crate) fn seen_of(
        &self,
        keyspace: &KeyspaceView,
        user_key: &Bytes,
        sealed: Option<&Bytes>,
        write: &Write<'_>,
    ) -> Result<Bytes, GatewayError> {
        let is_mixed = keyspace.options.mode == Mode::Mixed;
        let Some(sealed) = sealed else {
            let wanted = write.session.wanted(write.range.id);
            let mut seen = wanted.dots;
            if is_mixed {
                // So that what the session had not seen is counted.
                seen.insert_all(Actor::LOG, &Intervals::up_to(wanted.revision.0));
            }
            return Ok(match seen.is_empty() {
                true => Bytes::new(),
                false => seen.to_bytes(),
            });
        };
        if !is_mixed {
            let problem = "contexts are for keyspaces of mode mixed and eventual";
            return Err(GatewayError::field("context", problem));
        }
        let binding = identity_of(keyspace);
        let binding = Binding {
            cluster: self.node().cluster().as_bytes(),
            keyspace: &binding,
            key: user_key,
        };
        if sealed.is_empty() {
            return Ok(Dots::new().to_bytes());
        }
        let seen = Seen(sealed.clone()).open(&binding);
        // What the log has decided is replaced anyway; of that too it is counted what was not seen.
        Ok(seen.map_err(EventualError::from)?.to_bytes())
    }

    /// A key of a mixed keyspace as the log has decided it: its values, and the context that its
    /// reader sends back with its next write, on either plane.
    pub(crate) fn decided_key(
        &self,
        place: &Place<'_>,
        group: &Group,
    ) -> Result<Shown, GatewayError> {
        let (version, seen) = group
            .version_and_seen(&place.key)
            .map_err(crate::write::stored)?;
        let context = place.with_binding(self.node().cluster(), |binding| {
            Seen::seal(&seen, binding).0
        });
        let mut shown = self.shown_version(place, version)?;
        shown.context = context;
        shown.seen = Some(seen);
        Ok(shown)
    }

    /// What clients are told of a version of a key.
    pub(crate) fn shown_version(
        &self,
        place: &Place<'_>,
        version: Option<Version>,
    ) -> Result<Shown, GatewayError> {
        self.shown_version_at(place, version, self.node().now())
    }

    /// The same for readers at another time.
    pub(crate) fn shown_version_at(
        &self,
        place: &Place<'_>,
        version: Option<Version>,
        now: Timestamp,
    ) -> Result<Shown, GatewayError> {
        let Some(version) = version else {
            return Ok(Shown::default());
        };
        if version.causal.is_none() {
            let entry = crate::write::key_value(place.user_key.clone(), version);
            return Ok(Shown {
                entry: Some(entry),
                ..Shown::default()
            });
        }
        let revision = version.revision;
        let live = live_values(&place.key, Some(version)).map_err(crate::write::stored)?;
        let state = KeyState::of(live, Dots::new());
        let mut shown = self.shown_at(place, &state, now)?;
        // All stand in one version, and compare by its revision.
        for value in shown.entry.iter_mut().chain(&mut shown.siblings) {
            value.revision = revision;
        }
        Ok(shown)
    }

    /// What clients are told of a key, but for its context.
    pub(crate) fn shown(&self, place: &Place<'_>, state: &KeyState) -> Result<Shown, GatewayError> {
        self.shown_at(place, state, self.node().now())
    }

    fn shown_at(
        &self,
        place: &Place<'_>,
        state: &KeyState,
        now: Timestamp,
    ) -> Result<Shown, GatewayError> {
        let policy = place.keyspace.options.conflict;
        let state = self.faults().shown(policy, state);
        let reading = quorate_types::causal::evaluate(policy, &state, now);
        let reading = reading.map_err(EventualError::from)?;
        let typed = typed::value(&reading);
        let mut values = typed::values(place.user_key, &reading).into_iter();
        let entry = values.next().or_else(|| {
            typed.is_some().then(|| v1::KeyValue {
                key: place.user_key.clone(),
                ..v1::KeyValue::default()
            })
        });
        Ok(Shown {
            entry,
            siblings: values.collect(),
            beside: reading.siblings().saturating_sub(1),
            typed,
            context: Bytes::new(),
            seen: None,
        })
    }
}
