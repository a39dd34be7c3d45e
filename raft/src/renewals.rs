//! Keep-alives of leases on their way into the log: those that wait go with one entry.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_proto::internal::{Command, LeaseRenew, command};
use quorate_types::LeaseId;
use quorate_types::limits::KEEP_ALIVES_MAX;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::group::{Group, ProposeError};
use crate::machine::ApplyOutcome;

/// Keep-alives wait for others: nobody needs their answers at once.
const GATHER: Duration = Duration::from_millis(10);
/// An entry that is not decided by then is given up.
const DECIDE_TIMEOUT: Duration = Duration::from_secs(2);

type Answer = Result<Vec<u64>, ProposeError>;

struct Waiting {
    ids: Vec<LeaseId>,
    answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    running: bool,
}

/// The keep-alives of one group.
#[derive(Default)]
pub(crate) struct Renewals {
    state: Mutex<State>,
}

impl Renewals {
    /// Takes what goes with the next entry; none: nobody waits, and the run is over.
    fn take(&self) -> Vec<Waiting> {
        let mut state = self.state.lock();
        let mut ids = 0;
        let mut fits = |one: &Waiting| {
            ids += one.ids.len();
            ids <= KEEP_ALIVES_MAX
        };
        let count = state.waiting.iter().take_while(|one| fits(one)).count();
        // One that is too large for any entry would wait for ever.
        let count = count.max(1).min(state.waiting.len());
        let taken = state.waiting.drain(..count).collect::<Vec<_>>();
        state.running = !taken.is_empty();
        taken
    }
}

impl Group {
    /// Gives leases their whole time again. Answers for each how long it lives from now on,
    /// microseconds; 0: there is no such lease.
    ///
    /// # Errors
    ///
    /// As [`Group::propose`]. A keep-alive that may have been decided can be sent again.
    pub async fn keep_alive(
        self: &Arc<Self>,
        ids: Vec<LeaseId>,
        deadline: Instant,
    ) -> Result<Vec<u64>, ProposeError> {
        let (answer, receiver) = oneshot::channel();
        let start = {
            let mut state = self.renewals.state.lock();
            state.waiting.push(Waiting { ids, answer });
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(self.clone().run_renewals());
        }
        match tokio::time::timeout_at(deadline, receiver).await {
            Ok(answer) => answer.unwrap_or(Err(ProposeError::Stopped)),
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    async fn run_renewals(self: Arc<Self>) {
        loop {
            tokio::time::sleep(GATHER).await;
            let taken = self.renewals.take();
            if taken.is_empty() {
                return;
            }
            let ids = taken.iter().flat_map(|one| one.ids.iter().map(|id| id.0));
            let decided = self.decide_renewals(ids.collect()).await;
            answer_all(taken, decided);
        }
    }

    async fn decide_renewals(&self, ids: Vec<u64>) -> Answer {
        let command = Command {
            operation: Some(command::Operation::LeaseRenew(LeaseRenew { ids })),
            ..Command::default()
        };
        let proposed = self
            .propose(command, Instant::now() + DECIDE_TIMEOUT)
            .await?;
        match proposed.applied.outcome {
            ApplyOutcome::Renewed(ttls) => Ok(ttls),
            _ => Err(ProposeError::Unknown),
        }
    }
}

fn answer_all(taken: Vec<Waiting>, decided: Answer) {
    let mut at = 0;
    for one in taken {
        let count = one.ids.len();
        let answer = match &decided {
            Ok(ttls) => ttls
                .get(at..at + count)
                .map(<[u64]>::to_vec)
                .ok_or(ProposeError::Unknown),
            Err(error) => Err(error.clone()),
        };
        at += count;
        // Who ran out of time does not wait any more.
        let _ = one.answer.send(answer);
    }
}
