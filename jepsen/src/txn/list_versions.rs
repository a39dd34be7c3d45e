//! Versions of lists: since each element is appended once and a read shows all of them, the
//! longest read of a key tells the order of its appends, and every other read is a prefix of it.

use super::graph::{Edges, Kind, Why};
use super::store::{Act, Store, UNREAD};
use crate::hash::QuickMap;
use crate::history::Outcome;
use crate::report::{Finding, Report};

/// Nobody, or nowhere.
pub(super) const NONE: u32 = u32::MAX;

/// One append.
#[derive(Clone, Copy, Debug)]
pub(super) struct Append {
    pub(super) transaction: u32,
    /// Its transaction appends nothing more to the key.
    pub(super) last: bool,
    /// Where the longest read shows it.
    pub(super) position: u32,
}

/// All appends, by key and element.
pub(super) type Appends = QuickMap<(u32, u32), Append>;

/// The order of one key's appends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Order {
    /// The longest read: where it lies, its length, and whose it is.
    begin: u32,
    length: u32,
    reader: u32,
    /// Where the key's writers begin in `Versions::writers`.
    writers: usize,
}

/// The orders of all keys.
pub(super) struct Versions {
    orders: Vec<Order>,
    /// Per element of a longest read: who appended it, if that took place.
    writers: Vec<u32>,
    /// Per transaction of unknown outcome: somebody saw something of it.
    pub(super) observed: Vec<bool>,
    /// Elements that nobody appended.
    pub(super) garbage: u64,
}

impl Versions {
    /// Infers the orders, and says what contradicts that there are any.
    pub(super) fn infer(store: &Store, appends: &mut Appends, report: &mut Report) -> Self {
        let mut versions = Self {
            orders: longest(store),
            writers: Vec::new(),
            observed: vec![false; store.rows.len()],
            garbage: 0,
        };
        for key in 0..versions.orders.len() as u32 {
            versions.lay_out(store, appends, key, report);
        }
        versions
    }

    /// The elements of a key, in order.
    pub(super) fn order<'a>(&self, store: &'a Store, key: u32) -> &'a [u32] {
        let order = self.orders[key as usize];
        store.list(order.begin, order.length)
    }

    /// Per element of a key, who appended it.
    pub(super) fn writers(&self, key: u32) -> &[u32] {
        let order = self.orders[key as usize];
        &self.writers[order.writers..order.writers + order.length as usize]
    }

    /// Whether a transaction took place, as far as one can tell.
    pub(super) fn took_place(&self, store: &Store, number: u32) -> bool {
        store.is_ok(number) || self.observed[number as usize]
    }

    /// Finds the writers of a key's elements.
    fn lay_out(&mut self, store: &Store, appends: &mut Appends, key: u32, report: &mut Report) {
        self.orders[key as usize].writers = self.writers.len();
        let reader = self.orders[key as usize].reader;
        let mut aborted = None;
        for (position, element) in self.order(store, key).iter().enumerate() {
            let Some(append) = appends.get_mut(&(key, *element)) else {
                self.garbage += 1;
                self.writers.push(NONE);
                continue;
            };
            if append.position != NONE {
                report.mention(duplicate(store, key, *element, reader));
                self.writers.push(NONE);
                continue;
            }
            append.position = position as u32;
            let writer = append.transaction;
            match store.rows[writer as usize].outcome {
                Outcome::Fail => {
                    aborted = Some((*element, writer));
                    report.mention(aborted_read(store, key, *element, writer, reader));
                    self.writers.push(NONE);
                    continue;
                }
                Outcome::Unknown => self.observed[writer as usize] = true,
                Outcome::Ok => {}
            }
            self.writers.push(writer);
            if let Some((aborted, by)) = aborted.take() {
                report.mention(dirty_update(store, key, aborted, by, writer));
            }
        }
    }

    /// Marks what a read shows that does not fit the order: it was seen all the same.
    pub(super) fn see(&mut self, store: &Store, appends: &Appends, key: u32, list: &[u32]) {
        for element in list {
            if let Some(append) = appends.get(&(key, *element))
                && store.rows[append.transaction as usize].outcome == Outcome::Unknown
            {
                self.observed[append.transaction as usize] = true;
            }
        }
    }

    /// Adds the order of writes of all keys.
    pub(super) fn write_edges(&self, edges: &mut Edges) {
        for key in 0..self.orders.len() as u32 {
            let mut before = None;
            for writer in self.writers(key).iter().filter(|writer| **writer != NONE) {
                if let Some(before) = before {
                    edges.add(before, *writer, Kind::of(Why::WriteWrite));
                }
                before = Some(*writer);
            }
        }
    }
}

fn longest(store: &Store) -> Vec<Order> {
    let mut orders = vec![Order::default(); store.keys.len()];
    for number in 0..store.rows.len() as u32 {
        for step in store.steps(number) {
            let order = &mut orders[step.key as usize];
            if let Act::Read(begin, length) = step.act
                && begin != UNREAD
                && length > order.length
            {
                (order.begin, order.length, order.reader) = (begin, length, number);
            }
        }
    }
    orders
}

/// How a step of a transaction is told.
fn told(store: &Store, number: u32) -> String {
    store.describe(number, "append", true)
}

fn duplicate(store: &Store, key: u32, element: u32, reader: u32) -> Finding {
    let (key, element) = (store.keys.value(key), store.values.value(element));
    let summary = format!("a read of key {key} shows {element} twice, which was appended once");
    Finding::new("duplicate-elements", summary).steps(vec![told(store, reader)])
}

fn aborted_read(store: &Store, key: u32, element: u32, writer: u32, reader: u32) -> Finding {
    let (key, element) = (store.keys.value(key), store.values.value(element));
    let summary = format!("a read of key {key} shows {element}, whose transaction failed");
    Finding::new("G1a", summary).steps(vec![
        format!("failed: {}", told(store, writer)),
        format!("read it: {}", told(store, reader)),
    ])
}

fn dirty_update(store: &Store, key: u32, aborted: u32, by: u32, over: u32) -> Finding {
    let (key, element) = (store.keys.value(key), store.values.value(aborted));
    let summary = format!("a transaction built on key {key} with {element}, which had failed");
    Finding::new("dirty-update", summary).steps(vec![
        format!("failed: {}", told(store, by)),
        format!("built on it: {}", told(store, over)),
    ])
}
