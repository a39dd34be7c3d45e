//! What one watch has told of writes that the log had not decided: each at most once, and none
//! without a word on what became of it. Plain code over values.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::v1;
use quorate_proto::v1::watch_event::State;
use quorate_types::RangeId;
use quorate_types::causal::{Actor, Dot, Dots};

/// Writes of one watch that wait for the log. Past it tentative events are left out.
const UNDECIDED_MAX: usize = 16_384;

/// Of one watch.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// Told, and not decided as far as the client was told.
    waiting: BTreeSet<(RangeId, Dot)>,
    /// Of ranges without a log.
    sources: BTreeMap<RangeId, Source>,
    /// Events left out since the client was told of any.
    pub(super) skipped: u64,
}

/// Which start of which node tells of a range, and the highest names that were told: by it, and by
/// those before it.
#[derive(Debug)]
struct Source {
    actor: Actor,
    told: BTreeMap<Actor, u64>,
    before: BTreeMap<Actor, u64>,
}

fn dots_of(event: &v1::WatchEvent) -> impl Iterator<Item = Dot> + '_ {
    event.dots.iter().filter_map(|dot| dot.parse().ok())
}

impl Undecided {
    /// Whether writes of a range wait.
    pub(super) fn waits(&self, range: RangeId) -> bool {
        let first = (range, Dot::new(Actor::LOG, 0));
        let next = self.waiting.range(first..).next();
        next.is_some_and(|(of, _)| *of == range)
    }

    /// Takes tentative events out of a page that the client was told of, or cannot be; and notes
    /// what the others decide. For a range with a log.
    pub(super) fn admit(&mut self, range: RangeId, events: &mut Vec<v1::WatchEvent>) {
        events.retain(|event| {
            if event.state() != State::Tentative {
                for dot in dots_of(event) {
                    self.waiting.remove(&(range, dot));
                }
                return true;
            }
            let names = dots_of(event).map(|dot| (range, dot));
            let new: Vec<_> = names.filter(|name| !self.waiting.contains(name)).collect();
            let fits = self.waiting.len() + new.len() <= UNDECIDED_MAX;
            self.skipped += u64::from(!fits);
            if fits {
                self.waiting.extend(&new);
            }
            fits && !new.is_empty()
        });
    }

    /// The writes that waited, of those that the log has decided by now.
    pub(super) fn settle(&mut self, range: RangeId, decided: &Dots) -> Vec<String> {
        let mut settled = Vec::new();
        self.waiting.retain(|(of, dot)| {
            let is_settled = *of == range && decided.contains(*dot);
            if is_settled {
                settled.push(dot.to_string());
            }
            !is_settled
        });
        settled
    }

    /// As `admit`, for a range without a log, where nothing is ever decided: who tells of it after
    /// another source is believed to repeat what is not beyond all that was told before.
    pub(super) fn admit_from(
        &mut self,
        range: RangeId,
        actor: Actor,
        events: &mut Vec<v1::WatchEvent>,
    ) {
        let source = self.sources.entry(range).or_insert_with(|| Source {
            actor,
            told: BTreeMap::new(),
            before: BTreeMap::new(),
        });
        if source.actor != actor {
            source.actor = actor;
            raise(&mut source.before, std::mem::take(&mut source.told));
        }
        let before = &source.before;
        let is_old = |dot: Dot| {
            before
                .get(&dot.actor)
                .is_some_and(|top| dot.counter <= *top)
        };
        events.retain(|event| event.dots.is_empty() || !dots_of(event).all(is_old));
        let told = events.iter().flat_map(dots_of);
        raise(&mut source.told, told.map(|dot| (dot.actor, dot.counter)));
    }
}

fn raise(tops: &mut BTreeMap<Actor, u64>, by: impl IntoIterator<Item = (Actor, u64)>) {
    for (actor, counter) in by {
        let top = tops.entry(actor).or_default();
        *top = counter.max(*top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: RangeId = RangeId(7);
    const ONE: Actor = Actor { disk: 1, start: 1 };
    const TWO: Actor = Actor { disk: 2, start: 1 };

    fn event(state: State, dots: &[&str]) -> v1::WatchEvent {
        v1::WatchEvent {
            state: state.into(),
            dots: dots.iter().map(|dot| (*dot).to_owned()).collect(),
            ..v1::WatchEvent::default()
        }
    }

    fn admitted(undecided: &mut Undecided, state: State, dots: &[&str]) -> bool {
        let mut events = vec![event(state, dots)];
        undecided.admit(RANGE, &mut events);
        !events.is_empty()
    }

    #[test]
    fn each_write_is_told_once_and_settled_once() {
        let mut undecided = Undecided::default();
        assert!(!undecided.waits(RANGE));
        assert!(admitted(&mut undecided, State::Tentative, &["1.1:1"]));
        assert!(!admitted(&mut undecided, State::Tentative, &["1.1:1"]));
        // Of two parts one is new.
        assert!(admitted(
            &mut undecided,
            State::Tentative,
            &["1.1:1", "1.1:2"]
        ));
        assert!(admitted(&mut undecided, State::Tentative, &["2.1:5"]));
        assert!(admitted(
            &mut undecided,
            State::Committed,
            &["1.1:2", "2.1:9"]
        ));
        assert!(undecided.waits(RANGE) && !undecided.waits(RangeId(6)));
        let decided: Dots = (1..9).map(|counter| Dot::new(ONE, counter)).collect();
        assert!(undecided.settle(RangeId(8), &decided).is_empty());
        assert_eq!(undecided.settle(RANGE, &decided), ["1.1:1"]);
        assert!(undecided.settle(RANGE, &decided).is_empty());
        assert!(undecided.waits(RANGE) && undecided.skipped == 0);
    }

    #[test]
    fn what_waits_is_bounded_and_what_is_left_out_is_counted() {
        let mut undecided = Undecided::default();
        for counter in 1..=UNDECIDED_MAX {
            let dot = format!("1.1:{counter}");
            assert!(admitted(&mut undecided, State::Tentative, &[&dot]));
        }
        assert!(!admitted(&mut undecided, State::Tentative, &["2.1:1"]));
        assert_eq!(
            (undecided.waiting.len(), undecided.skipped),
            (UNDECIDED_MAX, 1)
        );
        // One that is left out is told of when it is decided, like any other.
        assert!(admitted(
            &mut undecided,
            State::Committed,
            &["2.1:1", "1.1:1"]
        ));
        assert!(admitted(&mut undecided, State::Tentative, &["2.1:2"]));
    }

    #[test]
    fn without_a_log_another_source_repeats_nothing() {
        let mut undecided = Undecided::default();
        let mut told = |actor, dots: &[&str]| {
            let mut events: Vec<_> = dots
                .iter()
                .map(|dot| event(State::Tentative, &[dot]))
                .collect();
            undecided.admit_from(RANGE, actor, &mut events);
            let names = events.into_iter().flat_map(|event| event.dots);
            names.collect::<Vec<_>>()
        };
        assert_eq!(told(ONE, &["1.1:2", "1.1:1", "2.1:4"]).len(), 3);
        assert_eq!(
            told(TWO, &["1.1:1", "1.1:2", "1.1:3", "2.1:4", "2.1:5"]),
            ["1.1:3", "2.1:5"]
        );
        assert_eq!(told(ONE, &["1.1:3", "1.1:4"]), ["1.1:4"]);
    }
}
