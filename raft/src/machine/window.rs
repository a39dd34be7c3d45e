//! The exactly-once window of a range: which writes of which client were decided, and how.
//!
//! A function of the log alone: every replica that applied the same entries holds the same window.
//! Plain code over values; who stores it is not decided here.

use std::collections::{BTreeMap, HashMap, HashSet};

use quorate_proto::internal::{ClientWindow, client_window::Result as WireResult};
use quorate_types::{ClientId, Revision};

/// Results remembered per client when the range's options name no other number.
pub const WINDOW_RESULTS_DEFAULT: u32 = 1024;
/// Clients remembered per range; beyond it the ones that were silent longest are evicted.
pub const WINDOW_CLIENTS_MAX: usize = 8192;
/// Clients kept by an eviction, which is done in bulk so that its cost is spread.
const WINDOW_CLIENTS_KEPT: usize = WINDOW_CLIENTS_MAX / 4 * 3;

/// How a named write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Of the entry that decided it.
    pub revision: Revision,
    /// A condition held, a transaction took its first list, or a key existed.
    pub succeeded: bool,
    /// The id was closed before it was applied: it never will be.
    pub closed: bool,
    /// Keys removed.
    pub count: u32,
}

/// What the window says of a write before it is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never seen: apply it.
    New,
    /// Decided before; this was the result.
    Decided(Remembered),
    /// Below what is remembered: it may have been applied, so it must not be again.
    BelowWindow,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Client {
    floor: u64,
    results: BTreeMap<u64, Remembered>,
    last_used: Revision,
}

/// The windows of all clients of one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    clients: HashMap<ClientId, Client>,
    /// Evicted clients' writes were first tried at or below it.
    floor: Revision,
    dirty: HashSet<ClientId>,
}

impl Windows {
    /// Rebuilds the windows from stored ones.
    pub fn restore(floor: Revision, stored: impl IntoIterator<Item = ClientWindow>) -> Windows {
        let clients = stored
            .into_iter()
            .map(|w| (ClientId(w.client), Client::from(w)))
            .collect();
        Windows {
            clients,
            floor,
            dirty: HashSet::new(),
        }
    }

    /// First tries at or below it, of clients that are not remembered, are refused.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// Looks a write up.
    pub fn verdict(&self, client: ClientId, sequence: u64, first_tried: u64) -> Verdict {
        let known = self.clients.get(&client);
        if let Some(result) = known.and_then(|k| k.results.get(&sequence)) {
            return Verdict::Decided(*result);
        }
        // A client that was evicted and has come back is known again, but not what it did before.
        let evicted = self.floor > Revision::ZERO && first_tried <= self.floor.0;
        if evicted || known.is_some_and(|k| sequence <= k.floor) {
            Verdict::BelowWindow
        } else {
            Verdict::New
        }
    }

