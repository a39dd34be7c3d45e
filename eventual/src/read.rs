//! Serving reads of clients: this node asks as many holders as the level wants, joins what they
//! know, and repairs those that know less. A session's read goes on until those who answered know
//! together all that the session has seen.
//!
//! Read repair is Dynamo's (DeCandia et al. 2007, section 4.7); what a session has seen is named
//! as Terry et al. do ("Session guarantees for weakly consistent replicated data", 1994), by sets
//! of writes. Not here: writes (`coordinator`), pages (`scan`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quorate_proto::internal::{
    Fetch, Join, KeyState as WireState, eventual_request::Request, eventual_response::Response,
};
use quorate_types::causal::{Dots, KeyState};
use quorate_types::{Copies, NodeId, RangeId};
use tokio::time::Instant;

use crate::error::EventualError;
use crate::node::{EventualNode, Inner, dots_from_wire, dots_to_wire, missing_of_hints};
use crate::quorum::Tally;
use crate::replica::Replica;
use crate::seam::PeerFailure;
use crate::step::Step;

/// A holder that has not answered a read after this is taken for unreachable.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);
/// A replica is given this long to take a read repair.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys under read repair at the same time; past it a read leaves the rest to Merkle repair.
const READ_REPAIRS_MAX: usize = 1_024;
/// Before holders that do not know what a session has seen are asked again; then twice as long.
pub(crate) const SESSION_PAUSE: Duration = Duration::from_millis(5);
/// Longest such pause.
pub(crate) const SESSION_PAUSE_MAX: Duration = Duration::from_millis(80);

/// What a session has seen of a range.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of writes, those of the log included. Empty: nothing, or there is no session.
    pub dots: Dots,
    /// From then on the best is answered that is there; `None`: never less than is wanted.
    pub best_by: Option<Instant>,
}

/// A client's read.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Of which range.
    pub range: RangeId,
    /// The encoded key.
    pub key: Bytes,
    /// Over how many holders.
    pub copies: Copies,
    /// What those who answer must know together.
    pub wanted: Wanted,
    /// Until when.
    pub deadline: Instant,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadDone {
    /// What those asked know together.
    pub state: KeyState,
    /// Who answered.
    pub tally: Tally,
    /// No primary was among them: there may be more.
    pub partial: bool,
    /// What was wanted and nobody knows, where the best that is there was to be answered.
    pub missing: Dots,
    /// An estimate: 999 of 1,000 such reads see what was acknowledged with one copy this long
    /// before. `None`: too little is known.
    pub visible_after: Option<Duration>,
}

impl EventualNode {
    /// Asks as many holders as the level wants, and joins what they know.
    ///
    /// # Errors
    /// [`EventualError`]; a read changes nothing.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadDone, EventualError> {
        let inner = &self.inner;
        let place = inner.place(request.range)?;
        let copies = place.holders.wanted(request.copies)?;
        let me = inner.node;
        let spread = place.holders.spread(me, |node| inner.reach(node));
        let mut others: Vec<NodeId> = spread.stand_ins.iter().rev().copied().collect();
        others.extend(spread.primaries.iter().rev());
        let mut reading = Reading {
            inner: inner.clone(),
            range: request.range,
            key: request.key.clone(),
            wanted: request.wanted.dots.clone(),
            is_primary: place.holders.is_primary(me),
            replica: inner.replica(request.range)?,
            known: Vec::new(),
            asked: FuturesUnordered::new(),
            flying: Vec::new(),
            everyone: others.clone(),
            others,
        };
        reading.look_here(spread.primaries.is_empty())?;
        let reachable = reading.known.len() + reading.others.len();
        if reachable < copies {
            return Err(EventualError::Unreachable {
                range: request.range,
                wanted: copies,
                reachable,
                missing: spread.missing,
            });
        }
        reading.gather(copies, request.deadline).await?;
        let missing = reading.catch_up(&request).await?;
        let done = reading.join()?;
        let is_complete = !done.partial;
        let visible_after = is_complete
            .then(|| inner.visible_after(request.range, &place.holders, copies))
            .flatten();
        Ok(ReadDone {
            missing,
            visible_after,
            ..done
        })
    }

    /// Which of some dots this node's replica of a range has not taken in.
    ///
    /// # Errors
    /// [`EventualError::Filling`] where it does not know all that it acknowledged.
    pub fn lacking(&self, range: RangeId, wanted: &Dots) -> Result<Dots, EventualError> {
        self.inner.replica(range)?.lacking(wanted)
    }

    /// As [`EventualNode::lacking`], of the dots of one key.
    ///
    /// # Errors
    /// As [`EventualNode::lacking`].
    pub fn lacking_of_key(
        &self,
        range: RangeId,
        key: &[u8],
        wanted: &Dots,
    ) -> Result<Dots, EventualError> {
        Ok(self.inner.replica(range)?.fetch_with(key, wanted)?.1)
    }
}

