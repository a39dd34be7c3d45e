//! Serving clients: this node takes a write in, spreads it, and answers once as many holders have
//! it as the level wants; it asks as many holders for a read, joins what they know, and repairs
//! those that know less.
//!
//! The parts of Dynamo (DeCandia et al. 2007, sections 4.5 to 4.7): sloppy quorums, hinted
//! hand-off, read repair; with names of writes instead of vector clocks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use quorate_proto::internal::{
    Fetch, Join, KeyState as WireState, eventual_request::Request, eventual_response::Response,
};
use quorate_types::causal::{
    Actor, Context, Dot, Dots, KeyState, Limits, Planned, Seen, Update, plan,
};
use quorate_types::{Ack, Copies, NodeId, RangeId, RequestId, Revision, Timestamp};
use tokio::time::Instant;

use crate::error::EventualError;
use crate::names::{Begun, Remembered};
use crate::node::{EventualNode, Inner};
use crate::quorum::{Reach, Spread, Tally};
use crate::replica::{Replica, Written};
use crate::seam::{PeerFailure, Place};
use crate::spread::{Progress, Spreading, Stored, Waiter};
use crate::step::Step;

/// A holder that has not answered a read after this is taken for unreachable.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);
/// Where a level still lacks holders after this, stand-ins are asked as well.
const STAND_IN_PATIENCE: Duration = Duration::from_millis(50);
/// A replica is given this long to take a read repair.
const REPAIR_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys under read repair at the same time; past it a read leaves the rest to Merkle repair.
const READ_REPAIRS_MAX: usize = 1_024;

/// One rung of an eventual write.
#[derive(Clone, Copy, Debug)]
pub struct WriteRung {
    /// By how many holders.
    pub copies: Copies,
    /// Whether only primaries count.
    pub strict: bool,
    /// When a holder counts.
    pub ack: Ack,
    /// Until when this rung is waited for.
    pub deadline: Instant,
}

/// A client's write.
#[derive(Clone, Debug)]
pub struct WriteRequest {
    /// Of which range.
    pub range: RangeId,
    /// The encoded key.
    pub key: Bytes,
    /// What.
    pub update: Update,
    /// What the client has seen; `None`: it did not say.
    pub seen: Option<Dots>,
    /// Hidden from then on.
    pub expiry: Option<Timestamp>,
    /// When it was written, by the coordinator's hybrid clock.
    pub timestamp: Timestamp,
    /// The client's name for it, and when it was first tried.
    pub name: Option<(RequestId, Timestamp)>,
    /// Until when the log of the range is tried first, in a ladder that begins with it.
    pub strong: Vec<Instant>,
    /// The preferred rung first; at least one.
    pub rungs: Vec<WriteRung>,
}

/// What became of a write.
#[derive(Clone, Debug)]
pub struct WriteDone {
    /// Which rung was met: the strong ones first.
    pub rung: usize,
    /// Where the log has decided it, as which revision.
    pub decided: Option<Revision>,
    /// Why rungs above the one that was met were not.
    pub failed: Vec<&'static str>,
    /// The write's name; of several parts the first one's.
    pub dot: Dot,
    /// Who had it when the rung was met.
    pub tally: Tally,
    /// What the coordinator knows of the key now.
    pub state: KeyState,
    /// An earlier attempt had been taken in already.
    pub replayed: bool,
    /// Time until it was stored here.
    pub stored_after: Duration,
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
}