    /// Remembers a decision, and forgets the oldest beyond `results_max`.
    pub fn remember(
        &mut self,
        client: ClientId,
        sequence: u64,
        first_tried: u64,
        result: Remembered,
        results_max: u32,
    ) {
        let known = self.clients.entry(client).or_default();
        known.results.insert(sequence, result);
        // Whoever first tried it may have a clock ahead of the revision's.
        let used = result.revision.max(Revision(first_tried));
        known.last_used = known.last_used.max(used);
        while known.results.len() > results_max.max(1) as usize {
            if let Some((oldest, _)) = known.results.pop_first() {
                known.floor = known.floor.max(oldest);
            }
        }
        self.dirty.insert(client);
        if self.clients.len() > WINDOW_CLIENTS_MAX {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let mut by_age: Vec<(Revision, ClientId)> = self
            .clients
            .iter()
            .map(|(id, c)| (c.last_used, *id))
            .collect();
        by_age.sort_unstable();
        for (last_used, id) in by_age
            .into_iter()
            .take(self.clients.len() - WINDOW_CLIENTS_KEPT)
        {
            self.clients.remove(&id);
            self.floor = self.floor.max(last_used);
            self.dirty.insert(id);
        }
    }

    /// What changed since the last call: a client's window, or `None` where it was evicted.
    /// In the order of client ids, so that equal states give equal bytes.
    pub fn take_dirty(&mut self) -> Vec<(ClientId, Option<ClientWindow>)> {
        let mut ids: Vec<ClientId> = self.dirty.drain().collect();
        ids.sort_unstable();
        ids.into_iter()
            .map(|id| (id, self.clients.get(&id).map(|c| c.to_wire(id))))
            .collect()
    }

    /// Checks what must always hold.
    pub fn validate(&self) -> Result<(), String> {
        if self.clients.len() > WINDOW_CLIENTS_MAX {
            return Err(format!("{} clients remembered", self.clients.len()));
        }
        for (id, client) in &self.clients {
            if client.results.keys().any(|s| *s <= client.floor) {
                return Err(format!(
                    "client {id}: a result at or below its floor {}",
                    client.floor
                ));
            }
        }
        Ok(())
    }
}

impl Client {
    fn to_wire(&self, id: ClientId) -> ClientWindow {
        let results = self.results.iter().map(|(sequence, r)| WireResult {
            sequence: *sequence,
            revision: r.revision.0,
            succeeded: r.succeeded,
            closed: r.closed,
            count: r.count,
        });
        ClientWindow {
            client: id.0,
            floor: self.floor,
            results: results.collect(),
            last_used: self.last_used.0,
        }
    }
}

impl From<ClientWindow> for Client {
    fn from(stored: ClientWindow) -> Client {
        let results = stored.results.into_iter().map(|r| {
            let remembered = Remembered {
                revision: Revision(r.revision),
                succeeded: r.succeeded,
                closed: r.closed,
                count: r.count,
            };
            (r.sequence, remembered)
        });
        Client {
            floor: stored.floor,
            results: results.collect(),
            last_used: Revision(stored.last_used),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(revision: u64) -> Remembered {
        Remembered {
            revision: Revision(revision),
            succeeded: true,
            closed: false,
            count: 0,
        }
    }

    #[test]
    fn a_repeated_write_is_decided_once() {
        let mut windows = Windows::default();
        assert_eq!(windows.verdict(ClientId(1), 7, 10), Verdict::New);
        windows.remember(ClientId(1), 7, 10, result(20), 100);
        assert_eq!(
            windows.verdict(ClientId(1), 7, 10),
            Verdict::Decided(result(20))
        );
        assert_eq!(
            windows.verdict(ClientId(1), 6, 10),
            Verdict::New,
            "pipelined, out of order"
        );
    }

    #[test]
    fn beyond_the_window_nothing_is_applied_again() {
        let mut windows = Windows::default();
        for sequence in 1..=150 {
            windows.remember(ClientId(1), sequence, 1, result(sequence), 100);
        }
        assert_eq!(windows.verdict(ClientId(1), 50, 1), Verdict::BelowWindow);
        assert_eq!(
            windows.verdict(ClientId(1), 51, 1),
            Verdict::Decided(result(51))
        );
        windows.validate().unwrap();
    }

    #[test]
    fn evicted_clients_are_refused_by_the_time_of_their_first_try() {
        let mut windows = Windows::default();
        for client in 0..=WINDOW_CLIENTS_MAX as u64 {
            windows.remember(ClientId(client), 1, 900, result(1000 + client), 100);
        }
        assert_eq!(windows.verdict(ClientId(0), 1, 900), Verdict::BelowWindow);
        let late = windows.floor().0 + 1;
        assert_eq!(windows.verdict(ClientId(0), 2, late), Verdict::New);
        windows.validate().unwrap();
    }

    #[test]
    fn a_client_that_returns_after_its_eviction_gets_no_write_applied_twice() {
        let mut windows = Windows::default();
        for client in 0..=WINDOW_CLIENTS_MAX as u64 {
            windows.remember(ClientId(client), 1, 900, result(1000 + client), 100);
        }
        let late = windows.floor().0 + 1;
        windows.remember(ClientId(0), 2, late, result(late + 1), 100);
        assert_eq!(windows.verdict(ClientId(0), 1, 900), Verdict::BelowWindow);
    }

    #[test]
    fn the_floor_covers_first_tries_by_clocks_that_were_ahead() {
        let mut windows = Windows::default();
        for client in 0..=WINDOW_CLIENTS_MAX as u64 {
            let ahead = 400_000 + client;
            windows.remember(ClientId(client), 1, ahead, result(1000 + client), 100);
        }
        assert_eq!(
            windows.verdict(ClientId(0), 1, 400_000),
            Verdict::BelowWindow
        );
    }

    #[test]
    fn what_is_stored_restores_the_same_window() {
        let mut windows = Windows::default();
        for sequence in 1..=20 {
            windows.remember(ClientId(sequence % 3), sequence, 1, result(sequence), 4);
        }
        let stored: Vec<ClientWindow> = windows
            .take_dirty()
            .into_iter()
            .filter_map(|(_, w)| w)
            .collect();
        assert_eq!(Windows::restore(windows.floor(), stored), windows);
    }
}
