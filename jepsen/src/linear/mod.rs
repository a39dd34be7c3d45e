//! Linearizability: is there one order of all operations, each between its invocation and its
//! return, that one copy of the object could have gone through?
//!
//! [`search`] decides it for any object with a [`Model`]; [`unique`] decides registers in which
//! each value is written once, without a search. `register`, `kv` and `mutex` take a history's
//! operations apart into calls on objects; `explain` puts a failure into words.

mod bits;
mod explain;
mod kv;
mod mutex;
mod register;
mod search;
mod unique;

use std::fmt::Debug;
use std::hash::Hash;

pub use kv::AppendKv;
pub use mutex::Mutex;
pub use register::CasRegister;
pub use search::search;
pub use unique::{Unique, unique};

use crate::budget::Spent;

/// A state of an object, as a number that its model gives it.
pub type State = u32;

/// The position of a call that may take effect at any time after its invocation.
pub const NEVER_RETURNED: u64 = u64::MAX;

/// A sequential object.
pub trait Model {
    /// What can be done to it, answer included.
    type Action: Copy + Eq + Hash + Debug;

    /// Its state in the beginning.
    fn initial(&self) -> State;

    /// The state after an action; none if the action, with its answer, is impossible here.
    fn step(&mut self, state: State, action: Self::Action) -> Option<State>;

    /// Whether an action changes no state whatsoever. Such a call is placed as soon as it is
    /// possible, which loses nothing: it stands in nobody's way.
    fn observes_only(&self, action: Self::Action) -> bool;

    /// Whether an action discards the state: after it, nothing that was done before shows. Where
    /// no such action can come in between, [`Model::leads_to`] is asked.
    fn discards(&self, _action: Self::Action) -> bool {
        true
    }

    /// Whether an action may still become possible in a state by actions that do not discard it.
    /// Orders in which it may not are given up early.
    fn leads_to(&self, _state: State, _action: Self::Action) -> bool {
        true
    }
}

/// One call on an object.
#[derive(Clone, Copy, Debug)]
pub struct Call<A> {
    /// What was done.
    pub action: A,
    /// Position of the invocation.
    pub invoked: u64,
    /// Position of the return, or [`NEVER_RETURNED`].
    pub returned: u64,
    /// Which operation it is, for messages.
    pub source: u32,
}

/// What became of one object's calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linear {
    /// There is an order.
    Valid,
    /// There is none.
    Invalid(Stuck),
    /// Not known: something ran out.
    Unknown(Spent),
}

/// Where every order fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The call (an index into the calls) that returned, and that no order can place.
    pub call: u32,
    /// The states that the object may have been in just before, of the orders that got furthest,
    /// a few of them.
    pub states: Vec<State>,
    /// The calls that were open when it returned.
    pub open: Vec<u32>,
}
