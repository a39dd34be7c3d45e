//! Levels and ladders as they travel.
//!
//! Not here: what they mean (`quorate-types`), which of them a keyspace serves (the server).

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::{Ack, Copies, FieldError, Ladder, Level, Rung};

/// What a request says about its consistency. No ladder: the keyspace's default.
///
/// # Errors
///
/// A staleness or budget over 49 days (32 bits of milliseconds), or below a millisecond.
pub(crate) fn consistency(
    ladder: Option<&Ladder>,
    token: &Bytes,
    (fence, best_available): (bool, bool),
) -> Result<Option<v1::Consistency>, FieldError> {
    if ladder.is_none() && token.is_empty() && !fence {
        return Ok(None);
    }
    let rungs = ladder
        .map(Ladder::rungs)
        .unwrap_or_default()
        .iter()
        .map(rung_to_wire)
        .collect::<Result<_, _>>()?;
    Ok(Some(v1::Consistency {
        rungs,
        session_token: token.clone(),
        fence,
        best_available,
    }))
}

fn rung_to_wire(rung: &Rung) -> Result<v1::Rung, FieldError> {
    let mut wire = v1::Rung {
        budget_ms: match rung.budget {
            Some(budget) => whole_millis("consistency.rungs.budget_ms", budget)?,
            None => 0,
        },
        ..v1::Rung::default()
    };
    match rung.level {
        Level::Linearizable => wire.set_level(v1::Level::Linearizable),
        Level::Bounded(age) => {
            wire.set_level(v1::Level::Bounded);
            wire.staleness_max_ms = whole_millis("consistency.rungs.staleness_max_ms", age)?;
        }
        Level::Session => wire.set_level(v1::Level::Session),
        Level::Stale => wire.set_level(v1::Level::Stale),
        Level::Eventual {
            copies,
            strict,
            ack,
        } => {
            wire.set_level(v1::Level::Eventual);
            set_copies(&mut wire, copies);
            wire.strict = strict;
            wire.set_ack(match ack {
                Ack::Disk => v1::Ack::Disk,
                Ack::Memory => v1::Ack::Memory,
            });
        }
    }
    Ok(wire)
}

fn set_copies(wire: &mut v1::Rung, copies: Copies) {
    let (word, count) = match copies {
        Copies::One => (v1::Copies::One, 0),
        Copies::Quorum => (v1::Copies::Quorum, 0),
        Copies::LocalQuorum => (v1::Copies::LocalQuorum, 0),
        Copies::All => (v1::Copies::All, 0),
        Copies::Count(count) => (v1::Copies::Count, u32::from(count)),
    };
    wire.set_copies(word);
    wire.copies_count = count;
}

/// On the wire 0 means "none", so a positive time below a millisecond cannot be said.
fn whole_millis(field: &'static str, duration: Duration) -> Result<u32, FieldError> {
    u32::try_from(duration.as_millis())
        .ok()
        .filter(|millis| *millis > 0)
        .ok_or_else(|| FieldError::new(field, format!("{duration:?}; allowed: 1ms to 49d")))
}

/// The level that a receipt names; none if it names none that this version knows.
pub fn level_from_wire(rung: &v1::Rung) -> Option<Level> {
    Some(match rung.level() {
        v1::Level::Unspecified => return None,
        v1::Level::Linearizable => Level::Linearizable,
        v1::Level::Bounded => {
            Level::Bounded(Duration::from_millis(u64::from(rung.staleness_max_ms)))
        }
        v1::Level::Session => Level::Session,
        v1::Level::Stale => Level::Stale,
        v1::Level::Eventual => Level::Eventual {
            copies: match rung.copies() {
                v1::Copies::Unspecified => return None,
                v1::Copies::One => Copies::One,
                v1::Copies::Quorum => Copies::Quorum,
                v1::Copies::LocalQuorum => Copies::LocalQuorum,
                v1::Copies::All => Copies::All,
                v1::Copies::Count => Copies::Count(u8::try_from(rung.copies_count).ok()?),
            },
            strict: rung.strict,
            ack: match rung.ack() {
                v1::Ack::Disk => Ack::Disk,
                v1::Ack::Memory => Ack::Memory,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ladders_survive_the_wire() {
        for text in [
            "linearizable",
            "bounded:5s",
            "session",
            "stale",
            "eventual:local_quorum",
            "linearizable@200ms > eventual:quorum,strict,memory@100ms > eventual:3",
        ] {
            let ladder: Ladder = text.parse().unwrap();
            let wire = consistency(Some(&ladder), &Bytes::new(), (false, false))
                .unwrap()
                .unwrap();
            let back = Ladder(
                wire.rungs
                    .iter()
                    .map(|rung| Rung {
                        level: level_from_wire(rung).unwrap(),
                        budget: Some(rung.budget_ms)
                            .filter(|millis| *millis > 0)
                            .map(|millis| Duration::from_millis(u64::from(millis))),
                    })
                    .collect(),
            );
            assert_eq!(back, ladder);
        }
    }

    #[test]
    fn nothing_said_is_nothing_sent() {
        assert_eq!(consistency(None, &Bytes::new(), (false, false)), Ok(None));
        let with_token = consistency(None, &Bytes::from_static(b"t"), (false, false))
            .unwrap()
            .unwrap();
        assert!(with_token.rungs.is_empty());
        assert_eq!(with_token.session_token, "t");
    }

    #[test]
    fn times_that_the_wire_cannot_say_are_refused() {
        let ladder = Ladder::from(Level::Bounded(Duration::from_micros(10)));
        let refused = consistency(Some(&ladder), &Bytes::new(), (false, false)).unwrap_err();
        assert_eq!(refused.field, "consistency.rungs.staleness_max_ms");
    }
}