impl EventualNode {
    /// Takes a write in, spreads it, and waits for the first rung that is met.
    ///
    /// # Errors
    /// [`EventualError`], which says what it did to the data.
    pub async fn write(&self, request: WriteRequest) -> Result<WriteDone, EventualError> {
        let inner = &self.inner;
        let place = inner.place(request.range)?;
        let replica = inner.replica(request.range)?;
        let me = inner.node;
        let primary = place.holders.is_primary(me);
        let spread = place.holders.spread(me, |node| inner.reach(node));
        let rungs = match meetable(&place, primary, &spread, &request) {
            Err(_) if !request.strong.is_empty() => Vec::new(),
            rungs => rungs?,
        };
        if !primary {
            inner.check_hint_room(&replica)?;
        }
        inner.log.ready().await;
        self.look_up(&request).await;
        let holders_wanted = rungs.iter().map(|rung| rung.wanted).max().unwrap_or(1);
        let holders_wanted = u8::try_from(holders_wanted).unwrap_or(u8::MAX);
        let began = Instant::now();
        let (written, replayed) =
            self.take_in(&request, &replica, &place, primary, holders_wanted)?;
        let memory = rungs.iter().all(|rung| rung.memory) && !written.folds;
        if !memory && !inner.options.faults.acknowledge_before_sync {
            written.synced.wait().await?;
        }
        let stored_after = began.elapsed();
        let strong = self.strong_rungs(&request, &written.deltas).await;
        let stored = Stored {
            range: request.range,
            key: request.key.clone(),
            dot: written.dot,
            deltas: written.deltas,
            memory,
            holders_wanted,
            replica,
            primary_here: primary,
        };
        let waiter = Spreading::begin(inner, stored, spread);
        // What the log has decided travels on, too: clocks stay without gaps.
        let met = match strong.met {
            Some((at, _)) => Some(at),
            None => wait_for_rung(&waiter, &rungs)
                .await
                .map(|at| request.strong.len() + at),
        };
        let tally = waiter.tally();
        drop(waiter);
        let Some(rung) = met else {
            let last = rungs
                .last()
                .map_or((1, false), |rung| (rung.wanted, rung.strict));
            return Err(EventualError::TooFewHolders {
                wanted: last.0,
                stored: tally.count(last.1),
            });
        };
        Ok(WriteDone {
            rung,
            decided: strong.met.map(|(_, revision)| revision),
            failed: strong.failed,
            dot: written.dot,
            tally,
            state: written.state,
            replayed,
            stored_after,
        })
    }

    /// Names a write and takes it in; a retry finds the name of its earlier attempt.
    fn take_in(
        &self,
        request: &WriteRequest,
        replica: &Arc<Replica>,
        place: &Place,
        primary: bool,
        wanted: u8,
    ) -> Result<(Written, bool), EventualError> {
        let inner = &self.inner;
        let Some((id, first_tried)) = request.name else {
            let written = self.take_in_new(request, replica, place, primary, wanted)?;
            return Ok((written, false));
        };
        let begun = inner.names.lock().begin(request.range, id);
        match begun {
            Begun::Known(earlier) if !inner.options.faults.rename_retries => {
                let written = take_in_again(request, replica, primary, wanted, earlier)?;
                return Ok((written, true));
            }
            Begun::Busy => return Err(EventualError::RetryUnknown),
            Begun::New | Begun::Known(_) => {}
        }
        let known = first_tried >= inner.started && inner.names.lock().would_know(first_tried);
        let taken = if !known && !request.update.is_repeatable() {
            Err(EventualError::RetryUnknown)
        } else {
            self.take_in_new(request, replica, place, primary, wanted)
        };
        let remembered = taken.as_ref().ok().map(|written| Remembered {
            dot: written.dot,
            deltas: written.deltas.clone(),
        });
        let name = (request.range, id);
        inner.names.lock().end(name, first_tried, remembered);
        Ok((taken?, false))
    }

    fn take_in_new(
        &self,
        request: &WriteRequest,
        replica: &Arc<Replica>,
        place: &Place,
        primary: bool,
        wanted: u8,
    ) -> Result<Written, EventualError> {
        let times = (request.timestamp, request.expiry);
        let make = |held: &KeyState, actor, last| planned(request, place, held, actor, last);
        let written = if primary {
            replica.write(&request.key, make, times)?
        } else {
            replica.write_hints(&request.key, wanted, make, times)?
        };
        let witness = &self.inner.options.witness;
        witness.saw(request.range, &request.key, &written.deltas);
        Ok(written)
    }

