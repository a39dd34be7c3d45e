//! One request through all its attempts: where each goes, how long it may take, and what is
//! said when none succeeds.

use std::time::Duration;

use quorate_proto::v1;
use quorate_types::{Effect, RangeId, Reason, RequestHandle, RequestId, Timestamp};
use tokio::time::Instant;

use crate::client::Client;
use crate::endpoints::Visited;
use crate::environment;
use crate::error::{ClientError, Fate, LostError};
use crate::failure::Failure;
use crate::identity::{Name, request_id};
use crate::limits::{BACKOFF_MAX, RETRY_TIME_MIN};
use crate::options::{WriteOptions, check_timeout};
use crate::request::{self, Request, Response};
use crate::retry::{Course, Next};
use crate::{partial, unary};

/// How one request is to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    /// Instead of the client's.
    pub(crate) timeout: Option<Duration>,
    /// Of a write.
    pub(crate) naming: Naming,
}

/// How a write gets its name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Naming {
    /// A new one.
    #[default]
    New,
    /// The caller's, who may have used it before.
    Given {
        /// The name.
        id: RequestId,
        /// When it was first used; none: now.
        first_tried: Option<Timestamp>,
    },
    /// None: it may be applied more than once.
    Unnamed,
}

impl Call {
    pub(crate) fn read(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            naming: Naming::New,
        }
    }

    pub(crate) fn write(options: &WriteOptions) -> Self {
        let naming = match options.request_id {
            Some(id) => Naming::Given {
                id,
                first_tried: options.first_tried,
            },
            None if options.at_least_once => Naming::Unnamed,
            None => Naming::New,
        };
        Self {
            timeout: options.timeout,
            naming,
        }
    }
}

/// A request on its way.
struct Errand<'a> {
    client: &'a Client,
    request: Request,
    /// A name that was made up here, so no one else has used it.
    own_name: Option<Name>,
    /// The range it should go to, as far as is known.
    range: Option<RangeId>,
    started: Instant,
    timeout: Duration,
    visited: Visited,
    course: Course,
    attempts: u32,
    timeouts: u32,
    last: Option<Failure>,
    /// The newest answer, if it was one in part.
    partial: Option<Box<Response>>,
}

impl Client {
    /// Sends a request until it is answered, cannot succeed, or time is up.
    pub(crate) async fn run(&self, request: Request, call: Call) -> Result<Response, ClientError> {
        let timeout = call.timeout.unwrap_or(self.shared.timeout);
        check_timeout("timeout", timeout)?;
        let mut errand = Errand {
            client: self,
            request,
            own_name: None,
            range: None,
            started: Instant::now(),
            timeout,
            visited: Visited::default(),
            course: Course::default(),
            attempts: 0,
            timeouts: 0,
            last: None,
            partial: None,
        };
        errand.prepare(call.naming);
        let _in_flight = match &self.lanes {
            Some(lanes) => match lanes.admit(&errand.request, timeout).await {
                Some(admission) => Some(admission),
                None => return Err(errand.fail(Some("too many requests in flight"))),
            },
            None => None,
        };
        errand.run().await
    }
}

