//! The stream of one watch: pages of its ranges as they come, and marks of how far it has come.
//!
//! At most one message waits for the client. While it does, nothing is asked for.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use quorate_eventual::VisiblePlace;
use quorate_proto::v1;
use quorate_proto::v1::watch_server::Watch;
use quorate_raft::Place;
use quorate_types::{RangeId, Revision};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Response, Status};

use super::events::{Page, first_wanted};
use super::source::asked_of;
use super::tentative::TentativeAsked;
use super::undecided::Undecided;
use super::{Begins, Opened, Watched, position_of};
use crate::errors::GatewayError;
use crate::gateway::{Gateway, keyspace};

/// How often a stream without events says how far it has come, unless its client wants otherwise.
const PROGRESS_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// The shortest and longest that a client may want.
const PROGRESS_INTERVAL_MS: std::ops::RangeInclusive<u32> = 100..=600_000;

/// The `Watch` service of one node.
#[derive(Clone, Debug)]
pub struct WatchService {
    gateway: Gateway,
}

impl WatchService {
    /// The service of a gateway.
    pub fn new(gateway: Gateway) -> WatchService {
        WatchService { gateway }
    }
}

/// The messages of one watch.
pub struct Messages {
    queue: mpsc::Receiver<Result<v1::WatchResponse, Status>>,
}

impl Stream for Messages {
    type Item = Result<v1::WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll_recv(task)
    }
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream = Messages;

    async fn watch(
        &self,
        request: tonic::Request<v1::WatchRequest>,
    ) -> Result<Response<Messages>, Status> {
        let connection = request.remote_addr();
        let opened = self.gateway.watches().open(connection)?;
        let messages = self.gateway.watch(request.into_inner(), opened)?;
        Ok(Response::new(messages))
    }
}

impl Gateway {
    /// Begins a watch; it ends when its messages are dropped.
    fn watch(&self, request: v1::WatchRequest, opened: Opened) -> Result<Messages, GatewayError> {
        if self.is_stopping() {
            return Err(GatewayError::Stopping);
        }
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        let interval = progress_interval(request.progress_interval_ms)?;
        let (watched, mut begins) = Watched::of(&request, keyspace, interval)?;
        if self.faults().watch_forgets_places && !request.positions.is_empty() {
            begins.iter_mut().for_each(|(_, place)| *place = None);
        }
        // A place that a client has been told is one that a node had come to: a clock that is behind
        // here does not make it one of the future.
        let is_told = |range: RangeId| request.positions.iter().any(|one| one.range == range.0);
        for (_, place) in begins.iter().filter(|(range, _)| !is_told(*range)) {
            if let Some(place) = place {
                self.not_in_future(first_wanted(place))?;
            }
        }
        let (sender, queue) = mpsc::channel(1);
        let running = Running::new(self.clone(), watched, begins);
        tokio::spawn(async move {
            let _opened = opened;
            running.run(interval, sender).await;
        });
        Ok(Messages { queue })
    }
}

fn progress_interval(millis: u32) -> Result<Duration, GatewayError> {
    match millis {
        0 => Ok(PROGRESS_INTERVAL_DEFAULT),
        millis if PROGRESS_INTERVAL_MS.contains(&millis) => {
            Ok(Duration::from_millis(u64::from(millis)))
        }
        millis => {
            let (least, most) = (PROGRESS_INTERVAL_MS.start(), PROGRESS_INTERVAL_MS.end());
            let problem = format!("{millis} is not from {least} to {most}; 0 means 5,000");
            Err(GatewayError::field("progress_interval_ms", problem))
        }
    }
}

/// A watch while it runs.
struct Running {
    gateway: Gateway,
    watched: Arc<Watched>,
    ranges: Vec<(RangeId, Option<Place>)>,
    /// How far it has come in what becomes visible, of each range.
    visible: Vec<Option<VisiblePlace>>,
    undecided: Undecided,
    /// Ranges whose places the client was not told since they moved.
    moved: BTreeSet<usize>,
    /// Ranges of which it is not known yet where "now" is.
    unknown: usize,
}

type NextPage = BoxFuture<'static, (usize, Result<Page, GatewayError>)>;

impl Running {
    fn new(gateway: Gateway, watched: Watched, begins: Begins) -> Running {
        Running {
            gateway,
            visible: vec![None; begins.len()],
            undecided: Undecided::default(),
            // Where there is no log there are no places.
            moved: (0..begins.len()).filter(|_| !watched.is_eventual).collect(),
            unknown: begins.iter().filter(|(_, place)| place.is_none()).count(),
            ranges: begins,
            watched: Arc::new(watched),
        }
    }

