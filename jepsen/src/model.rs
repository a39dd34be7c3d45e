//! The models by name, and the way from a file's operations to a report.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::budget::Budget;
use crate::causal::{Bounded, Mixed, Sessions, Siblings};
use crate::checker::{Checker, Misfit, OPERATIONS_MAX};
use crate::history::{Operation, ReadError};
use crate::independent::Independent;
use crate::linear::{AppendKv, CasRegister, Mutex};
use crate::report::Report;
use crate::state::{Bank, Counter, LongFork, Set, SetFull, Watch};
use crate::txn::{self, ListAppend, RwRegister};

/// What a history is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// One register, linearizable: read, write, compare-and-set.
    CasRegister,
    /// Strings by key, linearizable: get, put, append.
    AppendKv,
    /// One lock, linearizable: acquire, release.
    Mutex,
    /// Transactions of appends to lists, by Elle's inference.
    ListAppend,
    /// Transactions of writes to registers, by Elle's inference.
    RwRegister,
    /// A set, read at the end.
    Set,
    /// A set, read all the time.
    SetFull,
    /// A counter within its bounds.
    Counter,
    /// Accounts whose sum stays.
    Bank,
    /// Reads that saw two writes in opposite orders.
    LongFork,
    /// The four session guarantees, by versions.
    Sessions,
    /// Reads that may be old, but not older than they say.
    Bounded,
    /// Siblings: nothing lost, nothing resurrected, all the same in the end.
    Causal,
    /// Strong operations linearizable with eventual writes taken in.
    Mixed,
    /// Watchers that are told each change once and in order.
    Watch,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::CasRegister,
        Self::AppendKv,
        Self::Mutex,
        Self::ListAppend,
        Self::RwRegister,
        Self::Set,
        Self::SetFull,
        Self::Counter,
        Self::Bank,
        Self::LongFork,
        Self::Sessions,
        Self::Bounded,
        Self::Causal,
        Self::Mixed,
        Self::Watch,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CasRegister => "cas-register",
            Self::AppendKv => "append-kv",
            Self::Mutex => "mutex",
            Self::ListAppend => "list-append",
            Self::RwRegister => "rw-register",
            Self::Set => "set",
            Self::SetFull => "set-full",
            Self::Counter => "counter",
            Self::Bank => "bank",
            Self::LongFork => "long-fork",
            Self::Sessions => "sessions",
            Self::Bounded => "bounded",
            Self::Causal => "causal",
            Self::Mixed => "mixed",
            Self::Watch => "watch",
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|model| model.name() == text);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|model| model.name()).collect();
            format!("no such model; known are {}", names.join(", "))
        })
    }
}

/// How a history is held against a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Each key by itself: values are `[key value]`, or the key stands beside the value.
    pub independent: bool,
    /// The consistency that is asked for, where a model knows several.
    pub consistency: Option<String>,
    /// Nobody else writes to the keys: reads of what nobody wrote are wrong, too.
    pub closed: bool,
    /// Accounts may go below zero.
    pub negative_balances: bool,
    /// Keys that a read of the long-fork model takes.
    pub group_size_keys: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            independent: false,
            consistency: None,
            closed: false,
            negative_balances: false,
            group_size_keys: crate::state::GROUP_SIZE_DEFAULT_KEYS,
        }
    }
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The file is no history.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The model has no place for an operation.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The model has no such option.
    #[error("{0}")]
    Option(String),
    /// The history is longer than a check takes.
    #[error("more than {OPERATIONS_MAX} operations")]
    TooLong,
}

/// The checker of a model.
///
/// # Errors
///
/// The model has no such option.
pub fn checker(model: Model, options: &Options) -> Result<Box<dyn Checker>, CheckError> {
    let made = make(model, options)?;
    if !options.independent {
        return Ok(made);
    }
    let options = options.clone();
    Ok(Box::new(Independent::new(Box::new(move || {
        make(model, &options).expect("the same options made one before")
    }))))
}

fn make(model: Model, options: &Options) -> Result<Box<dyn Checker>, CheckError> {
    let consistency = options.consistency.as_deref();
    let linearizable = consistency == Some("linearizable");
    let transactions = || {
        let asked = consistency.unwrap_or(txn::STRICT);
        txn::parse_consistency(asked).map_err(CheckError::Option)
    };
    let known = match model {
        Model::ListAppend | Model::RwRegister => true,
        Model::CasRegister | Model::AppendKv | Model::Mutex | Model::SetFull => linearizable,
        Model::Set
        | Model::Counter
        | Model::Bank
        | Model::LongFork
        | Model::Sessions
        | Model::Bounded
        | Model::Causal
        | Model::Mixed
        | Model::Watch => false,
    };
    if let Some(name) = consistency.filter(|_| !known) {
        let what = format!("the model {model} knows no consistency `{name}`");
        return Err(CheckError::Option(what));
    }
    Ok(match model {
        Model::CasRegister => Box::new(CasRegister::default()),
        Model::AppendKv => Box::new(AppendKv::default()),
        Model::Mutex => Box::new(Mutex::default()),
        Model::ListAppend => Box::new(ListAppend::new(transactions()?, options.closed)),
        Model::RwRegister => Box::new(RwRegister::new(transactions()?, options.closed)),
        Model::Set => Box::new(Set::default()),
        Model::SetFull => Box::new(SetFull::new(linearizable)),
        Model::Counter => Box::new(Counter::default()),
        Model::Bank => Box::new(Bank::new(options.negative_balances)),
        Model::LongFork => Box::new(LongFork::new(options.group_size_keys)),
        Model::Sessions => Box::new(Sessions::default()),
        Model::Bounded => Box::new(Bounded::default()),
        Model::Causal => Box::new(Siblings::default()),
        Model::Mixed => Box::new(Mixed::default()),
        Model::Watch => Box::new(Watch::default()),
    })
}

/// Holds a history against a model.
///
/// # Errors
///
/// The history cannot be read, or does not fit the model.
pub fn check(
    operations: impl Iterator<Item = Result<Operation, ReadError>>,
    model: Model,
    options: &Options,
    budget: &mut Budget<'_>,
) -> Result<Report, CheckError> {
    let mut checker = checker(model, options)?;
    for (number, operation) in operations.enumerate() {
        if number >= OPERATIONS_MAX as usize {
            return Err(CheckError::TooLong);
        }
        checker.operation(&operation?)?;
    }
    Ok(checker.check(budget))
}
