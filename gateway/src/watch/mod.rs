//! Watches: all puts and deletes of a key, a prefix or an interval, as the log decides them.
//!
//! A watch knows, of each range that it covers, a place in the order of the range's events, and
//! asks for what lies behind it: at the replica of this node if there is one, else at another
//! node's (`source`). A replica answers from the window of recent events that all its followers
//! share, or from history where the place lies before that (`events`, `catch_up`), or waits. So
//! nothing is kept of a watch but its places: whoever serves the next page, after whatever leader
//! or gateway was lost, goes on exactly there. The stream of one client is `stream`; what is
//! refused before it begins is here.
//!
//! Of a keyspace with an eventual plane a watch may also want to hear of writes as they become
//! visible at the replica that serves it (`tentative`). Of that no place outlives the replica's
//! process, so it is told at best, each write once, and never behind what the log made of it
//! (`undecided`).
//!
//! Nobody waits for a watch: a client that does not read stands still at its places, and holds one
//! message.

mod catch_up;
mod earliest;
mod events;
mod source;
mod stream;
mod tentative;
mod undecided;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_proto::v1;
use quorate_raft::{KeyspaceView, Place, RangeView};
use quorate_types::{
    Effect, KeyInterval, KeyspaceOptions, Mode, Partitioning, RangeId, Revision, prefix_end,
    user_interval,
};

use self::catch_up::CatchUp;
use crate::errors::GatewayError;
use crate::validate;

pub(crate) use self::events::{Asked, Page};
pub use self::stream::WatchService;

/// Open watches on one connection.
pub const WATCHES_PER_CONNECTION_MAX: usize = 1024;
/// Open watches on one node.
pub const WATCHES_MAX: usize = 16_384;
/// The event that makes a message's keys and values reach this is the last one in it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// The same for what a watch of many ranges asks of each.
const SHARE_BYTES_MIN: usize = 4 << 10;

/// What all watches of a node share.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    open: Arc<Mutex<Open>>,
    catch_up: CatchUp,
}

/// Open watches, by the connections that they are on.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    on: HashMap<Option<SocketAddr>, usize>,
}

/// An open watch; given back when dropped.
#[derive(Debug)]
pub(crate) struct Opened {
    open: Arc<Mutex<Open>>,
    connection: Option<SocketAddr>,
}

impl Watches {
    /// Counts one more watch.
    ///
    /// # Errors
    ///
    /// `OVERLOADED`: there are too many, here or on the connection.
    pub(crate) fn open(&self, connection: Option<SocketAddr>) -> Result<Opened, GatewayError> {
        let refused = |what, limit: String| GatewayError::Overloaded {
            what,
            limit: limit.into(),
            effect: Effect::None,
        };
        let mut open = self.open.lock();
        if open.all >= WATCHES_MAX {
            let limit = format!("{WATCHES_MAX} watches");
            return Err(refused("the number of watches on this node", limit));
        }
        let on = open.on.entry(connection).or_default();
        if *on >= WATCHES_PER_CONNECTION_MAX {
            let limit = format!("{WATCHES_PER_CONNECTION_MAX} watches, open another connection");
            return Err(refused("the number of watches on this connection", limit));
        }
        *on += 1;
        open.all += 1;
        metrics::gauge!("quorate_watches").set(open.all as f64);
        Ok(Opened {
            open: Arc::clone(&self.open),
            connection,
        })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        open.all -= 1;
        metrics::gauge!("quorate_watches").set(open.all as f64);
        if let Some(on) = open.on.get_mut(&self.connection) {
            *on -= 1;
            if *on == 0 {
                open.on.remove(&self.connection);
            }
        }
    }
}

/// What a watch is of, as long as it lasts.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    keyspace: String,
    /// Another keyspace of the same name is another one.
    incarnation: u64,
    /// User keys; an empty end: none.
    start: Bytes,
    end: Bytes,
    no_puts: bool,
    no_deletes: bool,
    previous: bool,
    /// Also what is visible on the eventual plane.
    tentative: bool,
    /// Whether the keyspace has no log.
    is_eventual: bool,
    progress_interval: Duration,
}

/// Where each range of a watch begins; none: with what comes from now on.
type Begins = Vec<(RangeId, Option<Place>)>;

impl Watched {
    /// The keys that are asked for, of an etcd keyspace.
    pub(crate) fn keys(keyspace: &KeyspaceView, asked: &Asked) -> Watched {
        Watched {
            keyspace: keyspace.name.clone(),
            incarnation: keyspace.incarnation,
            start: asked.start.clone(),
            end: asked.end.clone(),
            no_puts: asked.no_puts,
            no_deletes: asked.no_deletes,
            previous: asked.previous,
            tentative: false,
            is_eventual: false,
            progress_interval: asked.wait,
        }
    }

    /// What a request asks for, and where its ranges begin.
    ///
    /// # Errors
    ///
    /// Fields that are not what they may be, or that the keyspace's mode has no answer to;
    /// positions of another keyspace.
    fn of(
        request: &v1::WatchRequest,
        keyspace: &KeyspaceView,
        progress_interval: Duration,
    ) -> Result<(Watched, Begins), GatewayError> {
        fits_mode(request, keyspace)?;
        if request.no_puts && request.no_deletes {
            let problem = "with no_puts as well nothing is left; leave one of the two out";
            return Err(GatewayError::field("no_deletes", problem));
        }
        let (start, end) = interval_of(request, &keyspace.options)?;
        let watched = Watched {
            keyspace: keyspace.name.clone(),
            incarnation: keyspace.incarnation,
            start,
            end,
            no_puts: request.no_puts,
            no_deletes: request.no_deletes,
            previous: request.previous,
            tentative: request.tentative,
            is_eventual: keyspace.options.mode == Mode::Eventual,
            progress_interval,
        };
        let begins = begins_of(request, keyspace, &watched)?;
        Ok((watched, begins))
    }

