//! A run as a reader can follow it: what concerns the key that a problem names, and no more. Calls
//! on it with their answers, messages that carry it with what came of them, who leads, faults, starts
//! and ends; then what is wrong.
//!
//! Not here: the whole trace (`trace`), and what one message says (`message`).

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::internal as wire;
use quorate_proto::internal::envelope::Body;
use quorate_raft::peer::Passage;

use crate::history::Found;
use crate::message::Names;
use crate::run::FINAL_CLIENTS;
use crate::trace::{CallLine, Line, Sent, What, moment};

/// Lines that a reader follows.
const LINES_MAX: usize = 60;
/// Steps of a problem, and problems, that are told.
const STEPS_MAX: usize = 8;
const PROBLEMS_MAX: usize = 3;
/// Copies of one message, and their answers, are told as one within this, microseconds.
const TOGETHER_MICROS: u64 = 20_000;
/// A message that comes later than this after it was sent is told when it comes.
const LATE_MICROS: u64 = 30_000;

/// How much a line matters; the least goes first where there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Aside,
    Usual,
    Needed,
}

/// One line to be.
#[derive(Clone, Debug)]
struct Told {
    micros: u64,
    weight: Weight,
    /// A call, a fault, a start, an end.
    is_event: bool,
    /// Of a call: its lines of the recording.
    calls: Vec<u64>,
    /// Who says it to whom, if it is a message.
    from: Option<u64>,
    to: Vec<(u64, Passage)>,
    text: String,
    /// What was answered, by whom.
    answers: Vec<(u64, String)>,
    /// The same was said again so many times.
    again: usize,
}

/// Chooses from the lines of a run what concerns the first of these problems.
pub(crate) fn telling(lines: &[Line], names: &Names, found: &[Found]) -> Vec<String> {
    let key = found.iter().find_map(|found| found.key.clone());
    let range = match &key {
        Some(key) => range_of(lines, names, key),
        None => found.iter().find_map(|found| range_in(&found.text)),
    };
    let mut teller = Teller::new(names, key, range);
    teller.all(lines);
    let wrong = wrong(found);
    teller.forget_the_end();
    let mut text = teller.rendered(LINES_MAX - wrong.len(), &cited(found));
    text.extend(wrong);
    text
}

/// The lines of the recording that the first problem names.
fn cited(found: &[Found]) -> BTreeSet<u64> {
    let Some(first) = found.first() else {
        return BTreeSet::new();
    };
    let texts = first.steps.iter().chain([&first.text]);
    let after_line = texts.flat_map(|text| text.split("line").skip(1));
    let numbers = after_line.flat_map(|text| {
        let text = text.trim_start_matches('s').trim_start();
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '–');
        let numbers = text[..end.unwrap_or(text.len())].split('–');
        numbers
            .filter_map(|number| number.parse().ok())
            .collect::<Vec<u64>>()
    });
    numbers.collect()
}

/// What concerns a key (none: all) of a range since so many lines, without calls and times.
pub(crate) fn told_since(
    lines: &[Line],
    since: usize,
    names: &Names,
    range: u64,
    key: Option<String>,
) -> Vec<String> {
    let mut teller = Teller::new(names, key, Some(range));
    teller.all(&lines[..since]);
    let known = teller.told.len();
    teller.all(&lines[since..]);
    let told = teller.told[known..].iter();
    let messages = told.filter(|told| !told.is_event);
    messages.map(Told::rendered).collect()
}

/// The range in which a key is.
fn range_of(lines: &[Line], names: &Names, key: &str) -> Option<u64> {
    lines.iter().find_map(|line| match &line.what {
        What::Message(sent) => match &sent.envelope.body {
            Some(body @ (Body::Append(_) | Body::Eventual(_))) => {
                let keys = names.body(body).keys;
                keys.iter()
                    .any(|one| one == key)
                    .then_some(sent.envelope.group)
            }
            Some(_) | None => None,
        },
        What::Event(_) | What::Call(_) | What::Asked(_) | What::Answered(_) => None,
    })
}

