//! How one run goes: what its keys hold, whether starts are closed, and which mistake is planted
//! in the rules that a primary follows. Not here: the rules.

use bytes::Bytes;
use quorate_types::Timestamp;
use quorate_types::causal::Part;

/// What a primary of a `mixed` range could get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A strong write also replaces the tentative writes that a replica happens to hold.
    Unseen,
    /// A context holds the live dots of a read alone.
    LiveOnly,
    /// A context holds base and the live dots: replaced dots beyond base are left out.
    Compact,
    /// A dot of a replaced value leaves the committed clock.
    Forget,
    /// The overlay is dropped when absorption is proposed, not when it is applied.
    Trim,
    /// Installing a snapshot replaces the overlay too.
    Wipe,
    /// A strong entry of a request that was applied (a retry) is applied again.
    Repeat,
    /// The strong attempt of a ladder is a put.
    BlindLadder,
    /// An absorption has the records of one moment with the base of a later one.
    ClockNewer,
    /// What a writer has seen is kept as one maximum per actor.
    Maxima,
    /// The rungs of one ladder name their writes differently.
    TwoDots,
    /// A retry names the write anew.
    NewDot,
    /// A snapshot comes without the clock of absorbed writes.
    SnapshotWithoutClock,
    /// A finished start is closed before the repair that must end first.
    CloseEarly,
    /// A finished start is closed after that repair, before the log has what it found.
    CloseUnabsorbed,
    /// A finished start is closed beside the log.
    CloseUndecided,
    /// A primary closes beside its rows what the log has closed, and they have not taken in the
    /// log's state.
    CloseBesideOldRows,
    /// A primary closes beside its rows what the log's state in memory has closed.
    CloseAtOnce,
    /// A new row begins empty, also beside live values of the log's state.
    NoSeed,
    /// A peer's clock is merged before the log's state is on disk as far as that peer's.
    MergeAtOnce,
    /// A row goes once the log's state in memory knows all that it knows.
    TrimAtOnce,
    /// Where there is no row, the view claims what the overlay's clock covers.
    AbsentClaims,
    /// Rows do not go into an entry again after the overlay's clock took in a peer's.
    MergedUnsaid,
    /// A row that was settled counts as unchanged.
    SettledUnsaid,
    /// Rows go while they are compared with a peer's.
    TrimInRepair,
    /// A row that began while its range was compared is not brought up to the log's state
    /// before the peer's clock is merged.
    BegunInRepair,
    /// After a start a row is taken for absorbed that no entry known to be applied had.
    FreshForgotten,
    /// A base goes into an entry that does not have all fresh keys.
    BaseTooEarly,
    /// An increment folds the amounts of other actors too.
    FoldOthers,
    /// An increment folds amounts, and does not say that it replaces them.
    FoldUnsaid,
    /// An increment says what it folds, and not what was folded before.
    FoldForgets,
    /// An expiry takes all values of its key.
    ExpireAll,
    /// What expired leaves the committed clock.
    ExpireForgets,
    /// An expiry is not judged by the revision of its entry.
    ExpireEarly,
    /// Of concurrent values the log keeps the latest alone.
    LatestAlone,
}

impl Mistake {
    /// The course in which it shows.
    pub const fn course(self) -> Course {
        let closes = matches!(
            self,
            Self::CloseEarly
                | Self::CloseUnabsorbed
                | Self::CloseUndecided
                | Self::CloseBesideOldRows
                | Self::CloseAtOnce
        );
        let kind = match self {
            Self::FoldOthers | Self::FoldUnsaid | Self::FoldForgets => Kind::Counters,
            Self::ExpireAll | Self::ExpireForgets | Self::ExpireEarly | Self::LatestAlone => {
                Kind::Timed
            }
            _ => Kind::Values,
        };
        Course {
            mistake: Some(self),
            closes,
            kind,
        }
    }
}

/// What the keys of a run hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Values, all by one clock.
    #[default]
    Values,
    /// Values of which some expire, by clocks that are wrong, now and then by much.
    Timed,
    /// Counters.
    Counters,
}

/// By how much most clocks are wrong at most, in steps.
const SKEW_STEPS: u64 = 20;
/// And how far ahead some are.
const FAR_STEPS: u64 = 400;
/// One of so many values expires.
const EXPIRES: u64 = 3;
const EXPIRY_MAX_STEPS: u64 = 80;

/// A number that looks drawn, from the number of a step: so times follow from values.
const fn drawn(step: u64) -> u64 {
    (step.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 40
}

impl Kind {
    /// What the wall clock of whoever acts in a step says.
    pub const fn clock(self, step: u64) -> u64 {
        match self {
            Self::Values | Self::Counters => step,
            Self::Timed => (step + drawn(step) % (2 * SKEW_STEPS)).saturating_sub(SKEW_STEPS),
        }
    }

    /// When the value of a step was written, as its coordinator says.
    pub const fn timestamp_of(self, step: u64) -> Timestamp {
        match self {
            Self::Timed if drawn(step).is_multiple_of(16) => Timestamp(step + FAR_STEPS),
            Self::Values | Self::Timed | Self::Counters => Timestamp(self.clock(step)),
        }
    }

    /// From when on the value of a step is hidden.
    pub const fn expiry_of(self, step: u64) -> Option<Timestamp> {
        let draw = drawn(step ^ 0xffff);
        match self {
            Self::Timed if draw.is_multiple_of(EXPIRES) => {
                Some(Timestamp(step + 1 + draw % EXPIRY_MAX_STEPS))
            }
            Self::Values | Self::Timed | Self::Counters => None,
        }
    }

    pub fn payload(self, value: u64) -> Bytes {
        match self {
            Self::Values | Self::Timed => Bytes::copy_from_slice(&value.to_be_bytes()),
            Self::Counters => {
                Part::Amount(i64::try_from(value).expect("amounts are small")).encode()
            }
        }
    }

    /// What [`Kind::payload`] was made of.
    pub fn value_of(self, payload: &Bytes) -> u64 {
        match self {
            Self::Values | Self::Timed => {
                u64::from_be_bytes(payload[..].try_into().expect("a payload of the model"))
            }
            Self::Counters => match Part::decode(payload) {
                Ok(Part::Amount(amount)) => u64::try_from(amount).expect("no amount is negative"),
                other => panic!("a counter holds {other:?}"),
            },
        }
    }
}

/// How one run goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    pub mistake: Option<Mistake>,
    /// Names are given out and never used, and finished starts are closed.
    pub closes: bool,
    pub kind: Kind,
}

impl Course {
    pub fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