    /// Asks as many holders as the level wants, and joins what they know.
    ///
    /// # Errors
    /// [`EventualError`]; a read changes nothing.
    pub async fn read(&self, request: ReadRequest) -> Result<ReadDone, EventualError> {
        let inner = &self.inner;
        let place = inner.place(request.range)?;
        let wanted = place.holders.wanted(request.copies)?;
        let me = inner.node;
        let primary = place.holders.is_primary(me);
        let spread = place.holders.spread(me, |node| inner.reach(node));
        let mut reading = Reading {
            inner: inner.clone(),
            range: request.range,
            key: request.key.clone(),
            known: Vec::new(),
            asked: FuturesUnordered::new(),
            others: spread.stand_ins.iter().rev().copied().collect(),
        };
        reading.others.extend(spread.primaries.iter().rev());
        let replica = inner.replica(request.range)?;
        if primary {
            match replica.fetch(&request.key) {
                Ok(state) => reading.known.push((me, true, Some(state))),
                Err(EventualError::Filling(_)) => {}
                Err(error) => return Err(error),
            }
        } else {
            let state = replica.fetch_hinted(&request.key)?;
            if spread.primaries.is_empty() {
                reading.known.push((me, false, state));
            } else {
                // A primary knows more; this node's hints are still worth a look.
                reading
                    .known
                    .extend(state.map(|state| (me, false, Some(state))));
            }
        }
        let reachable = reading.known.len() + reading.others.len();
        if reachable < wanted {
            return Err(EventualError::Unreachable {
                range: request.range,
                wanted,
                reachable,
                missing: spread.missing,
            });
        }
        reading.gather(wanted, request.deadline).await?;
        reading.join()
    }
}

impl Inner {
    /// What is known of the way to another node.
    pub(crate) fn reach(&self, node: NodeId) -> Reach {
        match (self.peers.reachable(node), self.peers.steady(node)) {
            (false, _) => Reach::Away,
            (true, false) => Reach::Flapping,
            (true, true) => Reach::Steady,
        }
    }

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

/// Takes in another copy of a write that was named before: if it is there, nothing changes.
fn take_in_again(
    request: &WriteRequest,
    replica: &Replica,
    primary: bool,
    wanted: u8,
    Remembered { dot, deltas }: Remembered,
) -> Result<Written, EventualError> {
    let key = request.key.clone();
    let (synced, state) = if primary {
        let deltas = deltas.clone();
        let synced = replica.do_step(&Step::Accept { key, deltas })?;
        (synced, replica.held(&request.key)?)
    } else {
        let synced = replica.keep(&key, &deltas, wanted)?;
        (synced, replica.fetch_hinted(&key)?.unwrap_or_default())
    };
    Ok(Written {
        dot,
        deltas,
        folds: false,
        state,
        synced,
    })
}

/// The deltas of a write.
fn planned(
    request: &WriteRequest,
    place: &Place,
    held: &KeyState,
    actor: Actor,
    last: u64,
) -> Result<Vec<Planned>, EventualError> {
    let seen = match &request.seen {
        None => Seen::Coordinator,
        Some(seen) => {
            Context::refuse_unwritten(seen, actor, last)?;
            Seen::Client(seen)
        }
    };
    let limits = Limits::default();
    let by = (seen, actor, request.expiry);
    Ok(plan(place.policy, &limits, held, by, &request.update)?)
}

/// A rung that can be met now.
struct Meetable {
    /// Its place in the request.
    at: usize,
    wanted: usize,
    strict: bool,
    memory: bool,
    deadline: Instant,
}

/// The rungs that can be met with who is reachable.
fn meetable(
    place: &Place,
    primary: bool,
    spread: &Spread,
    request: &WriteRequest,
) -> Result<Vec<Meetable>, EventualError> {
    let mut rungs = Vec::with_capacity(request.rungs.len());
    let mut unmet = None;
    for (at, rung) in request.rungs.iter().enumerate() {
        let wanted = place.holders.wanted(rung.copies)?;
        let primaries = usize::from(primary) + spread.primaries.len();
        let stand_ins = usize::from(!primary) + spread.stand_ins.len();
        let reachable = primaries + if rung.strict { 0 } else { stand_ins };
        if reachable < wanted {
            unmet = Some(EventualError::Unreachable {
                range: request.range,
                wanted,
                reachable,
                missing: spread.missing.clone(),
            });
            continue;
        }
        rungs.push(Meetable {
            at,
            wanted,
            strict: rung.strict,
            memory: rung.ack == Ack::Memory,
            deadline: rung.deadline,
        });
    }
    match unmet {
        Some(unmet) if rungs.is_empty() => Err(unmet),
        Some(_) | None => Ok(rungs),
    }
}

/// Waits until a rung is met: the first one until its deadline, then the next one. Stand-ins are
/// asked where primaries are slow.
async fn wait_for_rung(waiter: &Waiter, rungs: &[Meetable]) -> Option<usize> {
    for rung in rungs {
        let mut impatient = Instant::now() + STAND_IN_PATIENCE;
        loop {
            match waiter.progress(rung.wanted, rung.strict) {
                Progress::Met => return Some(rung.at),
                Progress::Ended if rung.strict || !waiter.ask_stand_in() => break,
                Progress::UnderWay | Progress::Ended => {}
            }
            tokio::select! {
                biased;
                () = waiter.changed() => {}
                () = tokio::time::sleep_until(rung.deadline) => break,
                () = tokio::time::sleep_until(impatient), if !rung.strict => {
                    impatient = Instant::now() + STAND_IN_PATIENCE;
                    if !waiter.ask_stand_in() {
                        impatient = rung.deadline;
                    }
                }
            }
        }
    }
    None
}

type Asked = BoxFuture<'static, (NodeId, Result<(bool, Option<KeyState>), PeerFailure>)>;

/// A read on its way.
struct Reading {
    inner: Arc<Inner>,
    range: RangeId,
    key: Bytes,
    /// Who answered, whether as a primary, and with what.
    known: Vec<(NodeId, bool, Option<KeyState>)>,
    asked: FuturesUnordered<Asked>,
    /// Who was not asked yet, the next one last.
    others: Vec<NodeId>,
}

impl Reading {
    fn ask_next(&mut self) -> Option<Duration> {
        let to = self.others.pop()?;
        let inner = self.inner.clone();
        let patience = inner.latencies.patience(to);
        let (range, key) = (self.range, self.key.clone());
        self.asked.push(Box::pin(async move {
            let request = Request::Fetch(Fetch { key });
            let answer = inner.ask_timed(to, range, request).await;
            (to, answer.and_then(|answer| fetched(to, answer)))
        }));
        Some(patience)
    }

