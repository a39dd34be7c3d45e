//! Small histories of each model: what is valid, what is not, and what it is called.

use std::path::Path;

use quorate_jepsen::history::operations;
use quorate_jepsen::picture::html;
use quorate_jepsen::{Budget, Model, Options, Report, Verdict, check};

/// Holds a history in EDN against a model, with options as on the command line.
fn report(model: &str, options: &str, edn: &str) -> Report {
    let words: Vec<&str> = options.split_whitespace().collect();
    let has = |word: &str| words.contains(&word);
    let options = Options {
        independent: has("--independent"),
        negative_balances: has("--negative-balances"),
        closed: has("--closed"),
        consistency: words
            .iter()
            .find(|word| !word.starts_with("--"))
            .map(|word| (*word).to_owned()),
        ..Options::default()
    };
    let model: Model = model.parse().expect("a model");
    let told = operations(edn.as_bytes(), Path::new("history.edn"));
    check(told, model, &options, &mut Budget::unbounded())
        .unwrap_or_else(|error| panic!("{edn}\n{error:?}"))
}

/// A history must be valid (no names), or show exactly these anomalies.
fn expect(model: &str, options: &str, expected: &[&str], edn: &str) {
    let report = report(model, options, edn);
    let found: Vec<&str> = report
        .counts
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(found, expected, "{edn}\n{}", report.to_text(model));
    let verdict = if expected.is_empty() {
        Verdict::Valid
    } else {
        Verdict::Invalid
    };
    assert_eq!(report.verdict, verdict, "{edn}\n{}", report.to_text(model));
}

/// One line an operation: process, function, value asked, value answered; all in sequence.
fn sequence(lines: &[(i64, &str, &str, &str)]) -> String {
    let event = |process: i64, kind: &str, f: &str, value: &str| {
        format!("{{:process {process} :type :{kind} :f :{f} {value}}}\n")
    };
    let lines = lines.iter().map(|(process, f, asked, answered)| {
        event(*process, "invoke", f, asked) + &event(*process, "ok", f, answered)
    });
    lines.collect()
}

#[test]
fn a_register_is_read_as_it_was_written() {
    expect(
        "cas-register",
        "",
        &[],
        &sequence(&[
            (0, "read", "", ":value nil"),
            (0, "write", ":value 1", ":value 1"),
            (1, "cas", ":value [1 2]", ":value [1 2]"),
            (0, "read", "", ":value 2"),
        ]),
    );
    expect(
        "cas-register",
        "",
        &["nonlinearizable"],
        &sequence(&[
            (0, "write", ":value 1", ":value 1"),
            (1, "cas", ":value [1 2]", ":value [1 2]"),
            (0, "read", "", ":value 1"),
        ]),
    );
}

#[test]
fn a_read_of_nil_is_the_initial_value() {
    expect(
        "cas-register",
        "",
        &["nonlinearizable"],
        &sequence(&[
            (0, "write", ":value 1", ":value 1"),
            (0, "read", "", ":value nil"),
        ]),
    );
}

#[test]
fn a_lost_write_may_take_effect_late_or_never() {
    let lost = "{:process 0 :type :invoke :f :write :value 1}
                {:process 0 :type :info :f :write :value :timed-out}";
    let reads = |values: &[&str]| {
        let reads: Vec<(i64, &str, &str, &str)> =
            values.iter().map(|value| (1, "read", "", *value)).collect();
        format!("{lost}{}", sequence(&reads))
    };
    expect(
        "cas-register",
        "",
        &[],
        &reads(&[":value nil", ":value nil", ":value 1"]),
    );
    expect("cas-register", "", &[], &reads(&[":value nil"]));
    expect(
        "cas-register",
        "",
        &["nonlinearizable"],
        &reads(&[":value 1", ":value nil"]),
    );
}

