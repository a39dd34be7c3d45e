//! What to do after a failed attempt: pure decisions, no clock and no network.
//!
//! A named write may be sent any number of times, for the range's exactly-once window knows
//! its name; reads change nothing; the exceptions, increments, `attempts` knows. So whether to try again is a question of whether it can
//! help, and what has become of the data is a question of all attempts together.

use std::time::Duration;

use quorate_types::{Effect, Reason};
use tonic::Code;

use crate::error::ServerError;
use crate::failure::Failure;
use crate::limits::{BACKOFF_FIRST, BACKOFF_MAX, RENAMES_MAX, RETRY_AFTER_MAX};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again after a pause of about that long.
    Retry {
        /// Before jitter.
        pause: Duration,
        /// The endpoint or its connection is to blame, so rest it.
        rest_endpoint: bool,
    },
    /// The write is surely not done, and its name is too old: send it as a new write.
    Rename,
    /// Tell the caller.
    GiveUp,
}

/// The course of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// Attempts that failed.
    pub(crate) failures: u32,
    /// Some attempt may have been applied, and no answer has said otherwise since.
    pub(crate) maybe_applied: bool,
    /// Times that the write was named anew.
    pub(crate) renames: u32,
}

impl Course {
    /// Takes note of a failed attempt, and decides. `untried` says whether there is an
    /// endpoint that this request has not been to yet, `own_name` whether this client made
    /// up the write's name and may make up another one (a name that the caller brought may
    /// have been used before).
    pub(crate) fn after(&mut self, failure: &Failure, untried: bool, own_name: bool) -> Next {
        let next = self.decide(failure, untried, own_name);
        self.failures += 1;
        match next {
            Next::Rename => self.renames += 1,
            Next::GiveUp if is_settled(failure) => self.maybe_applied = false,
            Next::GiveUp | Next::Retry { .. } => {
                self.maybe_applied |= failure.effect() != Effect::None;
            }
        }
        next
    }

    fn decide(&self, failure: &Failure, untried: bool, own_name: bool) -> Next {
        match failure {
            Failure::NotSent { .. } | Failure::Lost { .. } => Next::Retry {
                pause: if untried {
                    Duration::ZERO
                } else {
                    self.backoff()
                },
                rest_endpoint: true,
            },
            Failure::Refused(error) if self.is_too_old_a_name(error, own_name) => Next::Rename,
            Failure::Refused(error) if is_passing(error) => Next::Retry {
                pause: self.pause_after(error, untried),
                rest_endpoint: is_the_nodes_trouble(error),
            },
            Failure::Refused(_) => Next::GiveUp,
        }
    }

    /// Only if no attempt can have been applied may the write take another name. The server
    /// cannot know: to it, the name may have been used before. This client does: it made the
    /// name up, sent it once, and keeps what it sends within the window, see `identity`. An
    /// effect of `none` is another matter: the name was closed by a question for its outcome,
    /// and who asked was told that the write is not applied.
    fn is_too_old_a_name(&self, error: &ServerError, own_name: bool) -> bool {
        error.reason == Some(Reason::BelowWindow)
            && error.fate.effect != Effect::None
            && own_name
            && !self.maybe_applied
            && self.renames < RENAMES_MAX
    }

    fn pause_after(&self, error: &ServerError, untried: bool) -> Duration {
        if is_the_nodes_trouble(error) && untried {
            return Duration::ZERO;
        }
        let suggested = error.retry_after.unwrap_or_default();
        let longest = match error.reason {
            // The suggestion protects the server: follow it.
            Some(Reason::Overloaded) => RETRY_AFTER_MAX,
            // A leader may be there any moment: ask often, it is cheap to refuse.
            _ => BACKOFF_MAX,
        };
        suggested.min(longest).max(self.backoff())
    }

    /// Doubles with each failure, from [`BACKOFF_FIRST`] to [`BACKOFF_MAX`].
    fn backoff(&self) -> Duration {
        let doublings = self.failures.min(16);
        BACKOFF_FIRST
            .saturating_mul(1 << doublings)
            .min(BACKOFF_MAX)
    }
}

/// Whether what a server refused may pass by itself.
pub(crate) fn is_passing(error: &ServerError) -> bool {
    match error.reason {
        Some(
            Reason::NoLeader
            | Reason::NoMajority
            | Reason::NotCaughtUp
            | Reason::NotConverged
            | Reason::StalenessExceeded
            | Reason::TimedOut
            | Reason::Overloaded
            | Reason::ClockOffset
            | Reason::NodeStopping
            | Reason::HoldersMissing
            | Reason::RangeMoved,
        ) => true,
        Some(
            Reason::KeyEmpty
            | Reason::KeyTooLong
            | Reason::ValueTooLong
            | Reason::FieldInvalid
            | Reason::KeyspaceNotFound
            | Reason::KeyspaceExists
            | Reason::LevelNotServed
            | Reason::CompareFailed
            | Reason::AlreadyExists
            | Reason::RangesSpanned
            | Reason::RevisionCollected
            | Reason::RevisionFuture
            | Reason::PageTokenMismatch
            | Reason::QuotaExceeded
            | Reason::SchemaViolated
            | Reason::BelowWindow
            | Reason::DataLoss
            | Reason::TokenInvalid
            | Reason::ContextInvalid
            | Reason::PolicyMismatch
            | Reason::TooManySiblings
            | Reason::CounterOverflow
            | Reason::LeaseNotFound
            | Reason::LeaseLimit
            | Reason::Internal
            | Reason::NotImplemented,
        ) => false,
        // A reason of a later version, or none at all: the code must do.
        None => matches!(
            error.code,
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Aborted
        ),
    }
}

