//! Rows of several buckets in the order of their keys: a merge over pages that are fetched as they
//! are needed. Plain code over values; fetching is the caller's.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quorate_proto::v1;

/// The next thing to do.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The next row in order.
    Row(v1::KeyValue),
    /// Nothing can be said before this source's next page is there.
    Fetch(usize),
    /// There are no more rows.
    End,
}

/// Rows of one source that are here, and whether it has more.
#[derive(Debug)]
struct Source {
    rows: VecDeque<v1::KeyValue>,
    more: bool,
}

/// The merge of several sorted sources without keys in common.
#[derive(Debug)]
pub struct Merge {
    reverse: bool,
    sources: Vec<Source>,
    /// The first row of each source that has one here.
    heads: BTreeMap<Bytes, usize>,
    /// Sources that have more, and nothing here.
    empty: Vec<usize>,
}

impl Merge {
    /// A merge of sources of which nothing is here yet.
    pub fn new(sources: usize, reverse: bool) -> Merge {
        Merge {
            reverse,
            sources: (0..sources)
                .map(|_| Source {
                    rows: VecDeque::new(),
                    more: true,
                })
                .collect(),
            heads: BTreeMap::new(),
            empty: (0..sources).collect(),
        }
    }

    /// Adds a source's next page; `more`: it is not the last one.
    pub fn fill(&mut self, source: usize, rows: Vec<v1::KeyValue>, more: bool) {
        self.empty.retain(|empty| *empty != source);
        self.sources[source].more = more;
        self.sources[source].rows.extend(rows);
        self.show_head(source);
    }

    /// The next row, or what is missing to tell.
    pub fn next(&mut self) -> Next {
        if let Some(source) = self.empty.first() {
            return Next::Fetch(*source);
        }
        let head = if self.reverse {
            self.heads.pop_last()
        } else {
            self.heads.pop_first()
        };
        let Some((_, source)) = head else {
            return Next::End;
        };
        let row = self.sources[source]
            .rows
            .pop_front()
            .expect("a head is its source's first row");
        self.show_head(source);
        Next::Row(row)
    }

    /// Whether there are rows that were not taken.
    pub fn has_more(&self) -> bool {
        !self.heads.is_empty() || !self.empty.is_empty()
    }

    fn show_head(&mut self, source: usize) {
        match self.sources[source].rows.front() {
            Some(row) => {
                self.heads.insert(row.key.clone(), source);
            }
            None if self.sources[source].more => self.empty.push(source),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges sources, in pages of two rows, and returns the keys.
    fn merged(sources: &[&[&'static str]], reverse: bool) -> String {
        let mut pages: Vec<VecDeque<Vec<v1::KeyValue>>> = sources
            .iter()
            .map(|keys| {
                keys.chunks(2)
                    .map(|page| {
                        let row = |key: &&'static str| v1::KeyValue {
                            key: Bytes::from_static(key.as_bytes()),
                            ..v1::KeyValue::default()
                        };
                        page.iter().map(row).collect()
                    })
                    .collect()
            })
            .collect();
        let mut merge = Merge::new(sources.len(), reverse);
        let mut keys = Vec::new();
        loop {
            match merge.next() {
                Next::Row(row) => keys.push(String::from_utf8_lossy(&row.key).into_owned()),
                Next::Fetch(source) => {
                    let page = pages[source].pop_front().unwrap_or_default();
                    merge.fill(source, page, !pages[source].is_empty());
                }
                Next::End => return keys.join(" "),
            }
        }
    }

    #[test]
    fn rows_come_in_order_whatever_the_pages() {
        assert_eq!(
            merged(&[&["a", "d", "e", "f"], &[], &["b", "c", "g"]], false),
            "a b c d e f g"
        );
        assert_eq!(
            merged(&[&["f", "e", "d", "a"], &["g", "c", "b"]], true),
            "g f e d c b a"
        );
        assert_eq!(merged(&[], false), "");
    }

    #[test]
    fn what_is_left_is_known() {
        let mut merge = Merge::new(1, false);
        assert!(merge.has_more());
        merge.fill(0, Vec::new(), false);
        assert!(!merge.has_more());
        assert_eq!(merge.next(), Next::End);
    }
}