    /// Asks until as many have answered as are wanted; one more for each that is slow or fails.
    async fn gather(&mut self, wanted: usize, deadline: Instant) -> Result<(), EventualError> {
        let mut hedge = Instant::now() + FETCH_TIMEOUT;
        while self.known.len() + self.asked.len() < wanted {
            let Some(patience) = self.ask_next() else {
                break;
            };
            hedge = hedge.min(Instant::now() + patience);
        }
        while self.known.len() < wanted {
            tokio::select! {
                biased;
                answer = self.asked.next(), if !self.asked.is_empty() => match answer {
                    Some((node, Ok((primary, state)))) => self.known.push((node, primary, state)),
                    Some((_, Err(_))) | None => drop(self.ask_next()),
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
        if self.known.len() >= wanted {
            return Ok(());
        }
        Err(EventualError::TooFewAnswers {
            range: self.range,
            wanted,
            answered: self.known.len(),
        })
    }

    /// What those who answered know together; those who know less are told, in the background.
    fn join(self) -> Result<ReadDone, EventualError> {
        let mut tally = Tally::default();
        let mut joined: Option<KeyState> = None;
        for (node, primary, state) in &self.known {
            tally.add(*node, *primary);
            match (&mut joined, state) {
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
        let lagging: Vec<NodeId> = self
            .known
            .iter()
            .filter(|(_, primary, known)| {
                *primary
                    && known
                        .as_ref()
                        .is_some_and(|known| !same_live(known, &state))
            })
            .map(|(node, _, _)| *node)
            .collect();
        if !lagging.is_empty() {
            self.repair(lagging, &state);
        }
        Ok(ReadDone {
            state,
            tally,
            partial,
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

fn fetched(node: NodeId, response: Response) -> Result<(bool, Option<KeyState>), PeerFailure> {
    match response {
        Response::Fetched(fetched) if fetched.state.is_empty() => Ok((fetched.primary, None)),
        Response::Fetched(fetched) => match KeyState::decode(&fetched.state) {
            Ok(state) => Ok((fetched.primary, Some(state))),
            Err(error) => Err(PeerFailure::Refused {
                node,
                problem: error.to_string(),
            }),
        },
        _ => Err(PeerFailure::NoAnswer(node)),
    }
}
