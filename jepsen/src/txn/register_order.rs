//! Versions of registers in the order in which sessions, or time, touched them.
//!
//! Where one transaction had ended before another began, what the first left of a key came before
//! what the second found. Of all that ended before, only the latest matter: those that no other of
//! them began after.

use super::graph::Ground;
use super::store::Store;
use crate::hash::QuickMap;

/// What one transaction did to one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    pub(super) transaction: u32,
    pub(super) key: u32,
    process: u32,
    invoked: u64,
    returned: u64,
    /// The version that it read from others.
    pub(super) read: Option<u32>,
    /// The version that it left.
    pub(super) wrote: Option<u32>,
}

impl Touch {
    pub(super) fn new(store: &Store, transaction: u32, key: u32) -> Self {
        let row = &store.rows[transaction as usize];
        Self {
            transaction,
            key,
            process: row.process,
            invoked: row.invoked,
            returned: row.returned,
            read: None,
            wrote: None,
        }
    }

    fn found(&self) -> Option<u32> {
        self.read.or(self.wrote)
    }

    fn left(&self) -> Option<u32> {
        self.wrote.or(self.read)
    }
}

/// Adds pairs of versions, earlier and later, as sessions and time order them.
pub(super) fn touched_in_order(
    touches: &[Touch],
    ground: Ground,
    order: &mut Vec<(u32, u32, Ground)>,
) {
    let mut sorted: Vec<&Touch> = touches
        .iter()
        .filter(|touch| touch.found().is_some())
        .collect();
    sorted.sort_unstable_by_key(|touch| (touch.key, touch.invoked));
    for group in sorted.chunk_by(|one, other| one.key == other.key) {
        if ground >= Ground::Session {
            sessions(group, order);
        }
        if ground >= Ground::Realtime {
            realtime(group, order);
        }
    }
}

fn pair(before: &Touch, after: &Touch, ground: Ground, order: &mut Vec<(u32, u32, Ground)>) {
    if let (Some(left), Some(found)) = (before.left(), after.found())
        && left != found
    {
        order.push((left, found, ground));
    }
}

fn sessions(group: &[&Touch], order: &mut Vec<(u32, u32, Ground)>) {
    let mut last: QuickMap<u32, &Touch> = QuickMap::default();
    for touch in group {
        if let Some(before) = last.insert(touch.process, touch) {
            pair(before, touch, Ground::Session, order);
        }
    }
}

fn realtime(group: &[&Touch], order: &mut Vec<(u32, u32, Ground)>) {
    let mut returns: Vec<&Touch> = group.to_vec();
    returns.retain(|touch| touch.returned != u64::MAX);
    returns.sort_unstable_by_key(|touch| touch.returned);
    let mut returns = returns.into_iter().peekable();
    let mut latest: Vec<&Touch> = Vec::new();
    for touch in group {
        while let Some(ended) = returns.next_if(|ended| ended.returned < touch.invoked) {
            latest.retain(|before| before.returned > ended.invoked);
            latest.push(ended);
        }
        for before in &latest {
            pair(before, touch, Ground::Realtime, order);
        }
    }
}
