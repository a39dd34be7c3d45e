//! Which appends travel to a follower, and when: those that carry nothing but a newer commit index
//! wait a moment for one with entries, which says the same, unless somebody at the follower waits for
//! them; and while one with entries is under way, what comes meanwhile is collected for the next.
//! Not here: sending them (see `network`).
//!
//! openraft sends an append without entries after every commit that no other append has told of.
//! Under load the next entries are there within the moment; a lone put would otherwise cost each
//! node two more messages, both ways, than its entry does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::task::AtomicWaker;
use openraft::raft::AppendEntriesRequest;
use tokio::time::Sleep;

use crate::consensus::Consensus;

/// How long a commit index waits for entries to travel with. Followers apply so much later at
/// most; the leader's answers do not wait for them, but watches at a follower would.
const COMMIT_HOLD: Duration = Duration::from_millis(1);

/// How long entries wait for the answer to the append before theirs. What an append costs all
/// nodes depends little on its entries, so few large ones are better; but where peers are far, the
/// next must not wait for the way there and back.
const ENTRIES_HOLD: Duration = Duration::from_millis(2);

type Request = AppendEntriesRequest<Consensus>;

/// Appends of one stream session, less those that a later one makes needless.
///
/// Whoever answers need not answer for those: an answer covers all requests of the session up to
/// the position that it names.
pub(crate) struct Merged<S> {
    input: S,
    /// Without entries, waiting for one that covers it.
    held: Option<(Request, Pin<Box<Sleep>>)>,
    /// Came behind one that it does not cover.
    next: Option<Request>,
    ended: bool,
    /// Somebody waits for commits at the follower.
    is_followed: Arc<AtomicBool>,
}

impl<S: Stream<Item = Request> + Unpin> Merged<S> {
    pub(crate) fn new(input: S, is_followed: Arc<AtomicBool>) -> Merged<S> {
        Merged {
            input,
            held: None,
            next: None,
            ended: false,
            is_followed,
        }
    }

    fn poll_input(&mut self, task: &mut Context<'_>) -> Option<Request> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        if self.ended {
            return None;
        }
        match Pin::new(&mut self.input).poll_next(task) {
            Poll::Ready(Some(next)) => Some(next),
            Poll::Ready(None) => {
                self.ended = true;
                None
            }
            Poll::Pending => None,
        }
    }

    /// Takes one in. What is to be sent now, if anything, comes back.
    fn take(&mut self, next: Request) -> Option<Request> {
        let held = self.held.take();
        let timer = match held {
            Some((held, _)) if !covers(&next, &held) => {
                self.next = Some(next);
                return Some(held);
            }
            Some((_, timer)) => Some(timer),
            None => None,
        };
        if !next.entries.is_empty() {
            return Some(next);
        }
        let timer = timer.unwrap_or_else(|| Box::pin(tokio::time::sleep(COMMIT_HOLD)));
        self.held = Some((next, timer));
        None
    }
}

/// Whether `later` tells a follower everything that `held` does. An answer to `later` then covers
/// `held`: same leader, and its log up to `held` is part of its log up to `later`.
fn covers(later: &Request, held: &Request) -> bool {
    later.vote == held.vote
        && later.prev_log_id >= held.prev_log_id
        && later.leader_commit >= held.leader_commit
}

impl<S: Stream<Item = Request> + Unpin> Stream for Merged<S> {
    type Item = Request;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Request>> {
        let this = &mut *self;
        while let Some(next) = this.poll_input(task) {
            if let Some(due) = this.take(next) {
                return Poll::Ready(Some(due));
            }
        }
        let Some((_, timer)) = &mut this.held else {
            return if this.ended {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        };
        // An ended session waits for nothing.
        let waits = !this.ended && !this.is_followed.load(Ordering::Relaxed);
        if waits && timer.as_mut().poll(task).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(this.held.take().map(|(request, _)| request))
    }
}

/// Appends of one stream session, so that little is under way at once: openraft makes the next
/// request when it is asked for it, of all entries that are there by then.
pub(crate) struct Paced<S> {
    input: S,
    under_way: Arc<UnderWay>,
    /// Since the last one with entries.
    hold: Option<Pin<Box<Sleep>>>,
}

#[derive(Default)]
struct UnderWay {
    appends: AtomicUsize,
    waiting: AtomicWaker,
}

/// An append with entries that is under way until this is dropped.
pub(crate) struct Ticket(Arc<UnderWay>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.appends.fetch_sub(1, Ordering::AcqRel);
        self.0.waiting.wake();
    }
}

impl<S: Stream<Item = Request> + Unpin> Paced<S> {
    pub(crate) fn new(input: S) -> Paced<S> {
        Paced {
            input,
            under_way: Arc::default(),
            hold: None,
        }
    }

    fn must_wait(&mut self, task: &mut Context<'_>) -> bool {
        self.under_way.waiting.register(task.waker());
        self.under_way.appends.load(Ordering::Acquire) > 0
            && self
                .hold
                .as_mut()
                .is_some_and(|hold| hold.as_mut().poll(task).is_pending())
    }
}

impl<S: Stream<Item = Request> + Unpin> Stream for Paced<S> {
    type Item = (Request, Option<Ticket>);

