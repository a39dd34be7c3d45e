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

use crate::history::Found;
use crate::message::Names;

/// Lines that are kept; older ones go.
const LINES_MAX: usize = 200_000;

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
    lines: VecDeque<Line>,
    names: Names,
}

/// Something that has happened.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Since simulated time began.
    pub(crate) micros: u64,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A fault, a start, an end, something wrong.
    Event(String),
    Call(CallLine),
    /// What a node is asked, just after its call begins.
    Asked(String),
    /// What it answers, just before its call ends.
    Answered(String),
    Message(Box<Sent>),
}

/// A call begins or ends.
#[derive(Clone, Debug)]
pub(crate) struct CallLine {
    pub(crate) begins: bool,
    pub(crate) client: u64,
    /// With its keyspace, as [`Names::key`] has it.
    pub(crate) key: String,
    /// The line of the recording.
    pub(crate) number: u64,
    pub(crate) text: String,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) passage: Passage,
    /// Of what it says.
    pub(crate) digest: u32,
    pub(crate) envelope: Envelope,
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
                names: Names::default(),
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
        self.state.lock().mix_text(&text);
        self.keep(|| What::Event(text));
    }

    /// Takes a call into the hash, with the time, and keeps it as a line.
    pub(crate) fn call(&self, text: &str, line: impl FnOnce() -> CallLine) {
        self.state.lock().mix_text(text);
        self.keep(|| What::Call(line()));
    }

    /// Keeps a line that says nothing that the hash would not have anyhow.
    pub(crate) fn keep(&self, what: impl FnOnce() -> What) {
        let mut state = self.state.lock();
        if state.told {
            state.keep(what());
        }
    }

    /// Learns the names of what messages carry as numbers.
    pub(crate) fn learn(&self, learn: impl FnOnce(&mut Names)) {
        learn(&mut self.state.lock().names);
    }

    /// Takes a message in.
    pub(crate) fn message(&self, from: NodeId, to: NodeId, envelope: &Envelope, passage: Passage) {
        let mut state = self.state.lock();
        let is_new = passage != Passage::Delivered;
        if !is_new && !state.told {
            return;
        }
        let digest = crc32fast::hash(&envelope.encode_to_vec());
        if is_new {
            state.messages += 1;
            state.mix_time();
            state.mix(from.0 << 32 | to.0 << 8 | u64::from(passage == Passage::Lost));
            state.mix(u64::from(digest));
        }
        if state.told && !says_nothing(envelope) {
            state.keep(What::Message(Box::new(Sent {
                from: from.0,
                to: to.0,
                passage,
                digest,
                envelope: envelope.clone(),
            })));
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

    /// All that is kept, oldest first, but for what is said all the time.
    pub fn lines(&self) -> Vec<String> {
        let state = self.state.lock();
        let lines = state.lines.iter().filter(|line| match &line.what {
            What::Message(sent) => !is_beat(&sent.envelope),
            What::Event(_) | What::Call(_) | What::Asked(_) | What::Answered(_) => true,
        });
        lines.map(|line| state.text(line)).collect()
    }

    /// What concerns the first of these problems, in no more lines than a reader follows; then what
    /// is wrong.
    pub fn telling(&self, found: &[Found]) -> Vec<String> {
        let (lines, names) = {
            let state = self.state.lock();
            (
                state.lines.iter().cloned().collect::<Vec<_>>(),
                state.names.clone(),
            )
        };
        crate::telling::telling(&lines, &names, found)
    }

    /// What a replica shows of a key, in words.
    pub(crate) fn state(&self, bytes: &bytes::Bytes) -> String {
        self.state.lock().names.state(bytes)
    }

    /// An entry of a log, in words.
    pub(crate) fn entry(&self, entry: &quorate_proto::internal::Entry) -> String {
        self.state.lock().names.entry(entry).said.text
    }

    /// So many lines have been kept so far.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().lines.len()
    }

    /// Of what concerns a key (none: all) of a range, what was kept since so many lines were; without
    /// its times.
    pub(crate) fn told_since(&self, len: usize, range: u64, key: Option<String>) -> Vec<String> {
        let (lines, names) = {
            let state = self.state.lock();
            (
                state.lines.iter().cloned().collect::<Vec<_>>(),
                state.names.clone(),
            )
        };
        crate::telling::told_since(&lines, len, &names, range, key)
    }
}

/// A moment at the head of a line: seconds since simulated time began.
pub(crate) fn moment(micros: u64) -> String {
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    format!("{seconds:>3}.{rest:06}  ")
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

    fn mix_text(&mut self, text: &str) {
        self.mix_time();
        self.mix(u64::from(crc32fast::hash(text.as_bytes())));
    }

    fn keep(&mut self, what: What) {
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        let micros = self.micros();
        self.lines.push_back(Line { micros, what });
    }

    fn text(&self, line: &Line) -> String {
        let text = match &line.what {
            What::Event(text) => text.clone(),
            What::Call(call) => {
                let way = if call.begins { "asks" } else { "is told" };
                let (number, client, text) = (call.number, call.client, &call.text);
                format!("[{number}] client {client} {way}: {text}")
            }
            What::Asked(text) | What::Answered(text) => format!("    {text}"),
            What::Message(sent) => {
                let way = match sent.passage {
                    Passage::Sent => "->",
                    Passage::Lost => "-x",
                    Passage::Delivered => "=>",
                    Passage::Again => "+>",
                };
                let body = sent.envelope.body.as_ref();
                let text = body.map_or_else(
                    || "an answer without a body".to_owned(),
                    |body| self.names.body(body).text,
                );
                let (from, to, range) = (sent.from, sent.to, sent.envelope.group);
                format!("n{from} {way} n{to}, range {range}: {text}")
            }
        };
        moment(line.micros) + &text
    }
}

/// What nodes say to each other about themselves.
fn says_nothing(envelope: &Envelope) -> bool {
    matches!(
        &envelope.body,
        Some(Body::Beat(_) | Body::CatalogRequest(_) | Body::Catalog(_) | Body::CloseAt(_))
    )
}

/// What is said all the time besides, and says little to a reader.
fn is_beat(envelope: &Envelope) -> bool {
    match &envelope.body {
        Some(Body::Append(append)) => append.entries.is_empty(),
        Some(Body::AppendResponse(_)) => true,
        _ => false,
    }
}
