//! From the consistency that a request names to the rungs that are tried, and back to the receipt.
//!
//! What a keyspace's mode forbids, and what this version does not have yet, is refused here, before
//! anything is routed. A level is never changed silently. Not here: meeting a level (`read`, `scan`).

use std::time::Duration;

use quorate_proto::v1;
use quorate_types::limits::LADDER_RUNGS_MAX;
use quorate_types::{
    Ack, Copies, Level, Mode, Operation, ReadLevel, Refusal, WriteLevel, default_level, served,
};
use tokio::time::Instant;

use crate::errors::GatewayError;

/// One rung of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRung {
    /// What is promised.
    pub level: ReadLevel,
    /// How long it is tried; none: for what is left.
    pub budget: Option<Duration>,
}

/// The rungs of a read. The usual case has one, and allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    first: ReadRung,
    rest: Vec<ReadRung>,
}

impl ReadPlan {
    /// The rungs, the preferred one first.
    pub fn rungs(&self) -> impl Iterator<Item = ReadRung> + '_ {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }

    /// Whether some rung needs a session token.
    fn needs_token(&self) -> bool {
        self.rungs().any(|rung| rung.level == ReadLevel::Session)
    }

    /// How many rungs there are.
    pub fn len(&self) -> usize {
        1 + self.rest.len()
    }
}

/// When a rung ends: at its budget's end, or the request's, whichever is earlier.
pub fn rung_deadline(rung: ReadRung, now: Instant, deadline: Instant) -> Instant {
    rung.budget
        .map_or(deadline, |budget| deadline.min(now + budget))
}

/// The rungs of a read (`operation` is `Read` or `Snapshot`) in a keyspace.
///
/// # Errors
///
/// Names the rung that is no level, that the mode does not serve, or that needs a token.
pub fn read_plan(
    keyspace: &str,
    mode: Mode,
    operation: Operation,
    consistency: Option<&v1::Consistency>,
) -> Result<ReadPlan, GatewayError> {
    let rungs = consistency.map_or(&[][..], |consistency| &consistency.rungs);
    let place = Place {
        keyspace,
        mode,
        operation,
    };
    let plan = match rungs {
        [] => ReadPlan {
            first: place.read_rung(0, &v1::Rung::default())?,
            rest: Vec::new(),
        },
        [first, rest @ ..] => {
            count_within_limit(rungs.len())?;
            let rest = rest
                .iter()
                .enumerate()
                .map(|(at, rung)| place.read_rung(at + 1, rung));
            ReadPlan {
                first: place.read_rung(0, first)?,
                rest: rest.collect::<Result<_, _>>()?,
            }
        }
    };
    let token = consistency.is_some_and(|consistency| !consistency.session_token.is_empty());
    if plan.needs_token() && !token {
        let problem = "level session needs the token of an earlier answer; \
                       a session begins with the token of one zero byte";
        return Err(GatewayError::field("consistency.session_token", problem));
    }
    Ok(plan)
}

/// One eventual rung of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventualRung {
    /// By how many holders.
    pub copies: Copies,
    /// Whether only primaries count.
    pub strict: bool,
    /// When a holder counts.
    pub ack: Ack,
    /// How long it is tried; none: for what is left.
    pub budget: Option<Duration>,
}

impl EventualRung {
    /// As a receipt names it.
    pub fn to_wire(self) -> v1::Rung {
        to_wire(Level::Eventual {
            copies: self.copies,
            strict: self.strict,
            ack: self.ack,
        })
    }
}

/// Which plane takes a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WritePlan {
    /// The range's log, within the time that the rungs give it together; none: no limit of their
    /// own. Such rungs are all `linearizable`, so they are one attempt.
    Strong(Option<Duration>),
    /// The eventual path, or a ladder over both planes.
    Eventual(EventualPlan),
}

/// The rungs of a write that has a name of the eventual plane: on all of them it is the same
/// write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventualPlan {
    /// Times that the log is given first; none: what is left.
    pub strong: Vec<Option<Duration>>,
    /// The preferred rung first.
    pub rungs: Vec<EventualRung>,
}

