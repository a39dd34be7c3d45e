//! Three-way merge of structured values: two changes of one base, joined where they do not touch
//! each other, and a list of what truly conflicts. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// One place that both sides changed, and not alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    /// As a JSON Pointer (RFC 6901); empty: the whole value.
    pub path: String,
    /// What was there; none: nothing.
    pub base: Option<Value>,
    /// What one side made of it; none: it was removed.
    pub ours: Option<Value>,
    /// What the other made of it.
    pub theirs: Option<Value>,
}

/// What became of a merge.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Both changes, where they go together; `ours` where they do not. None: removed.
    pub value: Option<Value>,
    /// Places where they do not.
    pub conflicts: Vec<Conflict>,
}

/// Merges two changes of a base. Maps are merged name by name; all else is one value, lists too: no
/// rule says which elements of two lists are the same. Where there is no base, names that only one
/// side has are its additions.
pub fn merge_values(base: Option<&Value>, ours: Option<&Value>, theirs: Option<&Value>) -> Merged {
    let mut conflicts = Vec::new();
    let value = merge(base, ours, theirs, "", &mut conflicts);
    Merged { value, conflicts }
}

fn merge(
    base: Option<&Value>,
    ours: Option<&Value>,
    theirs: Option<&Value>,
    path: &str,
    conflicts: &mut Vec<Conflict>,
) -> Option<Value> {
    if ours == theirs || theirs == base {
        return ours.cloned();
    }
    if ours == base {
        return theirs.cloned();
    }
    let nothing = Map::new();
    if let (Some(Value::Object(ours)), Some(Value::Object(theirs))) = (ours, theirs) {
        let base = base.and_then(Value::as_object).unwrap_or(&nothing);
        let names: BTreeSet<&String> = base
            .keys()
            .chain(ours.keys())
            .chain(theirs.keys())
            .collect();
        let entries = names.into_iter().filter_map(|name| {
            let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
            let (base, ours, theirs) = (base.get(name), ours.get(name), theirs.get(name));
            let merged = merge(base, ours, theirs, &path, conflicts)?;
            Some((name.clone(), merged))
        });
        return Some(Value::Object(entries.collect()));
    }
    conflicts.push(Conflict {
        path: path.to_owned(),
        base: base.cloned(),
        ours: ours.cloned(),
        theirs: theirs.cloned(),
    });
    ours.cloned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(base: &str, ours: &str, theirs: &str, merged: &str, conflicts: &[&str]) {
        let value = |text: &str| -> Option<Value> {
            (!text.is_empty()).then(|| serde_json::from_str(text).unwrap())
        };
        let (base, one, two) = (value(base), value(ours), value(theirs));
        let found = merge_values(base.as_ref(), one.as_ref(), two.as_ref());
        assert_eq!(found.value, value(merged), "{ours} and {theirs}");
        let paths: Vec<_> = found.conflicts.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(paths, conflicts, "{ours} and {theirs}");
        // Who is called "ours" decides only what stands where they conflict.
        let other = merge_values(base.as_ref(), two.as_ref(), one.as_ref());
        assert_eq!(other.conflicts.len(), conflicts.len());
        if conflicts.is_empty() {
            assert_eq!(other.value, found.value);
        }
    }

    #[test]
    fn changes_of_different_places_go_together() {
        let base = r#"{"a":1,"b":{"c":2,"d":3}}"#;
        check(
            base,
            r#"{"a":9,"b":{"c":2,"d":3}}"#,
            r#"{"a":1,"b":{"c":2,"d":8},"e":5}"#,
            r#"{"a":9,"b":{"c":2,"d":8},"e":5}"#,
            &[],
        );
        // A removal is a change.
        check(
            base,
            r#"{"b":{"c":2,"d":3}}"#,
            r#"{"a":1,"b":{"d":3}}"#,
            r#"{"b":{"d":3}}"#,
            &[],
        );
        // The same change on both sides is one.
        check(base, r#"{"a":7}"#, r#"{"a":7}"#, r#"{"a":7}"#, &[]);
        check("", r#"{"a":1}"#, r#"{"b":2}"#, r#"{"a":1,"b":2}"#, &[]);
    }

    #[test]
    fn what_both_changed_otherwise_conflicts_at_its_path() {
        let base = r#"{"a":1,"b":{"c/d":2},"l":[1]}"#;
        check(
            base,
            r#"{"a":2,"b":{"c/d":3},"l":[1,2]}"#,
            r#"{"a":3,"b":{"c/d":4},"l":[1,3]}"#,
            r#"{"a":2,"b":{"c/d":3},"l":[1,2]}"#,
            &["/a", "/b/c~1d", "/l"],
        );
        // Removed here, changed there.
        check(r#"{"a":1}"#, "{}", r#"{"a":2}"#, "{}", &["/a"]);
        check("1", "2", "3", "2", &[""]);
        check("1", "", "3", "", &[""]);
    }
}