#[test]
fn keys_are_checked_apart() {
    let history = sequence(&[
        (0, "write", ":value [:x 1]", ":value [:x 1]"),
        (0, "read", ":value [:y nil]", ":value [:y nil]"),
        (0, "read", ":value [:x nil]", ":value [:x 1]"),
    ]);
    expect("cas-register", "--independent", &[], &history);
    let history = sequence(&[
        (0, "write", ":key :x :value 1", ":key :x :value 1"),
        (0, "read", ":key :x", ":key :x :value 2"),
    ]);
    expect(
        "cas-register",
        "--independent",
        &["nonlinearizable"],
        &history,
    );
}

#[test]
fn a_lock_has_one_holder() {
    expect(
        "mutex",
        "",
        &[],
        &sequence(&[
            (0, "acquire", "", ""),
            (0, "release", "", ""),
            (1, "acquire", "", ""),
        ]),
    );
    expect(
        "mutex",
        "",
        &["nonlinearizable"],
        &sequence(&[(0, "acquire", "", ""), (1, "acquire", "", "")]),
    );
}

#[test]
fn strings_grow_at_their_end() {
    expect(
        "append-kv",
        "",
        &["nonlinearizable"],
        &sequence(&[
            (
                0,
                "put",
                ":key \"a\" :value \"x\"",
                ":key \"a\" :value \"x\"",
            ),
            (
                0,
                "append",
                ":key \"a\" :value \"y\"",
                ":key \"a\" :value \"y\"",
            ),
            (0, "get", ":key \"a\"", ":key \"a\" :value \"yx\""),
        ]),
    );
}

fn transactions(steps: &[(i64, &str)]) -> String {
    let values: Vec<(i64, String)> = steps
        .iter()
        .map(|(process, steps)| (*process, format!(":value {steps}")))
        .collect();
    let lines: Vec<(i64, &str, &str, &str)> = values
        .iter()
        .map(|(process, value)| (*process, "txn", value.as_str(), value.as_str()))
        .collect();
    sequence(&lines)
}

/// All transactions at once.
fn concurrent(steps: &[&str]) -> String {
    let event = |kind: &str| {
        let lines = steps.iter().enumerate().map(|(process, steps)| {
            format!("{{:process {process} :type :{kind} :f :txn :value {steps}}}\n")
        });
        lines.collect::<String>()
    };
    event("invoke") + &event("ok")
}

#[test]
fn anomalies_of_lists_have_their_names() {
    let all = "strict-serializable";
    expect(
        "list-append",
        all,
        &["G0"],
        &concurrent(&[
            "[[:append :x 1] [:append :y 1]]",
            "[[:append :x 2] [:append :y 2]]",
            "[[:r :x [1 2]]]",
            "[[:r :y [2 1]]]",
        ]),
    );
    expect(
        "list-append",
        all,
        &["G1c"],
        &concurrent(&[
            "[[:append :x 1] [:r :y [2]]]",
            "[[:append :y 2] [:r :x [1]]]",
        ]),
    );
    expect(
        "list-append",
        all,
        &["G-single"],
        &concurrent(&[
            "[[:append :x 1] [:append :y 1]]",
            "[[:r :x [1]] [:r :y []]]",
        ]),
    );
    expect(
        "list-append",
        all,
        &["G2-item"],
        &concurrent(&["[[:r :x []] [:append :y 1]]", "[[:r :y []] [:append :x 1]]"]),
    );
    expect(
        "list-append",
        all,
        &["G-nonadjacent"],
        &concurrent(&[
            "[[:append :x 1]]",
            "[[:append :y 1]]",
            "[[:r :x [1]] [:r :y []]]",
            "[[:r :y [1]] [:r :x []]]",
        ]),
    );
    expect(
        "list-append",
        all,
        &["incompatible-order"],
        &concurrent(&[
            "[[:append :x 1]]",
            "[[:append :x 2]]",
            "[[:r :x [1]]]",
            "[[:r :x [2 1]]]",
        ]),
    );
    expect(
        "list-append",
        all,
        &["internal"],
        &concurrent(&["[[:append :x 1] [:r :x []]]"]),
    );
    expect(
        "list-append",
        all,
        &["future-read"],
        &concurrent(&["[[:r :x [1]] [:append :x 1]]"]),
    );
    expect(
        "list-append",
        all,
        &["G1b", "G-single"],
        &concurrent(&["[[:append :x 1] [:append :x 2]]", "[[:r :x [1]]]"]),
    );
}