impl Errand<'_> {
    /// Fills in what the caller left open: keyspace, name, way.
    fn prepare(&mut self, naming: Naming) {
        if let Some(keyspace) = request::keyspace_of(&mut self.request)
            && keyspace.is_empty()
        {
            keyspace.push_str(&self.client.keyspace);
        }
        if request::is_write(&self.request) {
            self.name(naming);
        }
        self.range = self.client.range_for(&self.request);
    }

    fn name(&mut self, naming: Naming) {
        let identity = &self.client.identity;
        let Some(name) = request::name_of(&mut self.request) else {
            return;
        };
        match naming {
            // A request built by hand may bring its name along.
            Naming::New if name.is_some() => {}
            Naming::New => {
                let own_name = identity.name_write();
                *name = Some(own_name.wire());
                self.own_name = Some(own_name);
            }
            Naming::Given { id, first_tried } => {
                *name = Some(v1::RequestId {
                    client: id.client.0,
                    sequence: id.sequence,
                    first_tried: first_tried.map_or_else(|| identity.stamp(), |stamp| stamp.0),
                });
            }
            Naming::Unnamed => *name = None,
        }
    }

    async fn run(&mut self) -> Result<Response, ClientError> {
        let shared = &self.client.shared;
        loop {
            let Some(attempt_timeout) = self.attempt_timeout() else {
                return self.end();
            };
            let index = self.endpoint();
            self.visited.add(index);
            self.attempts += 1;
            let failure = match self.attempt(index, attempt_timeout).await {
                Ok(response) => {
                    self.client
                        .learn_from(&self.request, &response, self.range, index);
                    let Some(failure) = partial::unfinished(&response) else {
                        return Ok(response);
                    };
                    self.partial = Some(Box::new(response));
                    failure
                }
                Err(failure) => failure,
            };
            match self.take(failure, index) {
                Next::Retry { pause, .. } if shared.retries && self.may_repeat() => {
                    if !self.pause(pause).await {
                        return self.end();
                    }
                }
                Next::Rename => self.rename(),
                Next::Retry { .. } | Next::GiveUp => return self.end(),
            }
        }
    }

    /// Where the next attempt goes. The eventual plane has no leaders: any node will do.
    fn endpoint(&self) -> usize {
        let shared = &self.client.shared;
        if !self.client.planes_of(&self.request).strong {
            return shared.endpoints.pick_at_hand(self.visited);
        }
        let leader = self.range.and_then(|range| shared.routes.leader_of(range));
        shared.endpoints.pick(leader, self.visited)
    }

    /// Whether another attempt can do no harm. A named write is applied once per range, but the
    /// eventual plane remembers names at one coordinator only: there puts and deletes may be
    /// applied again, and an increment that may have arrived must not be.
    fn may_repeat(&self) -> bool {
        !self.course.maybe_applied || request::is_repeatable(&self.request)
    }

    /// No attempt did all: what was done in part, or why nothing was.
    fn end(&mut self) -> Result<Response, ClientError> {
        match self.partial.take() {
            Some(mut response) => {
                if self.course.maybe_applied {
                    partial::cast_doubt(&self.request, &mut response);
                }
                Ok(*response)
            }
            None => Err(self.fail(None)),
        }
    }

    /// One attempt, as a call of its own or on a lane.
    async fn attempt(&self, index: usize, timeout: Duration) -> Result<Response, Failure> {
        let endpoint = self.client.shared.endpoints.get(index);
        let request = self.request.clone();
        match &self.client.lanes {
            Some(lanes) => {
                lanes
                    .lane(index, || endpoint.kv())
                    .call(request, timeout)
                    .await
            }
            // Boxed: a call's state is large, and whoever holds many requests on lanes has none.
            None => Box::pin(unary::call(endpoint, request, timeout)).await,
        }
    }

    /// What is left, but no more than one attempt should have: that doubles with each
    /// attempt that was too short. None: time is up.
    fn attempt_timeout(&self) -> Option<Duration> {
        let left = self.timeout.saturating_sub(self.started.elapsed());
        let doubled = 1_u32 << self.timeouts.min(16);
        let fair = self.client.shared.attempt_timeout.saturating_mul(doubled);
        let is_worth_it = self.attempts == 0 || left >= RETRY_TIME_MIN;
        Some(left.min(fair)).filter(|left| is_worth_it && !left.is_zero())
    }

    /// Takes note of a failure, and decides what comes next.
    fn take(&mut self, failure: Failure, index: usize) -> Next {
        let shared = &self.client.shared;
        let untried = self.visited.leaves_any_of(shared.endpoints.len());
        let may_rename = self.own_name.is_some() && request::is_repeatable(&self.request);
        let next = self.course.after(&failure, untried, may_rename);
        if let Next::Retry { rest_endpoint, .. } = next {
            if rest_endpoint {
                shared.endpoints.rest(index);
            }
            match self.range {
                Some(range) if self.client.planes_of(&self.request).strong => {
                    shared.routes.forget_leader(range);
                }
                Some(_) => {}
                // Its range may have to be told, should no attempt succeed.
                None if self.course.maybe_applied => {
                    self.client.learn_in_background(&self.request);
                }
                None => {}
            }
        }
        self.timeouts += u32::from(is_timeout(&failure));
        if !untried {
            self.visited = Visited::default();
        }
        self.last = Some(failure);
        next
    }

    /// Waits for about that long. False: time would be up by then, so there is no use.
    async fn pause(&self, pause: Duration) -> bool {
        if pause.is_zero() {
            return true;
        }
        let left = self.timeout.saturating_sub(self.started.elapsed());
        if pause + RETRY_TIME_MIN >= left {
            return false;
        }
        tokio::time::sleep(environment::jittered(pause)).await;
        true
    }

    /// Makes it a new write: its old name was never applied, and never will be.
    fn rename(&mut self) {
        if let Some(name) = request::name_of(&mut self.request) {
            *name = None;
        }
        self.name(Naming::New);
    }

    /// What the caller is told, with what all attempts together may have done.
    fn fail(&mut self, problem: Option<&str>) -> ClientError {
        let mut fate = self.fate();
        match (self.last.take(), problem) {
            (Some(Failure::Refused(mut error)), None) => {
                fate.handle = error.fate.handle.or(fate.handle);
                error.fate = fate;
                ClientError::Server(error)
            }
            (last, problem) => {
                let waited = self.started.elapsed();
                let timed_out =
                    waited + RETRY_TIME_MIN + BACKOFF_MAX >= self.timeout || problem.is_some();
                let problem = match (problem, last) {
                    (Some(problem), _) => problem.to_owned(),
                    (None, Some(failure)) => failure.problem(),
                    (None, None) => "time was up".to_owned(),
                };
                ClientError::Lost(Box::new(LostError {
                    timed_out,
                    waited,
                    problem,
                    endpoints: self.client.shared.endpoints.addresses(),
                    fate,
                }))
            }
        }
    }

    fn fate(&mut self) -> Fate {
        let is_write = request::is_write(&self.request);
        let range = self.client.range_for(&self.request).or(self.range);
        let request = request::name_of(&mut self.request)
            .and_then(|name| name.as_ref())
            .map(request_id);
        let effect = match &self.last {
            _ if !is_write => Effect::None,
            // Only an attempt that surely was applied says so; else doubt outlives refusals.
            Some(failure) if failure.effect() == Effect::Applied => Effect::Applied,
            _ if self.course.maybe_applied => Effect::Unknown,
            _ => Effect::None,
        };
        Fate {
            effect,
            request,
            // The range knows the strong plane's writes only: of others it would answer "no".
            handle: range
                .zip(request)
                .filter(|_| !self.client.planes_of(&self.request).eventual)
                .map(|(range, request)| RequestHandle { range, request }),
            attempts: self.attempts,
        }
    }
}

/// Whether the attempt might have succeeded with more time.
fn is_timeout(failure: &Failure) -> bool {
    match failure {
        Failure::Lost { timed_out, .. } => *timed_out,
        Failure::Refused(error) => error.reason == Some(Reason::TimedOut),
        Failure::NotSent { .. } => false,
    }
}
