//! A request's session: what it has seen before, what a replica must have therefore, and the token
//! that goes back.
//!
//! A token binds every level. The levels of the log wait until its state has what the session has
//! seen on either plane; `session` and eventual levels join views until these have it. Not here:
//! the token's form (`token`), and the views (`quorate_eventual`).

use std::time::Duration;

use bytes::Bytes;
use quorate_eventual::{SeenBefore, Wanted};
use quorate_proto::v1;
use quorate_raft::{Group, KeyspaceView};
use quorate_types::causal::Dots;
use quorate_types::{Mode, RangeId, ReadLevel, Revision};
use tokio::time::Instant;

use crate::errors::{GatewayError, shortened};
use crate::eventual::identity_of;
use crate::gateway::Gateway;
use crate::receipt::Spent;
use crate::stand::{CATCH_UP_MAX, Standing, Unmet, Want};
use crate::token::{Binding, KeyspaceTag, RANGE_INTERVALS_KEPT, Seen, SessionToken};

/// The token with which a session begins: nothing seen yet.
const SESSION_BEGIN: &[u8] = &[0];
/// Before a replica's log is looked at again.
const COVER_PAUSE: Duration = Duration::from_millis(5);

/// What an answer of a log's replica shows beside its revision.
#[derive(Clone, Copy)]
pub(crate) enum Saw<'a> {
    /// That a write was decided.
    Nothing,
    /// One key, of which the log knows these dots.
    Key(&'a Dots),
    /// Values whose dots the revision stands for: a write elsewhere cannot tell what it replaces
    /// before it has caught up.
    Values,
}

/// What a request's session has seen before, if it belongs to one.
#[derive(Clone)]
pub(crate) struct Session {
    binding: Binding,
    token: Option<SessionToken>,
    /// As the client sent it.
    sealed: Bytes,
    /// Whether less than what was seen is better than an error.
    best_available: bool,
    /// Whether the log's state shows writes that it did not name itself.
    is_mixed: bool,
}

impl Session {
    /// Of a request that carries no token.
    pub(crate) fn none(binding: Binding) -> Session {
        Session {
            binding,
            token: None,
            sealed: Bytes::new(),
            best_available: false,
            is_mixed: false,
        }
    }

    /// Reads the token of a request.
    ///
    /// # Errors
    ///
    /// `TOKEN_INVALID`, see [`SessionToken::decode`].
    pub(crate) fn of(
        binding: Binding,
        consistency: Option<&v1::Consistency>,
    ) -> Result<Session, GatewayError> {
        let Some(consistency) = consistency else {
            return Ok(Session::none(binding));
        };
        let sealed = consistency.session_token.clone();
        let token = match &sealed[..] {
            [] => None,
            SESSION_BEGIN => Some(SessionToken::default()),
            _ => Some(SessionToken::decode(binding, &sealed)?),
        };
        Ok(Session {
            binding,
            token,
            sealed,
            best_available: consistency.best_available,
            is_mixed: false,
        })
    }

    /// On the wire, with these rungs.
    pub(crate) fn consistency(&self, rungs: Vec<v1::Rung>) -> v1::Consistency {
        v1::Consistency {
            // Done before.
            fence: false,
            rungs,
            session_token: self.sealed.clone(),
            best_available: self.best_available,
        }
    }

    /// Whether there is one.
    pub(crate) fn is_some(&self) -> bool {
        self.token.is_some()
    }

    /// The ranges of which it has seen something.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (RangeId, &Seen)> {
        self.token.iter().flat_map(SessionToken::ranges)
    }

    /// Its token, once the logs of ranges have decided as of these revisions all that it has seen
    /// of them.
    pub(crate) fn settled(&self, ranges: impl Iterator<Item = (RangeId, Revision)>) -> Bytes {
        let Some(token) = &self.token else {
            return Bytes::new();
        };
        let mut token = token.clone();
        for (range, revision) in ranges {
            token.forget(range, Dots::new(), revision);
        }
        token.encode(self.binding)
    }

    /// What it has seen; nothing if there is no session.
    pub(crate) fn wanted(&self, range: RangeId) -> Seen {
        let token = self.token.as_ref();
        token.map_or_else(Seen::default, |token| token.wanted(range))
    }

    /// What a read at a level asks of a replica of the log.
    pub(crate) fn want(&self, level: ReadLevel, range: RangeId) -> Want {
        Want::Level(level, self.wanted(range).revision)
    }

    /// The same, of views.
    pub(crate) fn wanted_of_views(&self, range: RangeId, deadline: Instant) -> Wanted {
        Wanted {
            dots: self.wanted(range).all(),
            best_by: self.best_available.then(|| self.patience(deadline)),
        }
    }

    /// What a write of views is to follow.
    pub(crate) fn seen_before(&self, range: RangeId) -> SeenBefore {
        let seen = self.wanted(range);
        SeenBefore {
            dots: seen.all(),
            is_coarse: seen.is_coarse,
        }
    }

    /// How long a replica is given to catch up.
    fn patience(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        // What is left after that must do for the answer.
        let given = if self.best_available { left / 2 } else { left };
        now + given.min(CATCH_UP_MAX)
    }

    /// The token after something was seen of a replica's log; empty if there is no session. To be
    /// asked for after the replica was read.
    pub(crate) fn after_log(&self, group: &Group, revision: Revision, saw: Saw<'_>) -> Bytes {
        let seen = match saw {
            Saw::Nothing => Seen::default(),
            Saw::Key(context) => Seen::of_context(context),
            Saw::Values => Seen {
                is_coarse: self.is_mixed,
                ..Seen::default()
            },
        };
        let seen = Seen {
            revision: seen.revision.max(revision),
            ..seen
        };
        self.after(group.range_id(), &seen, Some(group))
    }

    /// The token after something was seen of a range; empty if there is no session. `group`: the
    /// replica here, if there is one.
    pub(crate) fn after(&self, range: RangeId, seen: &Seen, group: Option<&Group>) -> Bytes {
        let Some(token) = &self.token else {
            return Bytes::new();
        };
        let mut token = token.clone();
        token.saw(range, seen);
        let dots = token.wanted(range).dots;
        if let Some(group) = group.filter(|_| dots.intervals() > RANGE_INTERVALS_KEPT) {
            let left = group.undecided(None, &dots);
            // Read afterwards: as of it, the log has decided the others.
            token.forget(range, left, group.last_decided());
        }
        token.encode(self.binding)
    }

    /// The token that has seen all that these have; empty if there is no session.
    pub(crate) fn joined<'a>(&self, tokens: impl Iterator<Item = &'a Bytes>) -> Bytes {
        let Some(token) = &self.token else {
            return Bytes::new();
        };
        let mut token = token.clone();
        for sealed in tokens.filter(|sealed| !sealed.is_empty()) {
            // Ours or a peer's of this cluster, a moment ago; one that cannot be read adds nothing.
            if let Ok(other) = SessionToken::decode(self.binding, sealed) {
                token.join(&other);
            }
        }
        token.encode(self.binding)
    }
}

