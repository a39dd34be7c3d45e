//! The view of a primary of a `mixed` range: what its log has decided, and beside it the rows of
//! keys that took in writes which the log may not have decided yet (DESIGN, section 2).
//!
//! A row speaks relative to the overlay's own clock, as in an `eventual` range, and it stays
//! until the log's state *on this node's disk* knows all that the row knows ([`is_absorbed`]).
//! Where there is no row, the log's state alone is the view, and nothing is claimed of the
//! overlay's clock: that clock may cover dots which only the log's state shows. Hence
//!
//! - a new row begins with the live values of the log's state ([`seed`]): otherwise the clock
//!   would claim them dead;
//! - a peer's clock is merged only when the log's state on this disk is as new as the peer's
//!   was at the end of the comparison: what the peer has no row of, that state has.
//!
//! Not here: the rows, and the log's state (see `committed`).

use super::record::Record;
use super::{Clock, Dots, KeyState};

/// What the view shows of a key: the row, if there is one, and what the log has decided.
pub fn view(clock: &Clock, row: Option<&Record>, committed: KeyState) -> KeyState {
    let Some(row) = row else {
        return committed;
    };
    let mut view = row.state(clock);
    view.join(&committed);
    view
}

/// A new row of a key: what the log has decided, in the terms of the overlay's clock.
pub fn seed(clock: &Clock, committed: &KeyState) -> Record {
    let mut beyond = committed.context.clone();
    beyond.settle(clock);
    Record {
        live: committed.live.clone(),
        beyond,
    }
}

/// Whether the log's state of a key knows all that a row knows, so that the row may go once that
/// state is on this disk.
///
/// `base` is the base of the overlay's clock from a moment after the row's last change (a row
/// that was settled has changed: what it knew itself, an earlier base may not say), and after
/// the last merge of a peer's clock.
pub fn is_absorbed(row: &Record, base: &Dots, committed: &KeyState) -> bool {
    let covers = |dots: &Dots| dots.is_within(&committed.context);
    // The log may know the dot that replaced a value, from a base, and still show the value.
    let is_dead = |dot| (base.contains(dot) || row.beyond.contains(dot)) && !row.live.contains(dot);
    covers(base)
        && covers(&row.beyond)
        && row.live().all(|(dot, _)| committed.context.contains(*dot))
        && !committed.live().any(|(dot, _)| is_dead(*dot))
}