#[test]
fn real_time_counts_only_where_it_is_promised() {
    let stale = transactions(&[(0, "[[:append :x 1]]"), (1, "[[:r :x []]]")]);
    expect(
        "list-append",
        "strict-serializable",
        &["G-single-realtime"],
        &stale,
    );
    expect("list-append", "strong-session-serializable", &[], &stale);
    expect("list-append", "serializable", &[], &stale);
    let own = transactions(&[(0, "[[:append :x 1]]"), (0, "[[:r :x []]]")]);
    expect(
        "list-append",
        "strong-session-serializable",
        &["G-single-process"],
        &own,
    );
}

#[test]
fn write_skew_is_allowed_under_snapshot_isolation() {
    let skew = concurrent(&["[[:r :x []] [:append :y 1]]", "[[:r :y []] [:append :x 1]]"]);
    let report = report("list-append", "snapshot-isolation", &skew);
    assert_eq!(
        report.verdict,
        Verdict::Valid,
        "{}",
        report.to_text("list-append")
    );
    assert_eq!(report.ruled_out, ["repeatable-read"]);
}

#[test]
fn aborted_writes_are_not_read() {
    let failed = "{:process 9 :type :invoke :f :txn :value [[:append :x 1]]}
                  {:process 9 :type :fail :f :txn :value [[:append :x 1]]}";
    let history = format!("{failed}{}", concurrent(&["[[:r :x [1]]]"]));
    expect("list-append", "", &["G1a"], &history);
    let history = history.replace(":append", ":w").replace("[1]", "1");
    expect("rw-register", "", &["G1a"], &history);
}

#[test]
fn anomalies_of_registers_have_their_names() {
    expect(
        "rw-register",
        "serializable",
        &["lost-update", "G2-item"],
        &concurrent(&[
            "[[:w :x 1]]",
            "[[:r :x 1] [:w :x 2]]",
            "[[:r :x 1] [:w :x 3]]",
        ]),
    );
    expect(
        "rw-register",
        "serializable",
        &["G-single"],
        &concurrent(&["[[:w :x 1] [:w :y 1]]", "[[:r :x 1] [:r :y nil]]"]),
    );
    expect(
        "rw-register",
        "serializable",
        &["no-serial-order"],
        &concurrent(&[
            "[[:w :x 1] [:w :y 1]]",
            "[[:w :x 2] [:w :y 2]]",
            "[[:r :x 1] [:r :y 2]]",
        ]),
    );
}

#[test]
fn what_nobody_wrote_matters_where_nobody_else_writes() {
    let history = concurrent(&["[[:r :x 7]]"]);
    expect("rw-register", "", &[], &history);
    expect("rw-register", "--closed", &["garbage-read"], &history);
}

#[test]
fn sets_lose_nothing() {
    let add = |value| (0, "add", value, value);
    expect(
        "set",
        "",
        &["lost", "unexpected"],
        &sequence(&[
            add(":value 1"),
            add(":value 2"),
            (0, "read", "", ":value [2 3]"),
        ]),
    );
    let stale = sequence(&[
        add(":value 1"),
        (0, "read", "", ":value []"),
        (0, "read", "", ":value [1]"),
    ]);
    expect("set-full", "linearizable", &["stale"], &stale);
    assert_eq!(report("set-full", "", &stale).verdict, Verdict::Valid);
    expect(
        "set-full",
        "",
        &["duplicated"],
        &sequence(&[add(":value 1"), (0, "read", "", ":value [1 1]")]),
    );
}

#[test]
fn counters_and_banks_add_up() {
    expect(
        "counter",
        "",
        &["out-of-bounds"],
        &sequence(&[
            (0, "add", ":value 2", ":value 2"),
            (0, "read", "", ":value 1"),
        ]),
    );
    let bank = |second| {
        sequence(&[
            (0, "read", "", ":value {0 10 1 0}"),
            (0, "read", "", second),
        ])
    };
    expect("bank", "", &[], &bank(":value {0 4 1 6}"));
    expect("bank", "", &["wrong-total"], &bank(":value {0 4 1 7}"));
    expect(
        "bank",
        "",
        &["negative-balance"],
        &bank(":value {0 11 1 -1}"),
    );
    expect(
        "bank",
        "--negative-balances",
        &[],
        &bank(":value {0 11 1 -1}"),
    );
    expect("bank", "", &["other-accounts"], &bank(":value {0 10}"));
}

