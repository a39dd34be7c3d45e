//! How one run goes: plainly, with starts that are closed, or with a mistake planted in the
//! rules that a primary follows. Not here: the rules.

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
}

impl Mistake {
    /// Whether it shows only where starts are closed.
    pub const fn is_of_closing(self) -> bool {
        matches!(
            self,
            Self::CloseEarly | Self::CloseUnabsorbed | Self::CloseUndecided
        )
    }
}

/// How one run goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    pub mistake: Option<Mistake>,
    /// Names are given out and never used, and finished starts are closed.
    pub closes: bool,
}

impl Course {
    pub fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
