//! Ranges of keys as etcd's clients ask for them: which keys, and which of them are answered, in
//! which order.

use std::cmp::Ordering;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcd::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use quorate_proto::etcd::mvccpb::KeyValue;
use quorate_types::prefix_end;

/// Keys from `start` up to but without `end`; none: up to the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first key.
    pub start: Bytes,
    /// Behind the last.
    pub end: Option<Bytes>,
}

impl Span {
    /// The keys that a key and an end of range mean together.
    pub fn of(key: &Bytes, range_end: &Bytes) -> Span {
        let end = match &range_end[..] {
            [] => Some([&key[..], &[0]].concat().into()),
            [0] => None,
            end => Some(Bytes::copy_from_slice(end)),
        };
        Span {
            start: key.clone(),
            end,
        }
    }

    /// Whether no key is in it.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether it holds a key.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }

    /// As keys are stored, behind their keyspace's prefix.
    pub fn stored(&self, prefix: &[u8]) -> (Bytes, Bytes) {
        let start = [prefix, &self.start[..]].concat().into();
        let end = match &self.end {
            Some(end) => [prefix, &end[..]].concat().into(),
            None => prefix_end(prefix),
        };
        (start, end)
    }
}

/// Takes rows in the order of their keys, and makes the answer of them. Holds what it must.
#[derive(Clone, Debug)]
pub struct RangeAnswer<'a> {
    request: &'a RangeRequest,
    order: SortOrder,
    target: SortTarget,
    held: Vec<KeyValue>,
    count: i64,
    more: bool,
    /// Nothing behind the limit is of interest.
    is_page: bool,
}

impl<'a> RangeAnswer<'a> {
    /// The answer to a request, of which no row is known yet.
    pub fn new(request: &'a RangeRequest) -> RangeAnswer<'a> {
        let target = SortTarget::try_from(request.sort_target).unwrap_or_default();
        let order = match SortOrder::try_from(request.sort_order).unwrap_or_default() {
            // Rows come in the order of their keys; any other target asks for some order.
            SortOrder::None if target != SortTarget::Key => SortOrder::Ascend,
            order => order,
        };
        RangeAnswer {
            request,
            order,
            target,
            held: Vec::new(),
            count: 0,
            more: false,
            is_page: false,
        }
    }

    /// The same of a request for a page: it is done with the first row behind its limit, and counts
    /// no more. Without a limit, or in another order than the keys', it is like any other.
    pub fn page(request: &'a RangeRequest) -> RangeAnswer<'a> {
        RangeAnswer {
            is_page: true,
            ..RangeAnswer::new(request)
        }
    }

    /// Most rows that are still of interest. None: nothing more is.
    pub fn wants(&self) -> usize {
        let limit = usize::try_from(self.request.limit).unwrap_or(0);
        match self.is_page && limit > 0 && self.comes_sorted() {
            true if self.more => 0,
            // One more tells that there are more.
            true => limit.saturating_add(1).saturating_sub(self.held.len()),
            false => usize::MAX,
        }
    }

    fn comes_sorted(&self) -> bool {
        self.target == SortTarget::Key && self.order != SortOrder::Descend
    }

    fn is_full(&self) -> bool {
        let limit = usize::try_from(self.request.limit).unwrap_or(0);
        limit > 0 && self.comes_sorted() && self.held.len() >= limit
    }

    /// Whether rows that follow are counted only: their versions are of no interest.
    pub fn only_counts(&self) -> bool {
        self.request.count_only || (self.is_full() && self.more)
    }

    /// Counts a row whose version is of no interest.
    pub fn count(&mut self) {
        self.count += 1;
    }

    /// Takes a row.
    pub fn take(&mut self, row: KeyValue) {
        self.count += 1;
        if self.request.count_only || !self.passes(&row) {
            return;
        }
        if self.is_full() {
            self.more = true;
        } else {
            let drops_value = self.request.keys_only && self.target != SortTarget::Value;
            let value = match drops_value {
                true => Bytes::new(),
                false => row.value,
            };
            self.held.push(KeyValue { value, ..row });
        }
    }

    fn passes(&self, row: &KeyValue) -> bool {
        let within = |value: i64, min: i64, max: i64| {
            (min == 0 || value >= min) && (max == 0 || value <= max)
        };
        let asked = self.request;
        within(
            row.mod_revision,
            asked.min_mod_revision,
            asked.max_mod_revision,
        ) && within(
            row.create_revision,
            asked.min_create_revision,
            asked.max_create_revision,
        )
    }

    /// The answer, at a revision of the store.
    pub fn finish(mut self, revision: i64) -> RangeResponse {
        let (order, target) = (self.order, self.target);
        if !self.comes_sorted() {
            // Equal ones stay in the order of their keys.
            self.held.sort_by(|left, right| {
                let ordering = compare(target, left, right);
                match order {
                    SortOrder::Descend => ordering.reverse(),
                    SortOrder::Ascend | SortOrder::None => ordering,
                }
            });
        }
        let limit = usize::try_from(self.request.limit).unwrap_or(0);
        if limit > 0 && self.held.len() > limit {
            self.held.truncate(limit);
            self.more = true;
        }
        if self.request.keys_only {
            for row in &mut self.held {
                row.value = Bytes::new();
                // etcd answers from its index, which knows no leases, where it needs no values.
                if target != SortTarget::Value {
                    row.lease = 0;
                }
            }
        }
        RangeResponse {
            header: Some(ResponseHeader {
                revision,
                ..ResponseHeader::default()
            }),
            kvs: self.held,
            more: self.more,
            count: self.count,
        }
    }
}

fn compare(target: SortTarget, left: &KeyValue, right: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => left.key.cmp(&right.key),
        SortTarget::Version => left.version.cmp(&right.version),
        SortTarget::Create => left.create_revision.cmp(&right.create_revision),
        SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
        SortTarget::Value => left.value.cmp(&right.value),
    }
}
