//! Serving writes of clients: this node takes a write in, spreads it, and answers once as many
//! holders have it as the level wants.
//!
//! The parts of Dynamo (DeCandia et al. 2007, sections 4.5 and 4.6): sloppy quorums, hinted
//! hand-off; with names of writes instead of vector clocks. Not here: reads (`read`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::causal::{
    Actor, Context, Delta, Dot, Dots, KeyState, Limits, Planned, Seen, Update, beside, plan,
};
use quorate_types::{Ack, Copies, NodeId, RangeId, RequestId, Revision, Timestamp};
use tokio::time::Instant;

use crate::error::EventualError;
use crate::names::{Begun, Remembered};
use crate::node::{EventualNode, Inner};
use crate::quorum::{Reach, Spread, Tally};
use crate::read::{ReadRequest, Wanted};
use crate::replica::{Replica, Written};
use crate::seam::Place;
use crate::spread::{Progress, Spreading, Stored, Waiter};
use crate::step::Step;

/// Where a level still lacks holders after this, stand-ins are asked as well.
const STAND_IN_PATIENCE: Duration = Duration::from_millis(50);
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

/// What the session of a write has seen of the range.
#[derive(Clone, Debug, Default)]
pub struct SeenBefore {
    /// Names of writes, those of the log included. Empty: nothing, or there is no session.
    pub dots: Dots,
    /// They say what a holder must know, but not what was seen: some names stand for others.
    pub is_coarse: bool,
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
    /// What its session has seen of the range: replaced as well, where the client did not say.
    pub session: SeenBefore,
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
    /// The names of all its parts.
    pub dots: Dots,
    /// Who had it when the rung was met.
    pub tally: Tally,
    /// What the coordinator knows of the key now.
    pub state: KeyState,
    /// An earlier attempt had been taken in already.
    pub replayed: bool,
    /// Time until it was stored here.
    pub stored_after: Duration,
}

impl EventualNode {
    /// Takes a write in, spreads it, and waits for the first rung that is met.
    ///
    /// # Errors
    /// [`EventualError`], which says what it did to the data.
    pub async fn write(&self, mut request: WriteRequest) -> Result<WriteDone, EventualError> {
        let inner = &self.inner;
        if inner.options.faults.sloppy_as_strict {
            request
                .rungs
                .iter_mut()
                .for_each(|rung| rung.strict = false);
        }
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
        let known = self.caught_up(&request, &place).await?;
        inner.log.ready().await;
        self.look_up(&request).await;
        let holders_wanted = rungs.iter().map(|rung| rung.wanted).max().unwrap_or(1);
        let holders_wanted = u8::try_from(holders_wanted).unwrap_or(u8::MAX);
        let began = Instant::now();
        let Taken {
            written,
            beside,
            replayed,
        } = self.take_in(
            (&request, &known),
            &replica,
            &place,
            primary,
            holders_wanted,
        )?;
        let memory = rungs.iter().all(|rung| rung.memory) && !written.folds;
        if !memory && !inner.options.faults.acknowledge_before_sync {
            written.synced.wait().await?;
        }
        let stored_after = began.elapsed();
        let strong = self
            .strong_rungs(&request, (&beside, &written.deltas))
            .await;
        let dots = dots_of(&written.deltas)?;
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
        let mut failed = strong.failed;
        failed.extend(unmet_above(rung, &request, &rungs));
        Ok(WriteDone {
            rung,
            decided: strong.met.map(|(_, revision)| revision),
            failed,
            dot: written.dot,
            dots,
            tally,
            state: written.state,
            replayed,
            stored_after,
        })
    }

    /// What the session has seen of the key, asked of those who have it: where its names do not say
    /// what that is, and for a change of a typed key, which replaces parts: of parts a coordinator
    /// can only replace what it knows.
    async fn caught_up(
        &self,
        request: &WriteRequest,
        place: &Place,
    ) -> Result<KeyState, EventualError> {
        let whole = !place.policy.is_typed();
        let session = &request.session;
        let is_said = whole && !session.is_coarse;
        if is_said || session.dots.is_empty() || request.seen.is_some() {
            return Ok(KeyState::default());
        }
        let ends = request.strong.iter().copied();
        let deadline = ends.chain(request.rungs.iter().map(|rung| rung.deadline));
        let read = ReadRequest {
            range: request.range,
            key: request.key.clone(),
            copies: Copies::One,
            wanted: Wanted {
                dots: session.dots.clone(),
                best_by: None,
            },
            deadline: deadline.min().unwrap_or_else(Instant::now),
        };
        Ok(self.read(read).await?.state)
    }