impl EventualPlan {
    /// A rung as a receipt names it.
    pub fn rung_to_wire(&self, at: usize) -> Option<v1::Rung> {
        match at.checked_sub(self.strong.len()) {
            None => Some(write_rung_to_wire()),
            Some(at) => self.rungs.get(at).map(|rung| rung.to_wire()),
        }
    }
}

/// Checks the levels of a write.
///
/// # Errors
///
/// As [`read_plan`].
pub fn write_plan(
    keyspace: &str,
    mode: Mode,
    operation: Operation,
    consistency: Option<&v1::Consistency>,
) -> Result<WritePlan, GatewayError> {
    let rungs = consistency.map_or(&[][..], |consistency| &consistency.rungs);
    let place = Place {
        keyspace,
        mode,
        operation,
    };
    count_within_limit(rungs.len())?;
    let unnamed = [v1::Rung::default()];
    let rungs = if rungs.is_empty() { &unnamed } else { rungs };
    let (mut strong, mut eventual) = (Vec::new(), Vec::new());
    for (at, rung) in rungs.iter().enumerate() {
        match place.check(at, rung)? {
            Level::Eventual {
                copies,
                strict,
                ack,
            } => eventual.push(EventualRung {
                copies,
                strict,
                ack,
                budget: budget_of(rung),
            }),
            Level::Linearizable | Level::Bounded(_) | Level::Session | Level::Stale => {
                if !eventual.is_empty() {
                    let problem = "a rung of the log stands below an eventual one, \
                                   which would promise less and be tried first";
                    return Err(refused_kind(at, problem));
                }
                strong.push(budget_of(rung));
            }
        }
    }
    if eventual.is_empty() {
        let sum = strong.into_iter().sum::<Option<Duration>>();
        return Ok(WritePlan::Strong(sum));
    }
    if strong.contains(&None) {
        let problem = "a rung without a budget leaves no time for those below it: \
                       say one, as in linearizable@200ms > eventual:one";
        return Err(GatewayError::field("consistency.rungs", problem));
    }
    Ok(WritePlan::Eventual(EventualPlan {
        strong,
        rungs: eventual,
    }))
}

/// Whether a request with these rungs, or with none, belongs to the eventual plane alone.
pub fn is_eventual(mode: Mode, consistency: Option<&v1::Consistency>) -> bool {
    let rungs = consistency.map_or(&[][..], |consistency| &consistency.rungs);
    let eventual = |rung: &v1::Rung| {
        let of_mode = [v1::Level::Unspecified as i32, v1::Level::Session as i32];
        rung.level == v1::Level::Eventual as i32
            || of_mode.contains(&rung.level) && mode == Mode::Eventual
    };
    if rungs.is_empty() {
        return mode == Mode::Eventual;
    }
    rungs.iter().all(eventual)
}

/// Checks the levels of a write that only the log can take, and returns the time they give it
/// together; none: no limit of their own.
///
/// # Errors
///
/// As [`read_plan`].
pub fn write_budget(
    keyspace: &str,
    mode: Mode,
    operation: Operation,
    consistency: Option<&v1::Consistency>,
) -> Result<Option<Duration>, GatewayError> {
    match write_plan(keyspace, mode, operation, consistency)? {
        WritePlan::Strong(budget) => Ok(budget),
        WritePlan::Eventual(_) => Err(GatewayError::no_eventual_plane(
            format!("such a {operation} at an eventual level"),
            mode,
        )),
    }
}

/// What the levels of a request are judged by.
struct Place<'a> {
    keyspace: &'a str,
    mode: Mode,
    operation: Operation,
}

