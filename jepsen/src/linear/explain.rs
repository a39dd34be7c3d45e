//! Why no order exists, in words: the call that cannot be placed, what was open beside it, and
//! what the object could have been.

use super::{Call, Linear, NEVER_RETURNED, State, Stuck, Unique};
use crate::picture::{Bar, Picture};
use crate::report::{Finding, Place, Report};

/// Calls that an explanation lists.
const CALLS_SHOWN_MAX: usize = 24;
/// The name of the finding.
const ANOMALY: &str = "nonlinearizable";

/// An object's calls, with what is needed to speak of them.
pub(super) struct Told<'a, A> {
    pub(super) calls: &'a [Call<A>],
    pub(super) places: &'a [Place],
    pub(super) describe: &'a dyn Fn(A) -> String,
    pub(super) state: &'a dyn Fn(State) -> String,
}

impl<A: Copy> Told<'_, A> {
    /// Writes a search's result into a report.
    pub(super) fn conclude(&self, result: Linear, report: &mut Report) {
        match result {
            Linear::Valid => {}
            Linear::Unknown(spent) => report.unknown(spent),
            Linear::Invalid(stuck) => report.invalid(self.stuck(&stuck)),
        }
    }

    fn call(&self, number: u32) -> String {
        let call = &self.calls[number as usize];
        let place = self.places[call.source as usize];
        format!("{} ({place})", (self.describe)(call.action))
    }

    fn stuck(&self, stuck: &Stuck) -> Finding {
        let states: Vec<String> = stuck.states.iter().map(|id| (self.state)(*id)).collect();
        let summary = format!(
            "{} fits into no order; orders of all that returned before lead to: {}",
            self.call(stuck.call),
            states.join(", ")
        );
        let before = self.before(stuck);
        let beside = stuck
            .open
            .iter()
            .copied()
            .filter(|open| *open != stuck.call);
        let beside: Vec<u32> = beside.take(CALLS_SHOWN_MAX).collect();
        let told = |what: &str, number: &u32| format!("{what}: {}", self.call(*number));
        let mut steps: Vec<String> = before
            .iter()
            .map(|number| told("before it", number))
            .collect();
        steps.extend(beside.iter().map(|number| told("at the same time", number)));
        steps.push(told("cannot be placed", &stuck.call));
        let drawn = before.iter().chain(&beside).chain([&stuck.call]);
        let bars = drawn
            .map(|number| self.bar(*number, *number == stuck.call))
            .collect();
        Finding::new(ANOMALY, summary)
            .steps(steps)
            .picture(Picture::Timeline(bars))
    }

    fn bar(&self, number: u32, wrong: bool) -> Bar {
        let call = &self.calls[number as usize];
        Bar {
            row: self.places[call.source as usize].row(),
            begin: call.invoked,
            end: (call.returned != NEVER_RETURNED).then_some(call.returned),
            label: (self.describe)(call.action),
            wrong,
        }
    }

    /// The calls that returned last before the one that is stuck was invoked.
    fn before(&self, stuck: &Stuck) -> Vec<u32> {
        const BEFORE_SHOWN_MAX: usize = 6;
        let begin = self.calls[stuck.call as usize].invoked;
        let earlier = (0..self.calls.len() as u32)
            .filter(|number| self.calls[*number as usize].returned < begin);
        let mut earlier: Vec<u32> = earlier.collect();
        earlier.sort_unstable_by_key(|number| self.calls[*number as usize].returned);
        earlier.split_off(earlier.len().saturating_sub(BEFORE_SHOWN_MAX))
    }

    /// A clash of values that are written once.
    pub(super) fn clash(&self, clash: &Unique) -> Finding {
        match clash {
            Unique::NotApplicable | Unique::Valid => {
                unreachable!("what is valid, or not decided, clashes with nothing")
            }
            Unique::Unwritten(read) => Finding::new(
                ANOMALY,
                format!("{} saw what nobody wrote", self.call(*read)),
            ),
            Unique::FromTheFuture(read, write) => Finding::new(
                ANOMALY,
                format!("{} returned before its write began", self.call(*read)),
            )
            .steps(vec![self.call(*read), self.call(*write)]),
            Unique::Returned([one, other]) => self.returned(*one, *other),
        }
    }

    fn returned(&self, one: (u32, u32), other: (u32, u32)) -> Finding {
        let summary = "a value was in place, gave way to another, and came back, \
                       though each is written once";
        let mut steps = Vec::new();
        let ends = [
            (one.0, "in place when this returned"),
            (other.0, "and this, of the other value, too"),
            (other.1, "the other value was still there after this began"),
            (one.1, "but so was the first value after this began"),
        ];
        let mut bars = Vec::new();
        for (number, what) in ends {
            match self.calls.get(number as usize) {
                Some(_) => {
                    steps.push(format!("{what}: {}", self.call(number)));
                    bars.push(self.bar(number, number == one.1));
                }
                None => steps.push(format!("{what}: the initial value")),
            }
        }
        bars.dedup();
        Finding::new(ANOMALY, summary)
            .steps(steps)
            .picture(Picture::Timeline(bars))
    }
}