/// What is missing, in words.
pub(crate) fn in_words(missing: &Dots) -> String {
    match missing.is_empty() {
        true => String::new(),
        false => shortened(&format!("writes {missing}")),
    }
}

impl Gateway {
    /// The session of a request of a keyspace.
    ///
    /// # Errors
    ///
    /// `TOKEN_INVALID`, see [`SessionToken::decode`].
    pub(crate) fn session(
        &self,
        keyspace: &KeyspaceView,
        consistency: Option<&v1::Consistency>,
    ) -> Result<Session, GatewayError> {
        let session = Session::of(self.binding(keyspace), consistency)?;
        if self.faults().ignore_tokens {
            return Ok(Session::none(self.binding(keyspace)));
        }
        Ok(Session {
            is_mixed: keyspace.options.mode == Mode::Mixed,
            ..session
        })
    }

    /// What tokens of a keyspace are bound to.
    pub(crate) fn binding(&self, keyspace: &KeyspaceView) -> Binding {
        (self.cluster(), KeyspaceTag::of(&identity_of(keyspace)))
    }

    /// As `stand`, with at least what a session has seen on either plane: of one key, or of the
    /// range.
    pub(crate) async fn stand_in_session(
        &self,
        group: &Group,
        key: Option<&[u8]>,
        want: Want,
        session: &Session,
        deadline: Instant,
    ) -> Result<Standing, Unmet> {
        let missing = match (want, session.is_some()) {
            (Want::Level(..), true) => {
                let covered = Box::pin(self.cover(group, key, session, deadline));
                covered.await.map_err(Unmet::NotNow)?
            }
            (Want::Level(..), false) | (Want::At(_), _) => String::new(),
        };
        let spent = Spent::begin();
        match self.stand(group, want, deadline).await {
            Ok(standing) => Ok(Standing {
                missing,
                ..standing
            }),
            Err(Unmet::NotNow(GatewayError::NotCaughtUp { wanted, .. }))
                if session.best_available && !needs_more(want) =>
            {
                Ok(Standing {
                    missing: format!("the log up to {wanted} {missing}")
                        .trim_end()
                        .to_owned(),
                    ..self.newest(group, spent.confirmed())
                })
            }
            Err(unmet) => Err(unmet),
        }
    }

    /// Waits until the log, as far as it is applied here, has decided what a session has seen of a
    /// key, or of the range. Returns what it has not, in words, where the best that is there will
    /// do.
    pub(crate) async fn cover(
        &self,
        group: &Group,
        key: Option<&[u8]>,
        session: &Session,
        deadline: Instant,
    ) -> Result<String, GatewayError> {
        let range = group.range_id();
        let dots = session.wanted(range).dots;
        let mut missing = group.undecided(key, &dots);
        if missing.is_empty() {
            return Ok(String::new());
        }
        let until = session.patience(deadline);
        if let Some(key) = key {
            // Else it would be absorbed a little later. What this cannot do, time may.
            let key = Bytes::copy_from_slice(key);
            if let Err(error) = self.eventual().fence(range, &key, until).await {
                tracing::debug!(%range, %error, "a session's writes were not fenced");
            }
        }
        loop {
            missing = group.undecided(key, &missing);
            if missing.is_empty() {
                return Ok(String::new());
            }
            let again = Instant::now() + COVER_PAUSE;
            if again >= until {
                break;
            }
            tokio::time::sleep_until(again).await;
        }
        if session.best_available {
            return Ok(in_words(&missing));
        }
        let missing = Box::new(missing);
        Err(GatewayError::SessionBehind { range, missing })
    }
}

/// Whether the level promises something beside the session, which must be kept all the same.
fn needs_more(want: Want) -> bool {
    !matches!(want, Want::Level(ReadLevel::Session | ReadLevel::Stale, _))
}
