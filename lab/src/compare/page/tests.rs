//! The page, made of results that are made up; what a browser makes of it is seen in
//! `lab/tests/browser.rs`.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::super::probe::Act;
use super::super::results::{
    BehindTold, Comparison, Course, CutTold, FORMAT, LedgerTold, Part, Phase, Repair, Row, Setup,
    WrittenTold,
};
use super::html;

fn part(share_in_cut: u64) -> Part {
    let phase = |done| Phase {
        calls: 100,
        done: vec![done],
        refused: 100 - done,
        silent: 0,
        p50_ms: (done > 0).then_some(2.5),
        p99_ms: (done > 0).then_some(40.0),
    };
    Part {
        phases: [phase(100), phase(share_in_cut), phase(100)],
        first_after_cut_ms: Some(40.0),
        first_after_heal_ms: Some(90.0),
        silence_ms: 120.0,
        behind: [
            Some(BehindTold {
                reads: 50,
                stale: 5,
                p50_ms: 0.0,
                max_ms: 1_900.0,
                max_versions: 7,
            }),
            None,
        ],
        problems: BTreeMap::from([("<no> majority".to_owned(), 3)]),
        course: Course {
            slice_ms: 500,
            done: vec![5, 0, 3],
            lower: vec![0, 2, 0],
            refused: vec![0, 1, 0],
            silent: vec![0, 2, 2],
            p50_ms: vec![Some(2.0), None, Some(3.0)],
            max_ms: vec![Some(9.0), None, Some(700.0)],
            behind_ms: [vec![Some(0.0), None, Some(1_900.0)], vec![None; 3]],
        },
    }
}

fn comparison() -> Comparison {
    let row = |act, level: &str| Row {
        act,
        level: level.to_owned(),
        rungs: 1,
        sides: [part(100), part(0)],
        written: (act == Act::Write).then_some(WrittenTold {
            acknowledged: 200,
            lost: 0,
            contended_keys: 4,
            conflicts: 2,
        }),
    };
    Comparison {
        format: FORMAT,
        outcome: "held".to_owned(),
        breaches: Vec::new(),
        doubts: Vec::new(),
        setup: Setup {
            target: "a <store>".to_owned(),
            nodes: 5,
            replication: 3,
            hosts: "proxy".to_owned(),
            seed: 7,
            rate_per_second: 300.0,
            timeout_ms: 1_000,
            remarks: vec!["Read it with care & joy.".to_owned()],
            command: "quorate jepsen compare --seed 7".to_owned(),
            took_ms: 3_000,
        },
        cut: CutTold {
            begin_ms: 500.0,
            end_ms: 1_000.0,
            whole_ms: 1_500.0,
            sides: [vec![1, 2, 4], vec![3, 5]],
            primaries: vec![1, 2, 3],
            leader: Some(3),
            proof: Some("12 held up".to_owned()),
        },
        rows: vec![row(Act::Read, "stale"), row(Act::Write, "linearizable")],
        ledger: LedgerTold {
            acknowledged: 200,
            lost: 0,
            from_nowhere: 0,
            keys: 9,
            last_reads: 27,
            conflicts: 2,
        },
        repair: Repair {
            bytes: BTreeMap::from([("repair".to_owned(), 2_048)]),
        },
        recovered_ms: Some(300.0),
    }
}

/// The text between the only `<section id="ID">` and its end.
fn section<'a>(page: &'a str, id: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<section id=\"{id}\">")).unwrap();
    rest.split_once("</section>").unwrap().0
}

#[test]
fn the_page_needs_nothing_else_and_escapes_what_is_not_its_own() {
    let page = html(&comparison(), &[]);
    for outside in ["http://", "https://", "<script", "@import", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("a &lt;store&gt; through a cut"), "{page}");
    assert!(page.contains("&lt;no&gt; majority \u{00d7}3"), "{page}");
    assert!(page.contains("care &amp; joy"), "{page}");
}

#[test]
fn the_grid_says_of_each_level_and_side_how_much_was_served() {
    let page = html(&comparison(), &[]);
    let grid = section(&page, "grid");
    // Two levels, two sides, three phases; the minority's side is away in the cut.
    assert_eq!(grid.matches("class=\"good\"").count(), 10, "{grid}");
    assert_eq!(grid.matches("class=\"bad\"").count(), 2, "{grid}");
    assert!(
        grid.contains("0 % of 100 calls served, 100 refused"),
        "{grid}"
    );
}

#[test]
fn stores_stand_beside_each_other() {
    let mut other = comparison();
    other.setup.target = "another".to_owned();
    let page = html(&comparison(), &[other]);
    let (grid, darkness) = (section(&page, "grid"), section(&page, "darkness"));
    assert_eq!(grid.matches("class=\"bad\"").count(), 4, "{grid}");
    for picture in [grid, darkness] {
        assert!(picture.contains(">a &lt;store&gt;</text>"), "{picture}");
        assert!(picture.contains(">another</text>"), "{picture}");
    }
    assert!(!section(&page, "lanes").contains("another"));
}

#[test]
fn sentences_say_what_the_numbers_say() {
    let mut comparison = comparison();
    let said = |comparison: &Comparison| section(&html(comparison, &[]), "said").to_owned();
    let text = said(&comparison);
    assert!(
        text.contains("writes \u{2013} away: <code>linearizable</code>."),
        "{text}"
    );
    assert!(
        text.contains("took the leader away from the majority"),
        "{text}"
    );
    assert!(text.contains("none is lost"), "{text}");
    assert!(text.contains("1.9 s behind, by 7 writes"), "{text}");
    assert!(text.contains("2 KiB"), "{text}");
    comparison.ledger.lost = 4;
    comparison.cut.leader = Some(1);
    let text = said(&comparison);
    assert!(text.contains("<b>4 are lost</b>"), "{text}");
    assert!(text.contains("stayed with the majority"), "{text}");
}

#[test]
fn lanes_draw_each_kind_of_end_in_its_own_way() {
    let page = html(&comparison(), &[]);
    let lanes = section(&page, "lanes");
    // Each panel has all four, a median and a band, and is shaded where it was cut.
    for (kind, count) in [
        ("class=\"lower\"/><path", 4),
        ("fill=\"url(#hatch)\"/><rect", 4),
        ("class=\"median\"", 4),
        ("class=\"edge\"", 4),
        // Ages belong to reads; the swatch of the legend is one more.
        ("class=\"strong\"", 3),
    ] {
        assert_eq!(lanes.matches(kind).count(), count, "{kind}: {lanes}");
    }
}

#[test]
fn results_are_read_as_they_were_written() {
    let comparison = comparison();
    let text = comparison.to_json().to_string();
    assert_eq!(Comparison::parse(&text), Ok(comparison));
    let other = text.replace("\"format\":1", "\"format\":9");
    assert!(Comparison::parse(&other).unwrap_err().contains("form is 9"));
    assert!(Comparison::parse("{").is_err());
}
