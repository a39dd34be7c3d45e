//! Which lines differ between two texts: the fewest that must go and come (a longest common
//! subsequence), with some lines around them. Pure.

/// Cells of the table that are filled at most; beyond it all of the middle is replaced.
const CELLS_MAX: usize = 4 << 20;
/// Unchanged lines that are shown on either side of a change.
const AROUND: usize = 2;

/// One line of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineChange<'a> {
    /// In both.
    Same(&'a str),
    /// Only in the first.
    Gone(&'a str),
    /// Only in the second.
    New(&'a str),
    /// So many lines of both are left out.
    Skipped(usize),
}

/// Compares two texts line by line, and leaves out what is far from any change.
pub fn line_changes<'a>(before: &'a str, after: &'a str) -> Vec<LineChange<'a>> {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let head = old.iter().zip(&new).take_while(same).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = tail.take_while(same).count();
    let middle = compare(
        &old_rest[..old_rest.len() - tail],
        &new_rest[..new_rest.len() - tail],
    );
    let all = old[..head].iter().map(|line| LineChange::Same(line));
    let all = all.chain(middle);
    let end = old[old.len() - tail..].iter();
    shorten(all.chain(end.map(|line| LineChange::Same(line))).collect())
}

fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<LineChange<'a>> {
    if old.len().saturating_mul(new.len()) > CELLS_MAX {
        let gone = old.iter().map(|line| LineChange::Gone(line));
        return gone
            .chain(new.iter().map(|line| LineChange::New(line)))
            .collect();
    }
    // longest[i][j]: of old[i..] and new[j..].
    let width = new.len() + 1;
    let mut longest = vec![0u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            longest[i * width + j] = if old[i] == new[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut changes = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            changes.push(LineChange::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            changes.push(LineChange::Gone(old[i]));
            i += 1;
        } else {
            changes.push(LineChange::New(new[j]));
            j += 1;
        }
    }
    changes
}

fn shorten(all: Vec<LineChange<'_>>) -> Vec<LineChange<'_>> {
    let is_same = |line: &LineChange<'_>| matches!(line, LineChange::Same(_));
    let changed: Vec<usize> = (0..all.len()).filter(|at| !is_same(&all[*at])).collect();
    let near = |at: usize| {
        let next = changed.partition_point(|place| *place < at);
        let after = changed.get(next).is_some_and(|place| place - at <= AROUND);
        let before = next
            .checked_sub(1)
            .is_some_and(|last| at - changed[last] <= AROUND);
        after || before
    };
    let mut short = Vec::new();
    for (at, line) in all.into_iter().enumerate() {
        if near(at) {
            short.push(line);
        } else if let Some(LineChange::Skipped(count)) = short.last_mut() {
            *count += 1;
        } else {
            short.push(LineChange::Skipped(1));
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str, expected: &str) {
        let changes = line_changes(before, after);
        let shown = changes.iter().map(|change| match change {
            LineChange::Same(line) => format!(" {line}"),
            LineChange::Gone(line) => format!("-{line}"),
            LineChange::New(line) => format!("+{line}"),
            LineChange::Skipped(count) => format!("…{count}"),
        });
        assert_eq!(shown.collect::<Vec<_>>().join("|"), expected);
    }

    #[test]
    fn only_what_differs_is_told() {
        check("a\nb\nc", "a\nx\nc", " a|-b|+x| c");
        check("", "a\nb", "+a|+b");
        check("a\nb", "", "-a|-b");
        check("a\nb\nc\nd", "b\nc\nd\ne", "-a| b| c| d|+e");
        check(
            "1\n2\n3\n4\n5\n6\nx",
            "1\n2\n3\n4\n5\n6\ny",
            "…4| 5| 6|-x|+y",
        );
        check(
            "x\n1\n2\n3\n4\n5\n6\nx",
            "y\n1\n2\n3\n4\n5\n6\ny",
            "-x|+y| 1| 2|…2| 5| 6|-x|+y",
        );
    }

    #[test]
    fn equal_texts_are_skipped_whole() {
        check("a\nb", "a\nb", "…2");
    }
}
