//! Long forks: two reads of one group of keys that saw two writes in opposite orders.
//!
//! Each key is written once, so of two reads one must have seen all that the other saw. Reads
//! take whole groups. (Parallel snapshot isolation allows long forks, snapshot isolation does
//! not: Sovran et al., "Transactional storage for geo-replicated systems", 2011.)

use std::collections::BTreeMap;

use crate::budget::Budget;
use crate::checker::{Checker, Misfit};
use crate::history::{Operation, Outcome};
use crate::report::{Finding, Place, Report};
use crate::value::Value;

/// Keys of a group, where nothing else is said.
pub const GROUP_SIZE_DEFAULT_KEYS: usize = 2;

/// The checker of long forks.
pub struct LongFork {
    group_size: usize,
    /// Per group of keys: what reads saw, and one place of each.
    groups: BTreeMap<Vec<String>, Vec<(Seen, Place)>>,
    /// What each key was seen with: one value, ever.
    values: BTreeMap<String, Value>,
    operations: u64,
}

/// Which keys of a group were written, in the order of the group.
type Seen = Vec<bool>;

impl LongFork {
    /// Reads take groups of so many keys.
    pub fn new(group_size: usize) -> Self {
        Self {
            group_size,
            groups: BTreeMap::new(),
            values: BTreeMap::new(),
            operations: 0,
        }
    }

    fn read(&mut self, operation: &Operation, parts: &[Value]) -> Result<(), Misfit> {
        if parts.len() != self.group_size {
            let (wanted, found) = (self.group_size, parts.len());
            let what = format!("a read takes a group of {wanted} keys, this one {found}");
            return Err(Misfit::new(operation, what));
        }
        let mut seen: BTreeMap<String, bool> = BTreeMap::new();
        for part in parts {
            let Some([_, key, value]) = part.as_list() else {
                return Err(Misfit::new(
                    operation,
                    format!("`{part}` is not [r KEY VALUE]"),
                ));
            };
            let key = key.to_string();
            if !value.is_nil() {
                let known = self
                    .values
                    .entry(key.clone())
                    .or_insert_with(|| value.clone());
                if known != value {
                    let what = format!("key {key} has two values, {known} and {value}");
                    return Err(Misfit::new(operation, what));
                }
            }
            seen.insert(key, !value.is_nil());
        }
        let (keys, seen): (Vec<String>, Seen) = seen.into_iter().unzip();
        let reads = self.groups.entry(keys).or_default();
        if reads.iter().all(|(known, _)| *known != seen) {
            reads.push((seen, Place::of(operation)));
        }
        Ok(())
    }
}

impl Checker for LongFork {
    fn operation(&mut self, operation: &Operation) -> Result<(), Misfit> {
        self.operations += 1;
        let Some(parts) = operation.known().as_list() else {
            let what = format!(
                "wanted a list of reads or writes, found `{}`",
                operation.known()
            );
            return Err(Misfit::new(operation, what));
        };
        let does = |name: &str| {
            let mut names = parts.iter().map(|part| part.as_list()?.first()?.as_text());
            names.all(|found| found == Some(name))
        };
        if does("w") || does("write") {
            return Ok(());
        }
        if !does("r") && !does("read") {
            let what = "wanted reads alone or writes alone: [r KEY VALUE], [w KEY VALUE]";
            return Err(Misfit::new(operation, what));
        }
        if operation.outcome != Outcome::Ok {
            return Ok(());
        }
        self.read(operation, parts)
    }

    fn check(self: Box<Self>, _budget: &mut Budget<'_>) -> Report {
        let mut report = Report::valid(self.operations);
        for (keys, reads) in &self.groups {
            for (number, (one, one_place)) in reads.iter().enumerate() {
                for (other, other_place) in &reads[..number] {
                    let first = (0..keys.len()).find(|at| one[*at] && !other[*at]);
                    let second = (0..keys.len()).find(|at| other[*at] && !one[*at]);
                    let Some((first, second)) = first.zip(second) else {
                        continue;
                    };
                    let (first, second) = (&keys[first], &keys[second]);
                    let summary = format!(
                        "one read ({one_place}) saw the write of key {first} and not that of \
                         {second}; another ({other_place}) the other way round"
                    );
                    report.invalid(Finding::new("long-fork", summary));
                }
            }
        }
        report
    }
}
