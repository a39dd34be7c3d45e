//! What a watch that also tells of the eventual plane owes: each write once as tentative in a
//! stream and never behind what the log made of it, each that the log shows named by one committed
//! event, and none left without a word.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_proto::v1;
use quorate_proto::v1::watch_event::State;

/// How many of what were told.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub tentative: Arc<AtomicU64>,
    /// Named by the committed events of somebody who was told of them before.
    pub decided: Arc<AtomicU64>,
    /// Said to be decided by themselves.
    pub settled: Arc<AtomicU64>,
}

/// What one watcher was told by name.
#[derive(Debug, Default)]
pub struct Twice {
    /// In the stream that is under way: told, and decided.
    told: BTreeSet<String>,
    decided: BTreeSet<String>,
    /// By committed events, over all streams.
    pub named: BTreeSet<String>,
    /// Told in this stream and not decided.
    pub open: Arc<AtomicU64>,
    counts: Counts,
}

fn add(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl Twice {
    pub fn new(counts: &Counts) -> Twice {
        Twice {
            counts: counts.clone(),
            ..Twice::default()
        }
    }

    /// Another stream begins.
    pub fn begin(&mut self) {
        (self.told, self.decided) = Default::default();
        self.open.store(0, Ordering::Relaxed);
    }

    /// Takes a message, leaves its committed events in it, and says what is wrong.
    pub fn take(&mut self, message: &mut v1::WatchResponse) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut committed = Vec::new();
        for event in std::mem::take(&mut message.events) {
            if event.state() == State::Tentative {
                self.take_tentative(&event, &mut wrong);
                continue;
            }
            for dot in &event.dots {
                if !self.named.insert(dot.clone()) {
                    wrong.push(format!("{dot} is decided twice"));
                }
                add(&self.counts.decided, usize::from(self.told.contains(dot)));
                if !self.decided.insert(dot.clone()) {
                    wrong.push(format!("{dot} is decided once it was settled"));
                }
            }
            committed.push(event);
        }
        for dot in &message.settled {
            if !self.told.contains(dot) {
                wrong.push(format!("{dot} is settled, and was not told"));
            }
            if !self.decided.insert(dot.clone()) {
                wrong.push(format!("{dot} is settled twice"));
            }
        }
        add(&self.counts.settled, message.settled.len());
        let open = self.told.difference(&self.decided).count();
        self.open.store(open as u64, Ordering::Relaxed);
        message.events = committed;
        wrong
    }

    fn take_tentative(&mut self, event: &v1::WatchEvent, wrong: &mut Vec<String>) {
        let entry = event.entry.as_ref();
        if event.dots.is_empty() || entry.is_none_or(|entry| entry.revision != 0) {
            wrong.push(format!("a tentative event is {event:?}"));
        }
        for dot in &event.dots {
            if !self.told.insert(dot.clone()) {
                wrong.push(format!("{dot} is tentative twice"));
            }
            if self.decided.contains(dot) {
                wrong.push(format!("{dot} is tentative once it was decided"));
            }
        }
        add(&self.counts.tentative, event.dots.len());
    }
}