/// The range that a problem names.
fn range_in(problem: &str) -> Option<u64> {
    let rest = problem.split_once("range ")?.1;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit());
    rest[..digits.unwrap_or(rest.len())].parse().ok()
}

fn wrong(found: &[Found]) -> Vec<String> {
    let mut lines = Vec::new();
    for (at, found) in found.iter().take(PROBLEMS_MAX).enumerate() {
        lines.push(format!("WRONG: {}", found.text));
        if at == 0 {
            let steps = found.steps.iter().take(STEPS_MAX);
            lines.extend(steps.map(|step| format!("       {step}")));
        }
    }
    if found.len() > PROBLEMS_MAX {
        let more = found.len() - PROBLEMS_MAX;
        lines.push(format!("and {more} more like it"));
    }
    lines
}

/// When messages were sent, and the line that tells of each.
type UnderWay = Vec<(u64, Option<usize>)>;

struct Teller<'a> {
    names: &'a Names,
    /// None: all keys of the range.
    key: Option<String>,
    /// None: all of them.
    range: Option<u64>,
    told: Vec<Told>,
    /// Of requests that were told (who asks, who is asked, range, number): which line, and how many
    /// answers, at the most, that is.
    asked: BTreeMap<(u64, u64, u64, u64), (usize, String)>,
    /// When messages were sent that have not come: by who sends, to whom, and what.
    under_way: BTreeMap<(u64, u64, u32), UnderWay>,
    /// The newest leader, by its term.
    leader: (u64, u64),
    /// Places of the log that hold a write of the key, with their terms.
    watched: BTreeMap<u64, u64>,
    /// Those that are known to be decided.
    decided: BTreeSet<u64>,
}