impl Place<'_> {
    fn read_rung(&self, at: usize, rung: &v1::Rung) -> Result<ReadRung, GatewayError> {
        let level = self
            .check(at, rung)?
            .read()
            .map_err(|error| refused_kind(at, error))?;
        Ok(ReadRung {
            level,
            budget: budget_of(rung),
        })
    }

    /// The level of a rung, if the mode and this version serve it.
    fn check(&self, at: usize, rung: &v1::Rung) -> Result<Level, GatewayError> {
        let level = match level_of(at, rung)? {
            Some(level) => level,
            None => default_level(self.mode, self.operation),
        };
        served(self.mode, self.operation, &level).map_err(|refusal| match refusal {
            Refusal::Kind(error) => refused_kind(at, error),
            Refusal::Operation { .. } | Refusal::Level { .. } => {
                GatewayError::not_served(self.keyspace, refusal)
            }
        })?;
        Ok(level)
    }
}

fn refused_kind(at: usize, error: impl std::fmt::Display) -> GatewayError {
    GatewayError::field(format!("consistency.rungs[{at}].level"), error.to_string())
}

fn count_within_limit(rungs: usize) -> Result<(), GatewayError> {
    if rungs <= LADDER_RUNGS_MAX {
        return Ok(());
    }
    let problem = format!("{rungs} rungs are above the limit of {LADDER_RUNGS_MAX}");
    Err(GatewayError::field("consistency.rungs", problem))
}

fn budget_of(rung: &v1::Rung) -> Option<Duration> {
    (rung.budget_ms > 0).then(|| Duration::from_millis(u64::from(rung.budget_ms)))
}

/// The level that a rung names; `None`: the keyspace's default.
fn level_of(at: usize, rung: &v1::Rung) -> Result<Option<Level>, GatewayError> {
    let refused = |field: &str, problem: String| {
        Err(GatewayError::field(
            format!("consistency.rungs[{at}].{field}"),
            problem,
        ))
    };
    let Ok(level) = v1::Level::try_from(rung.level) else {
        let problem = format!(
            "{} is no level; allowed: 0 to 5, as in quorate.v1.Level",
            rung.level
        );
        return refused("level", problem);
    };
    Ok(Some(match level {
        v1::Level::Unspecified => return Ok(None),
        v1::Level::Linearizable => Level::Linearizable,
        v1::Level::Session => Level::Session,
        v1::Level::Stale => Level::Stale,
        v1::Level::Bounded if rung.staleness_max_ms == 0 => {
            return refused(
                "staleness_max_ms",
                "bounded needs an age above 0".to_owned(),
            );
        }
        v1::Level::Bounded => {
            Level::Bounded(Duration::from_millis(u64::from(rung.staleness_max_ms)))
        }
        v1::Level::Eventual => match copies_of(rung) {
            Ok(copies) => Level::Eventual {
                copies,
                strict: rung.strict,
                ack: ack_of(rung),
            },
            Err(problem) => return refused("copies", problem),
        },
    }))
}

fn copies_of(rung: &v1::Rung) -> Result<Copies, String> {
    Ok(match v1::Copies::try_from(rung.copies) {
        Ok(v1::Copies::One) => Copies::One,
        Ok(v1::Copies::Unspecified | v1::Copies::Quorum) => Copies::Quorum,
        Ok(v1::Copies::LocalQuorum) => Copies::LocalQuorum,
        Ok(v1::Copies::All) => Copies::All,
        Ok(v1::Copies::Count) => match u8::try_from(rung.copies_count) {
            Ok(count) if count > 0 => Copies::Count(count),
            Ok(_) | Err(_) => {
                return Err(format!(
                    "copies_count {} is not from 1 to 255",
                    rung.copies_count
                ));
            }
        },
        Err(_) => return Err(format!("{} is no number of copies", rung.copies)),
    })
}

fn ack_of(rung: &v1::Rung) -> Ack {
    if rung.ack == v1::Ack::Memory as i32 {
        Ack::Memory
    } else {
        Ack::Disk
    }
}

/// A read level as a receipt names it.
pub fn read_rung_to_wire(level: ReadLevel) -> v1::Rung {
    to_wire(Level::from(level))
}