/// Whether the range itself has decided on the name that all attempts carried, and remembers
/// it: then none of them was applied, or will be.
fn is_settled(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(error) => {
            let decided = matches!(
                error.reason,
                Some(Reason::CompareFailed | Reason::AlreadyExists | Reason::BelowWindow)
            );
            decided && error.fate.effect == Effect::None
        }
        Failure::NotSent { .. } | Failure::Lost { .. } => false,
    }
}

/// Whether another node would fare better.
fn is_the_nodes_trouble(error: &ServerError) -> bool {
    matches!(
        error.reason,
        Some(Reason::NodeStopping | Reason::ClockOffset)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::error::Fate;

    fn refusal(reason: Reason, effect: Effect) -> Failure {
        Failure::Refused(Box::new(ServerError {
            code: Code::Unavailable,
            message: String::new(),
            reason: Some(reason),
            retry_after: None,
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            fate: Fate {
                effect,
                ..Fate::UNTOUCHED
            },
        }))
    }

    fn lost() -> Failure {
        Failure::Lost {
            problem: "reset".to_owned(),
            timed_out: false,
        }
    }

    #[test]
    fn a_lost_attempt_goes_elsewhere_at_once_and_then_backs_off() {
        let mut course = Course::default();
        let at_once = Next::Retry {
            pause: Duration::ZERO,
            rest_endpoint: true,
        };
        assert_eq!(course.after(&lost(), true, true), at_once);
        assert!(course.maybe_applied);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            match course.after(&lost(), false, true) {
                Next::Retry { pause, .. } => pauses.push(pause),
                other => panic!("{other:?}"),
            }
        }
        assert!(pauses.is_sorted());
        assert_eq!(pauses[0], BACKOFF_FIRST * 2);
        assert_eq!(pauses.last(), Some(&BACKOFF_MAX));
    }

    #[test]
    fn a_connection_never_made_changes_nothing() {
        let mut course = Course::default();
        let not_sent = Failure::NotSent {
            problem: "refused".to_owned(),
        };
        course.after(&not_sent, true, true);
        assert!(!course.maybe_applied);
    }

    #[test]
    fn only_a_write_surely_not_done_takes_a_new_name() {
        let below = refusal(Reason::BelowWindow, Effect::Unknown);
        let mut stubborn = Course::default();
        for _ in 0..RENAMES_MAX {
            assert_eq!(stubborn.after(&below, true, true), Next::Rename);
            assert!(!stubborn.maybe_applied);
        }
        assert_eq!(stubborn.after(&below, true, true), Next::GiveUp);

        let mut brought = Course::default();
        assert_eq!(brought.after(&below, true, false), Next::GiveUp);
        assert!(
            brought.maybe_applied,
            "whoever made the name up may have used it"
        );

        let mut after_loss = Course::default();
        after_loss.after(&lost(), true, true);
        assert_eq!(after_loss.after(&below, true, true), Next::GiveUp);
        assert!(after_loss.maybe_applied);
    }

    #[test]
    fn a_closed_name_is_not_taken_up_again() {
        let closed = refusal(Reason::BelowWindow, Effect::None);
        let mut course = Course::default();
        course.after(&lost(), true, true);
        assert_eq!(course.after(&closed, true, true), Next::GiveUp);
        assert!(!course.maybe_applied, "closed means never applied");
    }

    #[test]
    fn doubt_ends_with_a_decision_of_the_range_and_nothing_less() {
        for (reason, doubt) in [(Reason::CompareFailed, false), (Reason::ValueTooLong, true)] {
            let mut course = Course::default();
            course.after(&lost(), true, true);
            course.after(&refusal(reason, Effect::None), true, true);
            assert_eq!(course.maybe_applied, doubt, "{reason}");
        }
    }

    #[test]
    fn suggestions_are_followed_within_bounds() {
        let with_hint = |reason, hint| match refusal(reason, Effect::None) {
            Failure::Refused(mut error) => {
                error.retry_after = Some(hint);
                Failure::Refused(error)
            }
            other => other,
        };
        let pause = |failure: &Failure| match Course::default().after(failure, true, true) {
            Next::Retry { pause, .. } => pause,
            other => panic!("{other:?}"),
        };
        let hint = Duration::from_millis(700);
        assert_eq!(pause(&with_hint(Reason::Overloaded, hint)), hint);
        assert_eq!(
            pause(&with_hint(Reason::Overloaded, Duration::from_secs(60))),
            RETRY_AFTER_MAX
        );
        assert_eq!(pause(&with_hint(Reason::NoLeader, hint)), BACKOFF_MAX);
    }

    #[test]
    fn what_cannot_pass_is_told_at_once() {
        for reason in [Reason::KeyTooLong, Reason::LevelNotServed, Reason::DataLoss] {
            let next = Course::default().after(&refusal(reason, Effect::None), true, true);
            assert_eq!(next, Next::GiveUp, "{reason}");
        }
    }

    #[test]
    fn a_stopping_node_is_left_at_once() {
        let next =
            Course::default().after(&refusal(Reason::NodeStopping, Effect::None), true, true);
        let expected = Next::Retry {
            pause: Duration::ZERO,
            rest_endpoint: true,
        };
        assert_eq!(next, expected);
    }
}