    /// Its keys in a range, as they are stored.
    fn interval(&self, keyspace: &KeyspaceView, range: &RangeView) -> KeyInterval {
        interval_within(keyspace, range, &self.start, &self.end)
    }
}

/// Refuses what the keyspace's mode cannot tell of.
fn fits_mode(request: &v1::WatchRequest, keyspace: &KeyspaceView) -> Result<(), GatewayError> {
    let name = &keyspace.name;
    let refused = |field, problem| Err(GatewayError::field(field, problem));
    match (keyspace.options.mode, request.tentative) {
        (Mode::Strong, true) => {
            let problem = format!(
                "keyspace `{name}` is of mode strong: nothing is visible there before the log has \
                 decided it. Leave `tentative` out; keyspaces of mode mixed and eventual have it"
            );
            refused("tentative", problem)
        }
        (Mode::Eventual, false) => {
            let problem = format!(
                "keyspace `{name}` is of mode eventual and has no log, so nothing is ever decided. \
                 Ask with `tentative` for writes as they become visible"
            );
            refused("tentative", problem)
        }
        (Mode::Eventual, true) if request.from_revision > 0 || !request.positions.is_empty() => {
            let problem = format!(
                "keyspace `{name}` is of mode eventual and has no revisions to begin from. Leave \
                 it out: the watch begins with what becomes visible from now on"
            );
            refused("from_revision", problem)
        }
        (Mode::Eventual, true) if request.previous => {
            let problem = format!(
                "keyspace `{name}` is of mode eventual and keeps no earlier values. Leave it out"
            );
            refused("previous", problem)
        }
        _ => Ok(()),
    }
}

/// User keys in a range, as they are stored.
fn interval_within(
    keyspace: &KeyspaceView,
    range: &RangeView,
    start: &[u8],
    end: &[u8],
) -> KeyInterval {
    let bucket = match keyspace.options.partitioning {
        Partitioning::Ordered => None,
        Partitioning::Hash(_) => u16::try_from(range.bucket).ok(),
    };
    user_interval(keyspace.id, bucket, start, end).intersect(&range.interval)
}

/// The keys of a watch: one, or a prefix and an interval, what lies in both.
fn interval_of(
    request: &v1::WatchRequest,
    options: &KeyspaceOptions,
) -> Result<(Bytes, Bytes), GatewayError> {
    let is_interval =
        !(request.prefix.is_empty() && request.start.is_empty() && request.end.is_empty());
    if !request.key.is_empty() {
        if is_interval {
            let problem = "a watch is of one key, or of a prefix or interval; leave out the other";
            return Err(GatewayError::field("key", problem));
        }
        validate::key("key", &request.key, options)?;
        let behind = [&request.key[..], &[0]].concat();
        return Ok((request.key.clone(), behind.into()));
    }
    validate::bound("prefix", &request.prefix, options)?;
    validate::bound("start", &request.start, options)?;
    validate::bound("end", &request.end, options)?;
    if !request.end.is_empty() && request.start >= request.end {
        let problem = "the end is exclusive and above the start";
        return Err(GatewayError::field("end", problem));
    }
    let prefix_end = prefix_end(&request.prefix);
    let ends = [&prefix_end, &request.end];
    let end = ends.into_iter().filter(|end| !end.is_empty()).min();
    let start = request.start.clone().max(request.prefix.clone());
    if end.is_some_and(|end| *end <= start) {
        let problem = "no key with the prefix lies in the interval";
        return Err(GatewayError::field("prefix", problem));
    }
    Ok((start, end.cloned().unwrap_or_default()))
}

fn begins_of(
    request: &v1::WatchRequest,
    keyspace: &KeyspaceView,
    watched: &Watched,
) -> Result<Begins, GatewayError> {
    let of_all =
        (request.from_revision > 0).then(|| Place::behind(Revision(request.from_revision - 1)));
    let mut named = HashMap::with_capacity(request.positions.len());
    for position in &request.positions {
        let range = RangeId(position.range);
        if !keyspace.ranges.iter().any(|view| view.id == range) {
            let problem = format!(
                "range {range} is none of keyspace `{}`; was it dropped and made again? \
                 Begin without positions",
                keyspace.name
            );
            return Err(GatewayError::field("positions", problem));
        }
        if named.insert(range, place_of(position)).is_some() {
            let problem = format!("range {range} is named twice; show the latest position alone");
            return Err(GatewayError::field("positions", problem));
        }
    }
    let covered = |range: &&RangeView| !watched.interval(keyspace, range).is_empty();
    // One key is in one bucket.
    let home = (!request.key.is_empty()).then(|| keyspace.route(&request.key).0.id);
    let covered = keyspace.ranges.iter().filter(covered);
    let covered = covered.filter(|range| home.is_none_or(|home| range.id == home));
    let begin = |range: &RangeView| {
        let place = named.remove(&range.id).or_else(|| of_all.clone());
        (range.id, place)
    };
    Ok(covered.map(begin).collect())
}

fn place_of(position: &v1::WatchPosition) -> Place {
    Place {
        revision: Revision(position.revision),
        key: position.key.clone(),
    }
}

fn position_of(range: RangeId, place: &Place) -> v1::WatchPosition {
    v1::WatchPosition {
        range: range.0,
        revision: place.revision.0,
        key: place.key.clone(),
    }
}