/// The level of every write of this version, as a receipt names it.
pub fn write_rung_to_wire() -> v1::Rung {
    to_wire(Level::from(WriteLevel::Linearizable))
}

/// A level on the wire.
pub fn to_wire(level: Level) -> v1::Rung {
    let mut rung = v1::Rung::default();
    let wire = match level {
        Level::Linearizable => v1::Level::Linearizable,
        Level::Session => v1::Level::Session,
        Level::Stale => v1::Level::Stale,
        Level::Bounded(age) => {
            rung.staleness_max_ms = u32::try_from(age.as_millis()).unwrap_or(u32::MAX);
            v1::Level::Bounded
        }
        Level::Eventual {
            copies,
            strict,
            ack,
        } => {
            (rung.copies, rung.copies_count) = copies_to_wire(copies);
            rung.strict = strict;
            rung.ack = match ack {
                Ack::Disk => v1::Ack::Disk as i32,
                Ack::Memory => v1::Ack::Memory as i32,
            };
            v1::Level::Eventual
        }
    };
    rung.level = wire as i32;
    rung
}

fn copies_to_wire(copies: Copies) -> (i32, u32) {
    match copies {
        Copies::One => (v1::Copies::One as i32, 0),
        Copies::Quorum => (v1::Copies::Quorum as i32, 0),
        Copies::LocalQuorum => (v1::Copies::LocalQuorum as i32, 0),
        Copies::All => (v1::Copies::All as i32, 0),
        Copies::Count(count) => (v1::Copies::Count as i32, u32::from(count)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use quorate_types::{Effect, Reason};
    use tonic::Code;

    fn consistency(levels: &[&str]) -> v1::Consistency {
        let rung = |text: &&str| {
            let (level, budget) = text.split_once('@').unwrap_or((text, "0ms"));
            let budget = budget.trim_end_matches("ms").parse().unwrap();
            v1::Rung {
                budget_ms: budget,
                ..to_wire(level.parse().unwrap())
            }
        };
        v1::Consistency {
            fence: false,
            rungs: levels.iter().map(rung).collect(),
            session_token: vec![0].into(),
            ..v1::Consistency::default()
        }
    }

    fn read(mode: Mode, operation: Operation, levels: &[&str]) -> Result<ReadPlan, GatewayError> {
        read_plan("shop", mode, operation, Some(&consistency(levels)))
    }

    #[test]
    fn nothing_named_is_the_default() {
        let plan = read_plan("shop", Mode::Mixed, Operation::Read, None).unwrap();
        assert_eq!(plan.len(), 1);
        assert_eq!(
            plan.first,
            ReadRung {
                level: ReadLevel::Linearizable,
                budget: None
            }
        );
    }

    #[test]
    fn levels_survive_the_wire() {
        for text in [
            "linearizable",
            "bounded:5s",
            "session",
            "stale",
            "eventual:3,strict,memory",
        ] {
            let level: Level = text.parse().unwrap();
            assert_eq!(level_of(0, &to_wire(level)).unwrap(), Some(level), "{text}");
        }
    }

    #[test]
    fn a_mode_refuses_what_it_does_not_serve() {
        let refused = |mode, operation, levels: &[&str]| {
            let error = read(mode, operation, levels).unwrap_err();
            assert_eq!(error.effect(), Effect::None);
            (error.code(), error.reason().unwrap())
        };
        let not_served = (Code::FailedPrecondition, Reason::LevelNotServed);
        assert_eq!(
            refused(Mode::Strong, Operation::Read, &["eventual:one"]),
            not_served
        );
        assert_eq!(
            refused(Mode::Eventual, Operation::Read, &["linearizable"]),
            not_served
        );
        assert_eq!(
            refused(Mode::Eventual, Operation::Snapshot, &["stale"]),
            not_served
        );
        assert_eq!(
            refused(Mode::Mixed, Operation::Snapshot, &["eventual:one"]),
            not_served
        );
    }

    #[test]
    fn a_ladder_goes_from_the_log_to_the_eventual_plane_and_not_back() {
        let plan = |levels: &[&str]| {
            write_plan(
                "shop",
                Mode::Mixed,
                Operation::Write,
                Some(&consistency(levels)),
            )
        };
        for levels in [
            ["eventual:one@5ms", "linearizable"],
            ["linearizable", "eventual:one"],
        ] {
            let error = plan(&levels).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        }
        let both = ["linearizable@200ms", "linearizable@5ms", "eventual:one"];
        let Ok(WritePlan::Eventual(ladder)) = plan(&both) else {
            panic!("the ladder is refused")
        };
        assert_eq!((ladder.strong.len(), ladder.rungs.len()), (2, 1));
        let met = |at| ladder.rung_to_wire(at).map(|rung| rung.level);
        assert_eq!(met(1), Some(v1::Level::Linearizable as i32));
        assert_eq!(met(2), Some(v1::Level::Eventual as i32));
        assert_eq!(met(3), None);
        let strong = plan(&["linearizable@2ms", "linearizable@3ms"]);
        let sum = Duration::from_millis(5);
        assert_eq!(strong.unwrap(), WritePlan::Strong(Some(sum)));
    }

    #[test]
    fn eventual_levels_go_to_the_eventual_plane() {
        assert!(
            read(
                Mode::Mixed,
                Operation::Read,
                &["linearizable", "eventual:one"]
            )
            .is_ok()
        );
        assert!(read(Mode::Eventual, Operation::Read, &["eventual:quorum"]).is_ok());
        let ladder = consistency(&["eventual:all,strict", "eventual:one,memory"]);
        let plan = write_plan("shop", Mode::Mixed, Operation::Write, Some(&ladder)).unwrap();
        let WritePlan::Eventual(EventualPlan { rungs, .. }) = plan else {
            panic!("{plan:?}")
        };
        assert_eq!((rungs[0].copies, rungs[0].strict), (Copies::All, true));
        assert_eq!((rungs[1].copies, rungs[1].ack), (Copies::One, Ack::Memory));
        let plan = write_plan("shop", Mode::Eventual, Operation::Write, None).unwrap();
        assert!(
            matches!(plan, WritePlan::Eventual(plan) if plan.rungs[0].copies == Copies::Quorum)
        );
    }

    #[test]
    fn writes_take_no_read_levels_and_sum_their_budgets() {
        let write = |levels: &[&str]| {
            write_budget(
                "shop",
                Mode::Mixed,
                Operation::Write,
                Some(&consistency(levels)),
            )
        };
        let error = write(&["stale"]).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("consistency.rungs[0].level"));
        let mut two = consistency(&["linearizable", "linearizable"]);
        two.rungs[0].budget_ms = 100;
        let budget = |c: &v1::Consistency| {
            write_budget("shop", Mode::Mixed, Operation::Write, Some(c)).unwrap()
        };
        assert_eq!(budget(&two), None);
        two.rungs[1].budget_ms = 50;
        assert_eq!(budget(&two), Some(Duration::from_millis(150)));
    }

    #[test]
    fn a_session_needs_its_token() {
        let without = v1::Consistency {
            session_token: bytes::Bytes::new(),
            ..consistency(&["session"])
        };
        let error = read_plan("shop", Mode::Mixed, Operation::Read, Some(&without)).unwrap_err();
        assert!(error.to_string().starts_with("consistency.session_token"));
        assert!(read(Mode::Mixed, Operation::Read, &["session"]).is_ok());
    }

    #[test]
    fn strange_numbers_are_named() {
        let strange = v1::Consistency {
            rungs: vec![v1::Rung {
                level: 77,
                ..v1::Rung::default()
            }],
            ..v1::Consistency::default()
        };
        let error = read_plan("shop", Mode::Mixed, Operation::Read, Some(&strange)).unwrap_err();
        assert!(error.to_string().contains("77"));
        let many = consistency(&["stale"; LADDER_RUNGS_MAX + 1]);
        assert!(read_plan("shop", Mode::Mixed, Operation::Read, Some(&many)).is_err());
    }
}