    async fn run(
        mut self,
        interval: Duration,
        sender: mpsc::Sender<Result<v1::WatchResponse, Status>>,
    ) {
        let mut stopping = self.gateway.watch_stop();
        let mut pages: FuturesUnordered<NextPage> = FuturesUnordered::new();
        let is_unknown = |at: &usize| self.ranges[*at].1.is_none();
        pages.extend(
            (0..self.ranges.len())
                .filter(is_unknown)
                .map(|at| self.ask(at)),
        );
        let mut progress = tokio::time::interval_at(Instant::now() + interval, interval);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_opened = false;
        loop {
            // Nothing is read for a client that does not take what is there.
            let Ok(permit) = sender.reserve().await else {
                return;
            };
            let message = loop {
                if !is_opened && self.unknown == 0 {
                    is_opened = true;
                    pages.extend((0..self.ranges.len()).map(|at| self.ask(at)));
                    break Ok(self.mark());
                }
                let (at, page) = tokio::select! {
                    biased;
                    () = sender.closed() => return,
                    _ = stopping.wait_for(|stop| *stop) => break Err(GatewayError::Stopping),
                    Some(page) = pages.next() => page,
                    _ = progress.tick(), if is_opened => break Ok(self.mark()),
                };
                match page {
                    Err(error) => break Err(error),
                    Ok(page) => {
                        let message = self.take(at, page);
                        if is_opened {
                            pages.push(self.ask(at));
                        }
                        if let Some(message) = message {
                            break Ok(message);
                        }
                    }
                }
            };
            let is_over = message.is_err();
            permit.send(message.map_err(Status::from));
            if is_over {
                return;
            }
        }
    }

    /// Asks for the next page of a range.
    fn ask(&self, at: usize) -> NextPage {
        let (range, place) = self.ranges[at].clone();
        let (gateway, watched) = (self.gateway.clone(), Arc::clone(&self.watched));
        let events_max = gateway.admission().watch_events_max();
        let tentative = watched.tentative.then(|| TentativeAsked {
            after: self.visible[at],
            waits: self.undecided.waits(range),
        });
        let places = (place, tentative);
        let asked = asked_of(&watched, places, (self.ranges.len(), events_max));
        Box::pin(async move { (at, gateway.next_page(&watched, range, &asked).await) })
    }

    /// Moves a range on, and makes the message of its events, if there are any.
    fn take(&mut self, at: usize, mut page: Page) -> Option<v1::WatchResponse> {
        let settled = self.take_visible(at, &mut page);
        let tentative_skipped = std::mem::take(&mut self.undecided.skipped);
        let is_empty = page.events.is_empty() && settled.is_empty() && tentative_skipped == 0;
        let (range, place) = &mut self.ranges[at];
        if place.is_none() {
            self.unknown -= 1;
        }
        if place.as_ref() != Some(&page.place) && !self.watched.is_eventual {
            self.moved.insert(at);
        }
        *place = Some(match self.gateway.faults().watch_whole_revisions {
            true => Place::behind(page.place.revision),
            false => page.place,
        });
        if is_empty {
            return None;
        }
        self.moved.remove(&at);
        let place = place.as_ref().filter(|_| !self.watched.is_eventual);
        let position = place.map(|place| position_of(*range, place));
        let message = v1::WatchResponse {
            events: page.events,
            positions: position.into_iter().collect(),
            complete_revision: self.complete().0,
            settled,
            tentative_skipped,
        };
        metrics::counter!("quorate_watch_events_total").increment(message.events.len() as u64);
        Some(message)
    }

    /// Leaves of a page's tentative events those that the client is to be told of, and says which
    /// of those that it was told of are settled.
    fn take_visible(&mut self, at: usize, page: &mut Page) -> Vec<String> {
        let (Some(found), (range, _)) = (page.tentative.take(), &self.ranges[at]) else {
            return Vec::new();
        };
        self.visible[at] = Some(found.place);
        self.undecided.skipped += found.missed;
        metrics::counter!("quorate_watch_tentative_skipped_total").increment(found.missed);
        if self.watched.is_eventual {
            let actor = found.place.actor;
            self.undecided.admit_from(*range, actor, &mut page.events);
            return Vec::new();
        }
        self.undecided.admit(*range, &mut page.events);
        let decided = found.decided.as_ref();
        decided.map_or(Vec::new(), |dots| self.undecided.settle(*range, dots))
    }

    /// A message that says how far the watch has come.
    fn mark(&mut self) -> v1::WatchResponse {
        let moved = std::mem::take(&mut self.moved);
        let position = |at: usize| {
            let (range, place) = &self.ranges[at];
            place.as_ref().map(|place| position_of(*range, place))
        };
        v1::WatchResponse {
            events: Vec::new(),
            positions: moved.into_iter().filter_map(position).collect(),
            complete_revision: self.complete().0,
            ..v1::WatchResponse::default()
        }
    }

    /// Up to where all events of all ranges were sent.
    fn complete(&self) -> Revision {
        let places = self.ranges.iter().map(|(_, place)| match place {
            Some(place) => place.whole(),
            None => Revision::ZERO,
        });
        places.min().unwrap_or(Revision::ZERO)
    }
}