impl<'a> Teller<'a> {
    fn new(names: &'a Names, key: Option<String>, range: Option<u64>) -> Teller<'a> {
        Teller {
            names,
            key,
            range,
            told: Vec::new(),
            asked: BTreeMap::new(),
            under_way: BTreeMap::new(),
            leader: (0, 0),
            watched: BTreeMap::new(),
            decided: BTreeSet::new(),
        }
    }

    fn all(&mut self, lines: &[Line]) {
        let mut answered: Option<&str> = None;
        for (at, line) in lines.iter().enumerate() {
            match &line.what {
                What::Event(text) => self.event(line.micros, text.clone()),
                What::Call(call) => {
                    let asked = match lines.get(at + 1).map(|next| &next.what) {
                        Some(What::Asked(text)) if call.begins => Some(text.as_str()),
                        _ => None,
                    };
                    let answer = answered.take().filter(|_| !call.begins);
                    self.call(line.micros, call, asked.or(answer));
                }
                What::Asked(_) => {}
                What::Answered(text) => answered = Some(text),
                What::Message(sent) => self.message(line.micros, sent),
            }
        }
    }

    fn event(&mut self, micros: u64, text: String) {
        self.tell(micros, Weight::Needed, text);
        if let Some(told) = self.told.last_mut() {
            told.is_event = true;
        }
    }

    fn tell(&mut self, micros: u64, weight: Weight, text: String) {
        self.told.push(Told {
            micros,
            weight,
            is_event: false,
            calls: Vec::new(),
            from: None,
            to: Vec::new(),
            text,
            answers: Vec::new(),
            again: 0,
        });
    }

    fn concerns(&self, keys: &[String]) -> bool {
        match &self.key {
            Some(key) => keys.contains(key),
            None => !keys.is_empty(),
        }
    }

    fn in_range(&self, group: u64) -> bool {
        self.range.is_none_or(|range| range == group)
    }

    fn call(&mut self, micros: u64, call: &CallLine, beside: Option<&str>) {
        if !self.concerns(std::slice::from_ref(&call.key)) {
            return;
        }
        let beside = beside.filter(|text| !text.is_empty());
        let beside = beside.map_or(String::new(), |text| format!(" {text}"));
        let (number, text) = (call.number, &call.text);
        let client = match call.client.checked_sub(FINAL_CLIENTS) {
            Some(last) => format!("reader {}", last + 1),
            None => format!("client {}", call.client),
        };
        let text = format!("{text}{beside}");
        if call.begins {
            self.event(micros, format!("[{number}] {client}: {text}"));
            if let Some(told) = self.told.last_mut() {
                told.calls = vec![number];
            }
            return;
        }
        // A call during which nothing is told is told in one line.
        let begin = format!("[{}] {client}: ", number - 1);
        match self.told.last_mut() {
            Some(told) if told.text.starts_with(&begin) => {
                let asked = told.text.split_off(begin.len());
                told.text = format!("[{}–{number}] {client}: {asked}; told: {text}", number - 1);
                told.calls.push(number);
            }
            _ => {
                self.event(micros, format!("[{number}] {client} is told: {text}"));
                if let Some(told) = self.told.last_mut() {
                    told.calls = vec![number];
                }
            }
        }
    }

    fn message(&mut self, micros: u64, sent: &Sent) {
        let passing = (sent.from, sent.to, sent.digest);
        match sent.passage {
            Passage::Delivered => return self.comes(micros, passing, sent.from, sent.to),
            Passage::Again => return self.comes_again(micros, sent),
            Passage::Sent | Passage::Lost => {}
        }
        self.leads(micros, sent);
        let line = match &sent.envelope.body {
            Some(_) if sent.envelope.response => {
                self.answer(micros, sent);
                None
            }
            Some(body) => self.request(micros, sent, body),
            None => None,
        };
        if sent.passage == Passage::Sent {
            let waiting = self.under_way.entry(passing).or_default();
            waiting.push((micros, line));
        }
    }

    /// A message has come: worth a line if it was told, and took long.
    fn comes(&mut self, micros: u64, passing: (u64, u64, u32), from: u64, to: u64) {
        let Some(waiting) = self.under_way.get_mut(&passing) else {
            return;
        };
        if waiting.is_empty() {
            return;
        }
        let (sent, line) = waiting.remove(0);
        let Some(line) = line.filter(|_| micros - sent > LATE_MICROS) else {
            return;
        };
        let text = self.told[line].text.clone();
        let text = format!("n{to} hears only now from n{from}: {text}");
        self.tell(micros, Weight::Usual, text);
    }

    /// A message comes once more, much later.
    fn comes_again(&mut self, micros: u64, sent: &Sent) {
        let said = sent
            .envelope
            .body
            .as_ref()
            .map(|body| self.names.body(body));
        if let Some(said) = said.filter(|said| self.concerns(&said.keys)) {
            let (from, to) = (sent.from, sent.to);
            let text = format!("n{to} hears once more from n{from}: {}", said.text);
            self.tell(micros, Weight::Usual, text);
        }
    }

    /// Tells who leads, from what leaders say.
    fn leads(&mut self, micros: u64, sent: &Sent) {
        let Some(Body::Append(append)) = &sent.envelope.body else {
            return;
        };
        if !self.in_range(sent.envelope.group) {
            return;
        }
        let vote = append.vote.unwrap_or_default();
        if self.range.is_some() && (vote.term, vote.node) > self.leader {
            self.leader = (vote.term, vote.node);
            let text = format!("n{} leads in term {}", vote.node, vote.term);
            self.tell(micros, Weight::Needed, text);
        }
        let committed = append.committed.map_or(0, |committed| committed.index);
        let news = self.watched.range(..=committed).map(|(index, _)| *index);
        let news: Vec<u64> = news.filter(|index| self.decided.insert(*index)).collect();
        for index in news {
            let text = format!("n{} says that {index} is decided", sent.from);
            self.tell(micros, Weight::Usual, text);
        }
    }

    fn request(&mut self, micros: u64, sent: &Sent, body: &Body) -> Option<usize> {
        let (weight, text, answer) = match body {
            Body::Append(append) if self.in_range(sent.envelope.group) => {
                let (text, answer) = self.append(append)?;
                (Weight::Usual, text, answer)
            }
            Body::Vote(vote) if self.in_range(sent.envelope.group) && !vote.pre_vote => {
                (Weight::Usual, self.names.body(body).text, String::new())
            }
            Body::Snapshot(_) | Body::TransferLeader(_)
                if self.in_range(sent.envelope.group) && self.range.is_some() =>
            {
                (Weight::Usual, self.names.body(body).text, String::new())
            }
            Body::Append(_) | Body::Vote(_) => return None,
            body => {
                let said = self.names.body(body);
                if !self.concerns(&said.keys) {
                    return None;
                }
                (Weight::Usual, said.text, String::new())
            }
        };
        let line = self.say(micros, sent, weight, text);
        let envelope = &sent.envelope;
        let request = (sent.from, sent.to, envelope.group, envelope.id);
        self.asked.insert(request, (line, answer));
        Some(line)
    }

    /// The entries of an append that hold writes of the key, or take the place of one; and what
    /// having them is called.
    fn append(&mut self, append: &wire::AppendRequest) -> Option<(String, String)> {
        let mut texts = Vec::new();
        let mut indices = Vec::new();
        for entry in &append.entries {
            let entry = self.names.entry(entry);
            let known = self.watched.get(&entry.index).copied();
            let (index, term) = (entry.index, entry.term);
            let concerned = self.concerns(&entry.said.keys);
            let replaces = known.is_some_and(|known| known != term);
            if concerned || replaces {
                texts.push(format!("{index} of term {term}: {}", entry.said.text));
                indices.push(index.to_string());
            }
            if concerned {
                self.watched.insert(index, term);
            }
        }
        let text = format!("append {}", texts.join("; "));
        let answer = format!("has {}", indices.join(", "));
        (!texts.is_empty()).then_some((text, answer))
    }

    /// Adds a message to what is told, to a line that says the same if there is one.
    fn say(&mut self, micros: u64, sent: &Sent, weight: Weight, text: String) -> usize {
        let (from, to) = (sent.from, (sent.to, sent.passage));
        let mut copies = self.told.iter().enumerate().rev();
        let same = copies.find(|(_, told)| told.from == Some(from) && told.text == text);
        let same = same.map(|(line, told)| {
            let is_new = told.to.iter().all(|(node, _)| *node != to.0);
            (
                line,
                is_new && micros - told.micros <= TOGETHER_MICROS,
                is_new,
            )
        });
        match same {
            Some((line, true, _)) => {
                self.told[line].to.push(to);
                return line;
            }
            // What was answered is asked anew, not again.
            Some((line, false, false)) if self.told[line].answers.is_empty() => {
                self.told[line].again += 1;
                return line;
            }
            Some((_, false, _)) | None => {}
        }
        self.told.push(Told {
            micros,
            weight,
            is_event: false,
            calls: Vec::new(),
            from: Some(from),
            to: vec![to],
            text,
            answers: Vec::new(),
            again: 0,
        });
        self.told.len() - 1
    }

    fn answer(&mut self, micros: u64, sent: &Sent) {
        let envelope = &sent.envelope;
        let request = (sent.to, sent.from, envelope.group, envelope.id);
        let (Some((line, has)), Some(body)) = (self.asked.remove(&request), &envelope.body) else {
            return;
        };
        let text = match body {
            Body::AppendResponse(response) => {
                use wire::append_response::Kind;
                match response.kind() {
                    Kind::Success | Kind::Partial => has,
                    Kind::Conflict | Kind::HigherVote => self.names.body(body).text,
                }
            }
            Body::VoteResponse(response) if !response.granted => "no".to_owned(),
            Body::VoteResponse(_) => "yes".to_owned(),
            body => self.names.body(body).text,
        };
        let lost = if sent.passage == Passage::Lost {
            " (lost)"
        } else {
            ""
        };
        let text = format!("{text}{lost}");
        let told = &self.told[line];
        let mut between = self.told[line..].iter();
        let together = micros - told.micros <= TOGETHER_MICROS && !between.any(|one| one.is_event);
        let answered = told.answers.contains(&(sent.from, text.clone()));
        match (together, answered) {
            (true, false) => self.told[line].answers.push((sent.from, text)),
            (_, true) => {}
            (false, false) => {
                let (from, to) = (sent.from, sent.to);
                self.told[line].answers.push((from, String::new()));
                let text = format!("n{from} -> n{to}: {text}");
                self.tell(micros, Weight::Aside, text);
            }
        }
    }

    /// Leaves out that all processes end at the end.
    fn forget_the_end(&mut self) {
        let ends = |told: &Told| {
            let words: Vec<&str> = told.text.split(' ').collect();
            matches!(words[..], ["node", _, "ends"])
        };
        while self.told.last().is_some_and(ends) {
            self.told.pop();
        }
    }

    /// The lines, no more than so many. Where there are more, what matters least is left out, then
    /// what is far from the calls that are cited.
    fn rendered(&self, lines_max: usize, cited: &BTreeSet<u64>) -> Vec<String> {
        let of = |least: Weight| self.told.iter().filter(move |told| told.weight >= least);
        let least = match of(Weight::Aside).count() > lines_max {
            true => Weight::Usual,
            false => Weight::Aside,
        };
        let told: Vec<&Told> = of(least).collect();
        let kept = nearest(&told, lines_max, cited);
        let mut lines = Vec::new();
        let mut left_out = 0;
        for (at, told) in told.iter().enumerate() {
            if !kept.contains(&at) {
                left_out += 1;
                continue;
            }
            if left_out > 0 {
                lines.push(format!("             … {left_out} lines are left out"));
                left_out = 0;
            }
            lines.push(moment(told.micros) + &told.rendered());
        }
        if left_out > 0 {
            lines.push(format!("             … {left_out} lines are left out"));
        }
        lines
    }
}

/// Which lines are kept: all, or those near cited calls, faults, and the end, so that with what is
/// said of gaps there are no more than so many.
fn nearest(told: &[&Told], lines_max: usize, cited: &BTreeSet<u64>) -> BTreeSet<usize> {
    if told.len() <= lines_max {
        return (0..told.len()).collect();
    }
    let is_cited = |told: &&Told| told.calls.iter().any(|call| cited.contains(call));
    let is_fault = |told: &&Told| told.text.starts_with("fault ");
    let places = told.iter().enumerate();
    let mut anchors: Vec<usize> = places
        .clone()
        .filter(|(_, one)| is_cited(one))
        .map(|at| at.0)
        .collect();
    anchors.extend(places.filter(|(_, one)| is_fault(one)).map(|at| at.0));
    anchors.truncate(lines_max / 4);
    anchors.push(told.len() - 1);
    let mut kept = BTreeSet::new();
    for distance in 0..told.len() {
        for anchor in &anchors {
            for at in [anchor.checked_sub(distance), anchor.checked_add(distance)] {
                let Some(at) = at.filter(|at| *at < told.len()) else {
                    continue;
                };
                kept.insert(at);
                if kept.len() + gaps(&kept, told.len()) > lines_max {
                    kept.remove(&at);
                    return kept;
                }
            }
        }
    }
    kept
}

/// How many pieces are left out.
fn gaps(kept: &BTreeSet<usize>, len: usize) -> usize {
    let ends = kept
        .iter()
        .filter(|at| **at + 1 < len && !kept.contains(&(**at + 1)));
    ends.count() + usize::from(!kept.contains(&0))
}

impl Told {
    fn rendered(&self) -> String {
        let mut text = String::new();
        if let Some(from) = self.from {
            let to = self.to.iter().map(|(node, passage)| match passage {
                Passage::Lost => format!("n{node} (lost)"),
                Passage::Sent | Passage::Delivered | Passage::Again => format!("n{node}"),
            });
            text += &format!("n{from} -> {}: ", to.collect::<Vec<_>>().join(", "));
        }
        text += &self.text;
        let mut answers: Vec<(&str, Vec<String>)> = Vec::new();
        for (node, answer) in self.answers.iter().filter(|(_, text)| !text.is_empty()) {
            let node = format!("n{node}");
            match answers.iter_mut().find(|(text, _)| text == answer) {
                Some((_, nodes)) => nodes.push(node),
                None => answers.push((answer, vec![node])),
            }
        }
        for (answer, nodes) in answers {
            text += &format!("; {}: {answer}", nodes.join(", "));
        }
        match self.again {
            0 => {}
            1 => text += " (and once more)",
            times => text += &format!(" (and {times} times more)"),
        }
        text
    }
}