    fn poll_next(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.must_wait(task) {
            return Poll::Pending;
        }
        Pin::new(&mut this.input).poll_next(task).map(|next| {
            let request = next?;
            if request.entries.is_empty() {
                return Some((request, None));
            }
            this.under_way.appends.fetch_add(1, Ordering::AcqRel);
            this.hold = Some(Box::pin(tokio::time::sleep(ENTRIES_HOLD)));
            let ticket = Ticket(this.under_way.clone());
            Some((request, Some(ticket)))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::StreamExt;
    use openraft::entry::RaftEntry;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::consensus::{log_id, vote_from_wire};

    fn request(term: u64, previous: u64, committed: u64, entries: usize) -> Request {
        let entry = |at| openraft::Entry::new_blank(log_id(term, at));
        let first = previous + 1;
        let vote = quorate_proto::internal::Vote {
            term,
            ..Default::default()
        };
        AppendEntriesRequest {
            vote: vote_from_wire(&vote),
            prev_log_id: Some(log_id(term, previous)),
            entries: (first..first + entries as u64).map(entry).collect(),
            leader_commit: Some(log_id(term, committed)),
        }
    }

    fn sent(request: &Request) -> (u64, u64, usize) {
        let index = |id: &Option<crate::consensus::LogId>| id.as_ref().unwrap().index;
        (
            index(&request.prev_log_id),
            index(&request.leader_commit),
            request.entries.len(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_for_entries_but_not_for_long() {
        let (sender, requests) = mpsc::unbounded_channel();
        let mut merged = Merged::new(UnboundedReceiverStream::new(requests), Arc::default());
        sender.send(request(1, 4, 3, 1)).unwrap();
        sender.send(request(1, 5, 4, 0)).unwrap();
        sender.send(request(1, 5, 5, 0)).unwrap();
        sender.send(request(1, 5, 5, 2)).unwrap();
        assert_eq!(sent(&merged.next().await.unwrap()), (4, 3, 1));
        assert_eq!(sent(&merged.next().await.unwrap()), (5, 5, 2));
        let began = tokio::time::Instant::now();
        sender.send(request(1, 7, 6, 0)).unwrap();
        sender.send(request(1, 7, 7, 0)).unwrap();
        assert_eq!(sent(&merged.next().await.unwrap()), (7, 7, 0));
        assert!(began.elapsed() <= 2 * COMMIT_HOLD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_for_nothing_where_somebody_follows() {
        let (sender, requests) = mpsc::unbounded_channel();
        let is_followed = Arc::new(AtomicBool::new(true));
        let mut merged = Merged::new(UnboundedReceiverStream::new(requests), is_followed.clone());
        let began = tokio::time::Instant::now();
        sender.send(request(1, 5, 4, 0)).unwrap();
        sender.send(request(1, 5, 5, 0)).unwrap();
        assert_eq!(sent(&merged.next().await.unwrap()), (5, 5, 0));
        assert_eq!(began.elapsed(), Duration::ZERO);
        is_followed.store(false, Ordering::Relaxed);
        sender.send(request(1, 5, 6, 0)).unwrap();
        assert_eq!(sent(&merged.next().await.unwrap()), (5, 6, 0));
        assert!(began.elapsed() >= COMMIT_HOLD);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_covered_and_what_comes_last_goes_out() {
        let (sender, requests) = mpsc::unbounded_channel();
        let mut merged = Merged::new(UnboundedReceiverStream::new(requests), Arc::default());
        // The log went back to an earlier position, then another term came.
        for sending in [(1, 9, 9, 0), (1, 4, 9, 2), (1, 6, 9, 0), (2, 6, 9, 0)] {
            let (term, previous, committed, entries) = sending;
            sender
                .send(request(term, previous, committed, entries))
                .unwrap();
        }
        drop(sender);
        let began = tokio::time::Instant::now();
        let all: Vec<_> = merged.by_ref().map(|next| sent(&next)).collect().await;
        assert_eq!(all, [(9, 9, 0), (4, 9, 2), (6, 9, 0), (6, 9, 0)]);
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "an ended session waits for nothing"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn entries_wait_for_the_answer_before_them_but_not_for_long() {
        let (sender, requests) = mpsc::unbounded_channel();
        let mut paced = Paced::new(UnboundedReceiverStream::new(requests));
        let began = tokio::time::Instant::now();
        for at in [4, 5, 6, 7] {
            sender.send(request(1, at, 3, 1)).unwrap();
        }
        let (_, first) = paced.next().await.unwrap();
        let answered = async {
            tokio::time::sleep(ENTRIES_HOLD / 2).await;
            drop(first);
        };
        let (second, ()) = futures::join!(paced.next(), answered);
        assert!(
            began.elapsed() < ENTRIES_HOLD,
            "the answer lets the next one go"
        );
        let third = paced.next().await.unwrap();
        assert!(began.elapsed() >= ENTRIES_HOLD, "one is under way");
        drop((second, third));
        let before = tokio::time::Instant::now();
        assert_eq!(sent(&paced.next().await.unwrap().0), (7, 3, 1));
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
}
