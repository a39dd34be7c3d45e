//! What happened: one hash over all of it, counts, and, where asked for, lines that a reader can
//! follow.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message as _;
use quorate_proto::internal::{Envelope, envelope::Body};
use quorate_raft::peer::Passage;
use quorate_types::NodeId;
use tokio::time::Instant;

/// Lines that are kept; older ones go.
const LINES_MAX: usize = 20_000;

/// The multiplier of FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>).
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The trace of one run. Clones are handles of the same one; it can be read while the run goes on,
/// or after it was given up.
#[derive(Clone, Debug)]
pub struct Trace {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Set once simulated time has begun.
    begun: Option<Instant>,
    hash: u64,
    messages: u64,
    /// Whether lines are kept.
    told: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty one; `told`: with lines.
    pub fn new(told: bool) -> Trace {
        Trace {
            state: Arc::new(Mutex::new(State {
                begun: None,
                hash: 0,
                messages: 0,
                told,
                lines: VecDeque::new(),
            })),
        }
    }

    /// Simulated time begins now.
    pub(crate) fn begin(&self) {
        self.state.lock().begun = Some(Instant::now());
    }

    /// Takes numbers into the hash, with the time.
    pub(crate) fn take(&self, numbers: &[u64]) {
        let mut state = self.state.lock();
        state.mix_time();
        numbers.iter().for_each(|number| state.mix(*number));
    }

    /// Takes a text into the hash, with the time, and keeps it as a line.
    pub(crate) fn line(&self, text: impl FnOnce() -> String) {
        let text = text();
        let mut state = self.state.lock();
        state.mix_time();
        state.mix(u64::from(crc32fast::hash(text.as_bytes())));
        state.keep(&text);
    }

    /// Takes a message in.
    pub(crate) fn message(&self, from: NodeId, to: NodeId, envelope: &Envelope, passage: Passage) {
        let mut state = self.state.lock();
        state.messages += u64::from(passage != Passage::Delivered);
        if passage != Passage::Delivered {
            state.mix_time();
            state.mix(from.0 << 32 | to.0 << 8 | u64::from(passage == Passage::Lost));
            state.mix(u64::from(crc32fast::hash(&envelope.encode_to_vec())));
        }
        if state.told && !is_beat(envelope) {
            let way = match passage {
                Passage::Sent => "->",
                Passage::Lost => "-x",
                Passage::Delivered => "=>",
                Passage::Again => "+>",
            };
            let what = name_of(envelope);
            let group = envelope.group;
            state.keep(&format!("{from} {way} {to}: {what}, range {group}"));
        }
    }

    /// The hash of all so far.
    pub fn hash(&self) -> u64 {
        self.state.lock().hash
    }

    /// Messages sent so far, lost ones too.
    pub fn messages(&self) -> u64 {
        self.state.lock().messages
    }

    /// The lines that are kept, oldest first.
    pub fn lines(&self) -> Vec<String> {
        self.state.lock().lines.iter().cloned().collect()
    }
}

impl State {
    fn micros(&self) -> u64 {
        let elapsed = self.begun.map(|begun| begun.elapsed());
        elapsed.map_or(0, |elapsed| elapsed.as_micros() as u64)
    }

    fn mix_time(&mut self) {
        self.mix(self.micros());
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(PRIME).rotate_left(29);
    }

    fn keep(&mut self, text: &str) {
        if !self.told {
            return;
        }
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        let micros = self.micros();
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        self.lines
            .push_back(format!("{seconds:>3}.{rest:06}  {text}"));
    }
}

/// What is said all the time, and says nothing to a reader.
fn is_beat(envelope: &Envelope) -> bool {
    match &envelope.body {
        Some(Body::Beat(_) | Body::CatalogRequest(_) | Body::Catalog(_) | Body::CloseAt(_)) => true,
        Some(Body::Append(append)) => append.entries.is_empty(),
        Some(Body::AppendResponse(_)) => true,
        _ => false,
    }
}

/// What a message is, in a word or two.
fn name_of(envelope: &Envelope) -> String {
    let Some(body) = &envelope.body else {
        return "an answer without a body".to_owned();
    };
    match body {
        Body::Append(append) => {
            let indices = append.entries.first().zip(append.entries.last());
            match indices {
                Some((first, last)) => format!(
                    "append {}..{} of term {}",
                    first.index, last.index, last.term
                ),
                None => "append".to_owned(),
            }
        }
        Body::Vote(vote) => format!("vote? {:?}", vote.vote.map(|vote| vote.term)),
        body => {
            let text = format!("{body:?}");
            let end = text.find(['(', ' ', '{']).unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}