#[test]
fn forks_need_two_reads() {
    let read = |value| (0, "read", ":value [[:r 0 nil] [:r 1 nil]]", value);
    expect(
        "long-fork",
        "",
        &[],
        &sequence(&[
            read(":value [[:r 0 1] [:r 1 nil]]"),
            read(":value [[:r 0 1] [:r 1 1]]"),
        ]),
    );
    expect(
        "long-fork",
        "",
        &["long-fork"],
        &sequence(&[
            read(":value [[:r 0 1] [:r 1 nil]]"),
            read(":value [[:r 0 nil] [:r 1 1]]"),
        ]),
    );
}

#[test]
fn the_four_guarantees_of_sessions() {
    let history = |acts: &[(&'static str, i64)]| {
        let values: Vec<(&str, String)> = acts
            .iter()
            .map(|(f, version)| {
                (
                    *f,
                    format!(":key :k :value {{:value 1 :version {version}}}"),
                )
            })
            .collect();
        let lines: Vec<(i64, &str, &str, &str)> = values
            .iter()
            .map(|(f, value)| (0, *f, ":key :k", value.as_str()))
            .collect();
        sequence(&lines)
    };
    expect(
        "sessions",
        "",
        &[],
        &history(&[("write", 1), ("read", 1), ("read", 3), ("write", 4)]),
    );
    expect(
        "sessions",
        "",
        &["read-your-writes"],
        &history(&[("write", 2), ("read", 1)]),
    );
    expect(
        "sessions",
        "",
        &["monotonic-reads"],
        &history(&[("read", 2), ("read", 1)]),
    );
    expect(
        "sessions",
        "",
        &["monotonic-writes"],
        &history(&[("write", 2), ("write", 1)]),
    );
    expect(
        "sessions",
        "",
        &["writes-follow-reads"],
        &history(&[("read", 2), ("write", 2)]),
    );
}

#[test]
fn siblings_are_neither_lost_nor_resurrected() {
    let write = ":key :k :value {:value 1}";
    let over = ":key :k :value {:value 2 :context [1]}";
    let history = |last: &[&'static str]| {
        let mut lines = vec![(0, "write", write, ""), (0, "write", over, "")];
        lines.extend(
            last.iter()
                .map(|value| (1, "final-read", ":key :k", *value)),
        );
        sequence(&lines)
    };
    expect("causal", "", &[], &history(&[":value [2]", ":value [2]"]));
    expect("causal", "", &["lost-update"], &history(&[":value []"]));
    expect(
        "causal",
        "",
        &["lost-update", "resurrected"],
        &history(&[":value [1]"]),
    );
    expect(
        "causal",
        "",
        &["diverged"],
        &history(&[":value [2]", ":value []"]),
    );
}

#[test]
fn strong_reads_see_eventual_writes_once_and_for_all() {
    let eventual = (
        0,
        "eventual-write",
        ":key :k :value {:value 2 :context []}",
        ":key :k",
    );
    let write = (1, "write", ":key :k :value 1", ":key :k");
    let read = |value| (2, "read", ":key :k", value);
    expect(
        "mixed",
        "",
        &[],
        &sequence(&[write, eventual, read(":value [1]"), read(":value [1 2]")]),
    );
    expect(
        "mixed",
        "",
        &["nonlinearizable"],
        &sequence(&[write, eventual, read(":value [1 2]"), read(":value [1]")]),
    );
}

#[test]
fn who_has_seen_a_value_has_seen_what_that_had_replaced() {
    let eventual = |value| (0, "eventual-write", value, ":key :k");
    let read = |value| (2, "read", ":key :k", value);
    let chain = |last| {
        sequence(&[
            eventual(":key :k :value {:value 1 :context []}"),
            read(":value [1]"),
            eventual(":key :k :value {:value 2 :context [1]}"),
            eventual(":key :k :value {:value 3 :context [2]}"),
            eventual(":key :k :value {:value 4 :context [3]}"),
            read(last),
        ])
    };
    expect("mixed", "", &[], &chain(":value [4]"));
    expect("mixed", "", &["nonlinearizable"], &chain(":value [1 4]"));
}

#[test]
fn a_strong_write_that_nobody_saw_end_is_known_by_who_replaced_it() {
    let history = |last| {
        let lost = "{:process 9 :type :invoke :f :write :key :k :value 2}\n";
        let replaced = ":key :k :value {:value 3 :context [2]}";
        let read = |value| (2, "read", ":key :k", value);
        sequence(&[
            (1, "write", ":key :k :value 1", ":key :k"),
            read(":value [1]"),
        ]) + lost
            + &sequence(&[(0, "eventual-write", replaced, ":key :k"), read(last)])
    };
    expect("mixed", "", &[], &history(":value [3]"));
    expect("mixed", "", &["nonlinearizable"], &history(":value [2 3]"));
}

/// Two writers and what watchers were told: one that begins with now, one with the beginning.
fn watched(now: &str, beginning: &str) -> String {
    let put = |key, asked, answered| (0, "put", key, asked, answered);
    let before = [put("k", "1", ":value {:value 1 :revision 10}")];
    let after = [
        put("k", "2", ":value {:value 2 :revision 20}"),
        put("l", "3", ":value {:value 3 :revision 30}"),
        put("k", "4", ":value {:value 4 :revision 40}"),
    ];
    let puts = |puts: &[(i64, &str, &str, &str, &str)]| -> String {
        let one = |(process, f, key, asked, answered): &(i64, &str, &str, &str, &str)| {
            let (asked, answered) = (
                format!(":key :{key} :value {asked}"),
                format!(":key :{key} {answered}"),
            );
            sequence(&[(*process, f, &asked, &answered)])
        };
        puts.iter().map(one).collect()
    };
    let begin = |number, from| {
        let asked = format!(":value {{:watcher {number} :from {from}}}");
        sequence(&[(number, "watch", &asked, &asked)])
    };
    let told = |number, events: &str| {
        let asked = format!(":value {{:watcher {number}}}");
        let answered = format!(":value {{:watcher {number} :events [{events}]}}");
        sequence(&[(number, "last-events", &asked, &answered)])
    };
    let lost = "{:process 7 :type :invoke :f :put :key :k :value 5}\n\
                {:process 7 :type :info :f :put :key :k :value 5}\n\
                {:process 8 :type :invoke :f :delete :key :l}\n\
                {:process 8 :type :fail :f :delete :key :l}\n";
    let delete = sequence(&[(0, "delete", ":key :k", ":key :k :value {:revision 50}")]);
    [
        puts(&before),
        begin(1, "now"),
        begin(2, "beginning"),
        puts(&after),
        lost.to_owned(),
        delete,
        told(1, now),
        told(2, beginning),
    ]
    .concat()
}

#[test]
fn watchers_are_told_each_change_once_and_in_order() {
    // Keys k are in range 1, keys l in range 2; how ranges mix is free.
    const NOW: &str = "[1 20 :k 2] [2 30 :l 3] [1 40 :k 4] [1 50 :k nil]";
    const ALL: &str = "[2 30 :l 3] [1 10 :k 1] [1 20 :k 2] [1 40 :k 4] [1 50 :k nil]";
    let cases: &[(&[&str], &str, &str)] = &[
        (&[], NOW, ALL),
        // A write without an answer may have taken effect, for all then.
        (
            &[],
            "[1 20 :k 2] [2 30 :l 3] [1 40 :k 4] [1 45 :k 5] [1 50 :k nil]",
            "[2 30 :l 3] [1 10 :k 1] [1 20 :k 2] [1 40 :k 4] [1 45 :k 5] [1 50 :k nil]",
        ),
        (
            &["lost"],
            NOW,
            "[2 30 :l 3] [1 10 :k 1] [1 20 :k 2] [1 40 :k 4] [1 45 :k 5] [1 50 :k nil]",
        ),
        // In between, the first, the last, a delete, a whole range, the one from before.
        (&["lost"], "[1 20 :k 2] [2 30 :l 3] [1 50 :k nil]", ALL),
        (&["lost"], "[2 30 :l 3] [1 40 :k 4] [1 50 :k nil]", ALL),
        (&["lost"], "[1 20 :k 2] [2 30 :l 3] [1 40 :k 4]", ALL),
        (&["lost"], "[1 20 :k 2] [1 40 :k 4] [1 50 :k nil]", ALL),
        (
            &["lost"],
            NOW,
            "[2 30 :l 3] [1 20 :k 2] [1 40 :k 4] [1 50 :k nil]",
        ),
        // To nobody.
        (
            &["lost"],
            "[1 20 :k 2] [1 40 :k 4] [1 50 :k nil]",
            "[1 10 :k 1] [1 20 :k 2] [1 40 :k 4] [1 50 :k nil]",
        ),
        (
            &["twice"],
            "[1 20 :k 2] [2 30 :l 3] [1 40 :k 4] [1 40 :k 4] [1 50 :k nil]",
            ALL,
        ),
        (
            &["disorder"],
            "[1 40 :k 4] [2 30 :l 3] [1 20 :k 2] [1 50 :k nil]",
            ALL,
        ),
        (
            &["early"],
            "[1 10 :k 1] [1 20 :k 2] [2 30 :l 3] [1 40 :k 4] [1 50 :k nil]",
            ALL,
        ),
        (&["invented"], NOW, &format!("{ALL} [2 60 :l 9]")),
        // Of another key; a delete that failed.
        (
            &["invented", "lost"],
            NOW,
            "[1 10 :k 1] [1 20 :k 2] [2 30 :k 3] [1 40 :k 4] [1 50 :k nil]",
        ),
        (&["invented"], NOW, &format!("{ALL} [2 60 :l nil]")),
        // A write that took effect twice.
        (&["repeated"], NOW, &format!("{ALL} [1 60 :k 4]")),
        (
            &["repeated"],
            NOW,
            &format!("{ALL} [1 60 :k 5] [1 70 :k 5]"),
        ),
        (
            &["disagreement", "lost", "repeated"],
            "[1 20 :k 2] [2 30 :l 3] [1 40 :k 2] [1 50 :k nil]",
            ALL,
        ),
    ];
    for (expected, now, beginning) in cases {
        let history = watched(now, beginning);
        let report = report("watch", "", &history);
        let mut found: Vec<&str> = report.counts.iter().map(|(name, _)| &**name).collect();
        found.sort_unstable();
        assert_eq!(&found, expected, "{}", report.to_text("watch"));
    }
}

#[test]
fn a_watcher_that_nobody_asks_to_the_end_proves_nothing() {
    let history = watched("", "").replace("last-events", "events");
    assert_eq!(report("watch", "", &history).verdict, Verdict::Unknown);
}

#[test]
fn findings_are_drawn_and_their_text_cannot_break_the_page() {
    let stale = sequence(&[
        (0, "write", ":value \"<b>\"", ":value \"<b>\""),
        (1, "cas", ":value [\"<b>\" 2]", ":value [\"<b>\" 2]"),
        (2, "read", "", ":value \"<b>\""),
    ]);
    let page = html(&report("cas-register", "", &stale), "cas-register");
    for wanted in ["<svg", "invalid", "process 2", "read &lt;b&gt;"] {
        assert!(page.contains(wanted), "no {wanted} in {page}");
    }
    assert!(!page.contains("<b>\""), "{page}");
    let circle = concurrent(&[
        "[[:append :x 1] [:r :y [2]]]",
        "[[:append :y 2] [:r :x [1]]]",
    ]);
    let page = html(&report("list-append", "", &circle), "list-append");
    assert_eq!(page.matches("class=\"why\"").count(), 2, "{page}");
}