    /// Names a write and takes it in; a retry finds the name of its earlier attempt.
    fn take_in(
        &self,
        (request, known): (&WriteRequest, &KeyState),
        replica: &Arc<Replica>,
        place: &Place,
        primary: bool,
        wanted: u8,
    ) -> Result<Taken, EventualError> {
        let inner = &self.inner;
        let Some((id, first_tried)) = request.name else {
            return self.take_in_new((request, known), replica, place, primary, wanted);
        };
        let begun = inner.names.lock().begin(request.range, id);
        match begun {
            Begun::Known(earlier) if !inner.options.faults.rename_retries => {
                return take_in_again(request, replica, primary, wanted, earlier);
            }
            Begun::Busy => return Err(EventualError::RetryUnknown),
            Begun::New | Begun::Known(_) => {}
        }
        let remembers = first_tried >= inner.started && inner.names.lock().would_know(first_tried);
        let taken = if !remembers && !request.update.is_repeatable() {
            Err(EventualError::RetryUnknown)
        } else {
            self.take_in_new((request, known), replica, place, primary, wanted)
        };
        let remembered = taken.as_ref().ok().map(|taken| Remembered {
            dot: taken.written.dot,
            deltas: taken.written.deltas.clone(),
            beside: taken.beside.clone(),
        });
        let name = (request.range, id);
        inner.names.lock().end(name, first_tried, remembered);
        taken
    }

    fn take_in_new(
        &self,
        (request, known): (&WriteRequest, &KeyState),
        replica: &Arc<Replica>,
        place: &Place,
        primary: bool,
        wanted: u8,
    ) -> Result<Taken, EventualError> {
        let times = (request.timestamp, request.expiry);
        let mut view = KeyState::default();
        let make = |held: &KeyState, actor, last| {
            view = held.clone();
            view.join(known);
            planned(request, place, &view, actor, last)
        };
        let written = if primary {
            replica.write(&request.key, make, times)?
        } else {
            replica.write_hints(&request.key, wanted, make, times)?
        };
        let witness = &self.inner.options.witness;
        witness.saw(request.range, &request.key, &written.deltas);
        let beside = match !request.strong.is_empty() && place.policy.is_typed() {
            false => Vec::new(),
            true => self.beside(request, place, &view, &written.deltas)?,
        };
        Ok(Taken {
            written,
            beside,
            replayed: false,
        })
    }

    /// What the log may have to learn before it takes in these deltas, as far as this node knows
    /// what it knows.
    fn beside(
        &self,
        request: &WriteRequest,
        place: &Place,
        view: &KeyState,
        deltas: &[Bytes],
    ) -> Result<Vec<Bytes>, EventualError> {
        let decisions = &self.inner.decisions;
        let decided = decisions.decided(request.range, &request.key)?;
        let decided = decided.map(|(decided, _)| decided).unwrap_or_default();
        let deltas: Result<Vec<Delta>, _> = deltas.iter().map(Delta::decode).collect();
        let beside = beside(place.policy, view, decided.context(), &deltas?);
        Ok(beside.iter().map(Delta::encode).collect())
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
}

/// A write that was taken in here.
struct Taken {
    written: Written,
    /// Deltas that the log is to take in first.
    beside: Vec<Bytes>,
    /// By an earlier attempt.
    replayed: bool,
}

/// Takes in another copy of a write that was named before: if it is there, nothing changes.
fn take_in_again(
    request: &WriteRequest,
    replica: &Replica,
    primary: bool,
    wanted: u8,
    Remembered {
        dot,
        deltas,
        beside,
    }: Remembered,
) -> Result<Taken, EventualError> {
    let key = request.key.clone();
    let (synced, state) = if primary {
        let deltas = deltas.clone();
        let synced = replica.do_step(&Step::Accept { key, deltas })?;
        (synced, replica.held(&request.key)?)
    } else {
        let synced = replica.keep(&key, &deltas, wanted)?;
        (synced, replica.fetch_hinted(&key)?.unwrap_or_default())
    };
    let written = Written {
        dot,
        deltas,
        folds: false,
        state,
        synced,
    };
    Ok(Taken {
        written,
        beside,
        replayed: true,
    })
}

/// The names of a write's parts.
fn dots_of(deltas: &[Bytes]) -> Result<Dots, EventualError> {
    let named = deltas.iter().map(|delta| Ok(Delta::decode(delta)?.dot));
    named.collect()
}

/// The deltas of a write.
fn planned(
    request: &WriteRequest,
    place: &Place,
    held: &KeyState,
    actor: Actor,
    last: u64,
) -> Result<Vec<Planned>, EventualError> {
    let limits = Limits::default();
    let session;
    let seen = match &request.seen {
        // Where it is coarse, what it stands for is held by now.
        None if request.session.dots.is_empty() || request.session.is_coarse => Seen::Coordinator,
        // As if the coordinator had caught up with the session.
        None => {
            Context::refuse_unwritten(&request.session.dots, actor, last)?;
            session = {
                let mut seen = held.context().clone();
                seen.union(&request.session.dots);
                seen
            };
            Seen::Client(&session)
        }
        Some(seen) => {
            Context::refuse_unwritten(seen, actor, last)?;
            Seen::Client(seen)
        }
    };
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

/// Why the eventual rungs above the one that was met were not.
fn unmet_above(rung: usize, request: &WriteRequest, rungs: &[Meetable]) -> Vec<&'static str> {
    let above = 0..rung.saturating_sub(request.strong.len());
    let why = |at| match rungs.iter().any(|meetable| meetable.at == at) {
        true => "too few copies in time",
        false => "too few holders in reach",
    };
    above.map(why).collect()
}
