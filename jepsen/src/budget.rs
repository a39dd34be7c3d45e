//! How long and how large a check may grow before it says *unknown*.

use std::fmt;

/// Steps between two looks at the deadline: a look costs a system call, a step a few hundred
/// nanoseconds.
const STEPS_BETWEEN_LOOKS: u32 = 4096;

/// What a check may use. The clock is the caller's: a closure that says when it is over.
pub struct Budget<'a> {
    expired: &'a dyn Fn() -> bool,
    memory_max_bytes: usize,
    steps: u32,
    spent: Option<Spent>,
    /// Steps that the piece of work at hand may still take.
    left: u64,
}

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The deadline has passed.
    Time,
    /// The memory limit is reached.
    Memory,
    /// More operations are open at one time than the search can tell apart.
    OpenOperations,
    /// The steps of one piece of work are used up; the caller may grant more.
    Steps,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Time => "the deadline has passed",
            Self::Memory => "the memory limit is reached",
            Self::OpenOperations => "too many operations are open at one time",
            Self::Steps => "the steps granted are used up",
        })
    }
}

impl<'a> Budget<'a> {
    /// A budget of the time until `expired` says so, and of memory in bytes.
    pub fn new(expired: &'a dyn Fn() -> bool, memory_max_bytes: usize) -> Self {
        Self {
            expired,
            memory_max_bytes,
            steps: 0,
            spent: None,
            left: u64::MAX,
        }
    }

    /// Grants so many steps to the next piece of work; `u64::MAX` for as many as it takes.
    pub fn grant(&mut self, steps: u64) {
        self.left = steps;
    }

    /// No bounds: for histories whose size is known to be small.
    pub fn unbounded() -> Budget<'static> {
        Budget::new(&|| false, usize::MAX)
    }

    /// Counts a step of a search that holds so much memory; an error if something ran out.
    ///
    /// # Errors
    ///
    /// What ran out, again and again once it did.
    pub fn step(&mut self, memory_bytes: usize) -> Result<(), Spent> {
        self.steps += 1;
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return Err(Spent::Steps),
        }
        if memory_bytes > self.memory_max_bytes {
            self.spent = Some(Spent::Memory);
        }
        if self.steps >= STEPS_BETWEEN_LOOKS {
            self.steps = 0;
            return self.look();
        }
        self.spent.map_or(Ok(()), Err)
    }

    /// Looks at the deadline now: between larger pieces of work.
    ///
    /// # Errors
    ///
    /// As [`Budget::step`].
    pub fn look(&mut self) -> Result<(), Spent> {
        if self.spent.is_none() && (self.expired)() {
            self.spent = Some(Spent::Time);
        }
        self.spent.map_or(Ok(()), Err)
    }
}