impl Inner {
    /// Asks another node on a client's behalf, and notes how long it took.
    async fn ask_timed(
        &self,
        to: NodeId,
        range: RangeId,
        request: Request,
    ) -> Result<Response, PeerFailure> {
        let began = Instant::now();
        let answer = self.ask(to, range, request, FETCH_TIMEOUT).await?;
        self.latencies.answered(to, began.elapsed());
        Ok(answer)
    }
}

/// What a holder has told.
struct Told {
    node: NodeId,
    is_primary: bool,
    state: Option<KeyState>,
    /// What is wanted and it does not know.
    missing: Dots,
}

type Asked = BoxFuture<'static, (NodeId, Result<Told, PeerFailure>)>;

/// A read on its way.
struct Reading {
    inner: Arc<Inner>,
    range: RangeId,
    key: Bytes,
    wanted: Dots,
    is_primary: bool,
    replica: Arc<Replica>,
    /// Who answered, each once.
    known: Vec<Told>,
    asked: FuturesUnordered<Asked>,
    /// Who was asked and has not answered.
    flying: Vec<NodeId>,
    /// Who was not asked yet, the next one last.
    others: Vec<NodeId>,
    /// All others that can be asked.
    everyone: Vec<NodeId>,
}

impl Reading {
    /// Looks at what this node has. `alone`: no primary can be asked.
    fn look_here(&mut self, alone: bool) -> Result<(), EventualError> {
        let node = self.inner.node;
        if self.is_primary {
            match self.replica.fetch_with(&self.key, &self.wanted) {
                Ok((state, missing)) => self.learn(Told {
                    node,
                    is_primary: true,
                    state: Some(state),
                    missing,
                }),
                Err(EventualError::Filling(_)) => {}
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        let state = self.replica.fetch_hinted(&self.key)?;
        // A primary knows more; this node's hints are still worth a look.
        if alone || state.is_some() {
            let missing = missing_of_hints(state.as_ref(), &self.wanted);
            self.learn(Told {
                node,
                is_primary: false,
                state,
                missing,
            });
        }
        Ok(())
    }

    /// Takes an answer, if it is one.
    fn hear(&mut self, (node, answer): (NodeId, Result<Told, PeerFailure>)) -> bool {
        self.flying.retain(|flying| *flying != node);
        answer.map(|told| self.learn(told)).is_ok()
    }

    fn learn(&mut self, told: Told) {
        self.known.retain(|known| known.node != told.node);
        self.known.push(told);
    }

    fn ask_next(&mut self) -> Option<Duration> {
        let to = self.others.pop()?;
        self.flying.push(to);
        let inner = self.inner.clone();
        let patience = inner.latencies.patience(to);
        let (range, key, wanted) = (self.range, self.key.clone(), self.wanted.clone());
        self.asked.push(Box::pin(async move {
            let fetch = Fetch {
                key,
                wanted: dots_to_wire(&wanted),
            };
            let answer = inner.ask_timed(to, range, Request::Fetch(fetch)).await;
            (to, answer.and_then(|answer| fetched(to, answer, wanted)))
        }));
        Some(patience)
    }

    /// Asks until as many have answered as are wanted; one more for each that is slow or fails.
    async fn gather(&mut self, copies: usize, deadline: Instant) -> Result<(), EventualError> {
        let mut hedge = Instant::now() + FETCH_TIMEOUT;
        while self.known.len() + self.asked.len() < copies {
            let Some(patience) = self.ask_next() else {
                break;
            };
            hedge = hedge.min(Instant::now() + patience);
        }
        while self.known.len() < copies {
            tokio::select! {
                biased;
                Some(answer) = self.asked.next() => if !self.hear(answer) {
                    self.ask_next();
                },
                () = tokio::time::sleep_until(deadline) => break,
                () = tokio::time::sleep_until(hedge) => {
                    let patience = self.ask_next().unwrap_or(FETCH_TIMEOUT);
                    hedge = Instant::now() + patience;
                }
            }
            if self.asked.is_empty() && self.others.is_empty() {
                break;
            }
        }
        if self.known.len() >= copies {
            return Ok(());
        }
        Err(EventualError::TooFewAnswers {
            range: self.range,
            wanted: copies,
            answered: self.known.len(),
        })
    }

    /// What is wanted and nobody who answered knows: a write that one of them knows is in what
    /// they know together, shown or replaced.
    fn missing(&self) -> Dots {
        let known = self.known.iter();
        known.fold(self.wanted.clone(), |missing, told| {
            missing.common(&told.missing)
        })
    }

    /// Asks more holders, and all again, until they know together what the session has seen.
    async fn catch_up(&mut self, request: &ReadRequest) -> Result<Dots, EventualError> {
        let best_by = request.wanted.best_by;
        let until = best_by.map_or(request.deadline, |by| by.min(request.deadline));
        let mut pause = SESSION_PAUSE;
        let mut again = Instant::now() + pause;
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(missing);
            }
            if Instant::now() >= until {
                return match best_by {
                    Some(_) => Ok(missing),
                    None => Err(EventualError::SessionBehind {
                        range: self.range,
                        missing: Box::new(missing),
                        asked: self.known.iter().map(|told| told.node).collect(),
                    }),
                };
            }
            while self.ask_next().is_some() {}
            tokio::select! {
                biased;
                Some(answer) = self.asked.next() => {
                    self.hear(answer);
                }
                () = tokio::time::sleep_until(until) => {}
                () = tokio::time::sleep_until(again) => {
                    self.look_here(false)?;
                    let reachable = |node: &NodeId| self.inner.peers.reachable(*node);
                    let idle = self.everyone.iter().filter(|node| !self.flying.contains(node));
                    self.others = idle.copied().filter(reachable).collect();
                    pause = SESSION_PAUSE_MAX.min(pause * 2);
                    again = Instant::now() + pause;
                }
            }
        }
    }

