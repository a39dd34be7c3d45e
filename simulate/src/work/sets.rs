//! Elements, each a key of its own, which are added and never removed; a read is a scan by small
//! pages, and finds all that were there before it.

use std::time::Duration;

use quorate_proto::v1::{self, pipeline_request::Request, pipeline_response::Response};
use serde_json::{Value as Json, json};

use super::{Client, FINAL_WITHIN, told};
use crate::ask::{Asked, Level, Write, number};
use crate::history::{Call, End, Tape};
use crate::world::World;

/// Rows of a page: few, so that scans have many.
const PAGE_ROWS: u32 = 7;

impl Client {
    pub(super) async fn element(&mut self) {
        if self.dice.percent(15) {
            let (at, within) = (self.node(), self.within());
            let parts = (&*self.world, &self.tape);
            let ended = read_set(parts, self.number, at, within).await;
            self.renew_after(ended);
            return;
        }
        let element = self.keys.value();
        let (at, within) = (self.node(), self.within());
        let call = self.keyless_call("add", json!(element));
        let write = Write {
            keyspace: self.tape.work().keyspace(),
            key: element,
            value: Some(element),
            level: Level::Linearizable,
            context: None,
            name: Some(self.next_name(at)),
        };
        let written = self.world.write(at, write, within).await;
        let (end, value) = told(&written, |()| json!(element));
        self.end(&call, end, &value);
    }
}

/// Reads all elements at a node, and tells of it.
pub(super) async fn read_set(
    (world, tape): (&World, &Tape),
    client: u64,
    at: usize,
    within: Duration,
) -> End {
    let call = Call::keyless(client, "read", Json::Null);
    tape.begin(&call);
    let scanned = scan(world, tape, at, within).await;
    let (end, value) = told(&scanned, |elements| json!(elements));
    tape.end(&call, end, &value);
    end
}

/// The last reads, at every node.
pub(super) async fn finish(parts: (&World, &Tape), first: u64) {
    for at in parts.0.sound() {
        read_set(parts, first + at as u64, at, FINAL_WITHIN).await;
    }
}

async fn scan(world: &World, tape: &Tape, at: usize, within: Duration) -> Asked<Vec<i64>> {
    let mut elements = Vec::new();
    let mut page_token = bytes::Bytes::new();
    loop {
        let request = v1::ScanRequest {
            keyspace: tape.work().keyspace().to_owned(),
            // The key by which it is seen that nodes serve is another one.
            prefix: bytes::Bytes::from_static(b"key-"),
            limit: PAGE_ROWS,
            page_token,
            consistency: Level::Linearizable.wire(),
            ..v1::ScanRequest::default()
        };
        let page = match world.ask(at, within, Request::Scan(request)).await {
            Asked::Done(Response::Scan(page)) => page,
            Asked::Done(_) | Asked::Unknown => return Asked::Unknown,
            Asked::Refused => return Asked::Refused,
        };
        let found = page.entries.iter().map(|entry| number(&entry.value));
        // What is written to see that nodes serve is no element.
        elements.extend(found.filter(|element| *element != 0));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Asked::Done(elements);
        }
    }
}