    /// What those who answered know together; those who know less are told, in the background.
    fn join(self) -> Result<ReadDone, EventualError> {
        let mut tally = Tally::default();
        let mut joined: Option<KeyState> = None;
        for told in &self.known {
            tally.add(told.node, told.is_primary);
            match (&mut joined, &told.state) {
                (Some(joined), Some(state)) => joined.join(state),
                (None, Some(state)) => joined = Some(state.clone()),
                (_, None) => {}
            }
        }
        let partial = tally.primaries.is_empty();
        let shown = joined.filter(|state| !partial || state.live().len() > 0);
        let Some(state) = shown else {
            return Err(EventualError::AbsenceUnknown { range: self.range });
        };
        let knows_less = |told: &&Told| {
            let known = told.state.as_ref();
            told.is_primary && known.is_some_and(|known| !same_live(known, &state))
        };
        let lagging = self.known.iter().filter(knows_less);
        let lagging: Vec<NodeId> = lagging.map(|told| told.node).collect();
        if !lagging.is_empty() {
            self.repair(lagging, &state);
        }
        Ok(ReadDone {
            state,
            tally,
            partial,
            missing: Dots::new(),
            visible_after: None,
        })
    }

    /// Tells those who know less, once per key and moment.
    fn repair(self, lagging: Vec<NodeId>, state: &KeyState) {
        let (inner, range, key) = (self.inner, self.range, self.key);
        let place = (range, key.clone());
        {
            let mut running = inner.read_repairs.lock();
            if running.len() >= READ_REPAIRS_MAX || !running.insert(place.clone()) {
                return;
            }
        }
        metrics::counter!("quorate_read_repairs_total").increment(1);
        let state = state.encode();
        tokio::spawn(async move {
            for node in lagging {
                let state = state.clone();
                let key = key.clone();
                if node == inner.node {
                    if let Ok(replica) = inner.replica(range) {
                        // What cannot be repaired now, Merkle repair finds.
                        let _ = replica.do_step(&Step::Join { key, state });
                    }
                    continue;
                }
                let request = Request::Join(Join {
                    states: vec![WireState { key, state }],
                    answer_states: false,
                });
                let told = inner.ask(node, range, request, REPAIR_TIMEOUT).await;
                if let Err(error) = told {
                    tracing::debug!(%range, %error, "a read repair was not taken");
                }
            }
            inner.read_repairs.lock().remove(&place);
        });
    }
}

fn same_live(one: &KeyState, other: &KeyState) -> bool {
    one.live()
        .map(|(dot, _)| dot)
        .eq(other.live().map(|(dot, _)| dot))
}

fn fetched(node: NodeId, response: Response, wanted: Dots) -> Result<Told, PeerFailure> {
    let refused = |error: &dyn std::fmt::Display| PeerFailure::Refused {
        node,
        problem: error.to_string(),
    };
    let Response::Fetched(fetched) = response else {
        return Err(PeerFailure::NoAnswer(node));
    };
    let state = match fetched.state.is_empty() {
        true => None,
        false => Some(KeyState::decode(&fetched.state).map_err(|error| refused(&error))?),
    };
    let missing = match &fetched.missing {
        Some(missing) => dots_from_wire(missing).map_err(|error| refused(&error))?,
        None => wanted,
    };
    Ok(Told {
        node,
        is_primary: fetched.primary,
        state,
        missing,
    })
}
