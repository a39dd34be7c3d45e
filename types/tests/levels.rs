//! Levels and ladders as text, and the table of what each mode serves.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;
use quorate_types::served::levels_served;
use quorate_types::{
    Ack, Copies, Ladder, Level, LevelError, Mode, Operation, ReadLevel, Refusal, Rung, WriteLevel,
    default_level, served, served_ladder,
};

fn copies() -> impl Strategy<Value = Copies> {
    prop_oneof![
        Just(Copies::One),
        Just(Copies::Quorum),
        Just(Copies::LocalQuorum),
        Just(Copies::All),
        (1..=u8::MAX).prop_map(Copies::Count),
    ]
}

/// Durations as they are written, and odd ones down to the nanosecond.
fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..100_000_u64).prop_map(Duration::from_millis),
        (1..100_000_u64).prop_map(Duration::from_secs),
        (1..u64::from(u32::MAX)).prop_map(Duration::from_nanos),
    ]
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![
        Just(Level::Linearizable),
        duration().prop_map(Level::Bounded),
        Just(Level::Session),
        Just(Level::Stale),
        (
            copies(),
            any::<bool>(),
            prop_oneof![Just(Ack::Disk), Just(Ack::Memory)]
        )
            .prop_map(|(copies, strict, ack)| Level::Eventual {
                copies,
                strict,
                ack
            }),
    ]
}

fn ladder() -> impl Strategy<Value = Ladder> {
    let rung = (level(), proptest::option::of(duration()))
        .prop_map(|(level, budget)| Rung { level, budget });
    proptest::collection::vec(rung, 1..=8).prop_map(Ladder)
}

proptest! {
    #[test]
    fn levels_round_trip(level in level()) {
        prop_assert_eq!(level.to_string().parse::<Level>().unwrap(), level);
        let json = serde_json::to_string(&level).unwrap();
        prop_assert_eq!(serde_json::from_str::<Level>(&json).unwrap(), level);
    }

    #[test]
    fn ladders_round_trip(ladder in ladder()) {
        prop_assert_eq!(ladder.to_string().parse::<Ladder>().unwrap(), ladder);
    }

    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = text.parse::<Ladder>();
    }

    #[test]
    fn what_is_nearly_a_level_never_panics(text in "(eventual|bounded|stale)?[:@>,0-9a-z ]{0,20}") {
        if let Ok(ladder) = text.parse::<Ladder>() {
            prop_assert_eq!(ladder.to_string().parse::<Ladder>().unwrap(), ladder);
        }
    }

    #[test]
    fn reads_and_writes_go_back_to_their_level(level in level()) {
        if let Ok(read) = level.read() {
            prop_assert_eq!(Level::from(read), level);
            prop_assert_eq!(read.to_string(), level.to_string());
        }
        if let Ok(write) = level.write() {
            prop_assert_eq!(Level::from(write), level);
        }
    }
}

#[test]
fn the_command_lines_levels_are_read() {
    let eventual = |copies, strict, ack| Level::Eventual {
        copies,
        strict,
        ack,
    };
    let cases = [
        ("linearizable", Level::Linearizable),
        ("bounded:5s", Level::Bounded(Duration::from_secs(5))),
        ("session", Level::Session),
        ("stale", Level::Stale),
        ("eventual:one", Level::eventual(Copies::One)),
        ("eventual:quorum", Level::eventual(Copies::Quorum)),
        (
            "eventual:local_quorum",
            Level::eventual(Copies::LocalQuorum),
        ),
        ("eventual:all", Level::eventual(Copies::All)),
        ("eventual:2", Level::eventual(Copies::Count(2))),
        (
            "eventual:quorum,strict,memory",
            eventual(Copies::Quorum, true, Ack::Memory),
        ),
        (
            "eventual:one,memory,strict",
            eventual(Copies::One, true, Ack::Memory),
        ),
        (
            "eventual:one,memory",
            eventual(Copies::One, false, Ack::Memory),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(text.parse::<Level>().unwrap(), expected, "{text}");
    }
}

#[test]
fn what_is_no_level_is_named_with_what_is() {
    let refused = [
        "",
        "strong",
        "Linearizable",
        "linearizable:1",
        "bounded",
        "bounded:0",
        "bounded:5",
        "bounded:-5s",
        "eventual",
        "eventual:",
        "eventual:0",
        "eventual:256",
        "eventual:+2",
        "eventual:one,",
        "eventual:one,strict,strict",
        "eventual:one,fast",
    ];
    for text in refused {
        let error = text.parse::<Level>().unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&format!("`{text}`")), "{message}");
        assert!(message.contains("bounded:DURATION"), "{message}");
    }
}

#[test]
fn a_ladder_is_read_with_its_budgets() {
    let ladder: Ladder = "linearizable@200ms > eventual:quorum@100ms>eventual:one"
        .parse()
        .unwrap();
    let expected = [
        Rung {
            level: Level::Linearizable,
            budget: Some(Duration::from_millis(200)),
        },
        Rung {
            level: Level::eventual(Copies::Quorum),
            budget: Some(Duration::from_millis(100)),
        },
        Rung {
            level: Level::eventual(Copies::One),
            budget: None,
        },
    ];
    assert_eq!(ladder.rungs(), expected);
    assert_eq!(
        ladder.to_string(),
        "linearizable@200ms > eventual:quorum@100ms > eventual:one"
    );
}

#[test]
fn broken_ladders_are_refused() {
    let too_many = ["stale"; 9].join(">");
    for text in [
        "", ">", "stale >", "stale@", "stale@0", "stale@1", &too_many,
    ] {
        assert!(text.parse::<Ladder>().is_err(), "{text}");
    }
}

#[test]
fn a_level_of_the_other_kind_is_refused_by_name() {
    assert_eq!(
        Level::Session.write(),
        Err(LevelError::ReadOnly {
            level: Level::Session
        })
    );
    let strict: Level = "eventual:one,strict".parse().unwrap();
    let error = strict.read().unwrap_err();
    assert!(
        error.to_string().contains("`eventual:one,strict`"),
        "{error}"
    );
    assert_eq!(
        Level::eventual(Copies::All).read(),
        Ok(ReadLevel::Eventual(Copies::All))
    );
    assert_eq!(
        strict.write(),
        Ok(WriteLevel::Eventual {
            w: Copies::One,
            strict: true,
            ack: Ack::Disk
        })
    );
}

/// The design's table: a letter for each level that is served.
#[test]
fn each_mode_serves_what_the_table_says() {
    let levels = [
        ('L', Level::Linearizable),
        ('B', Level::Bounded(Duration::from_secs(5))),
        ('S', Level::Session),
        ('T', Level::Stale),
        ('E', Level::eventual(Copies::One)),
    ];
    let table = [
        (Mode::Strong, Operation::Read, "LBST"),
        (Mode::Strong, Operation::Write, "L"),
        (Mode::Strong, Operation::CompareAndSet, "L"),
        (Mode::Strong, Operation::Transaction, "L"),
        (Mode::Strong, Operation::Snapshot, "LBST"),
        (Mode::Mixed, Operation::Read, "LBSTE"),
        (Mode::Mixed, Operation::Write, "LE"),
        (Mode::Mixed, Operation::CompareAndSet, "L"),
        (Mode::Mixed, Operation::Transaction, "L"),
        (Mode::Mixed, Operation::Snapshot, "LBST"),
        (Mode::Eventual, Operation::Read, "SE"),
        (Mode::Eventual, Operation::Write, "E"),
        (Mode::Eventual, Operation::CompareAndSet, ""),
        (Mode::Eventual, Operation::Transaction, ""),
        (Mode::Eventual, Operation::Snapshot, ""),
    ];
    assert_eq!(table.len(), Mode::ALL.len() * Operation::ALL.len());
    for (mode, operation, expected) in table {
        let allowed = levels_served(mode, operation).unwrap_or_default();
        let mut found = String::new();
        for (letter, level) in &levels {
            let is_served = served(mode, operation, level).is_ok();
            assert_eq!(
                allowed.contains(level.name()),
                is_served,
                "{mode} {operation} {level}: the words say {allowed:?}"
            );
            found.extend(is_served.then_some(*letter));
        }
        assert_eq!(found, expected, "{mode} {operation}");
    }
}

#[test]
fn the_default_level_is_served_wherever_the_operation_is() {
    for mode in Mode::ALL {
        for operation in Operation::ALL {
            let level = default_level(*mode, *operation);
            match served(*mode, *operation, &level) {
                Ok(()) => {}
                Err(Refusal::Operation { .. }) => assert_eq!(*mode, Mode::Eventual),
                Err(other) => panic!("{mode} {operation}: {other}"),
            }
        }
    }
    assert_eq!(
        default_level(Mode::Eventual, Operation::Write).to_string(),
        "eventual:quorum"
    );
}

#[test]
fn refusals_say_what_would_do() {
    let level = Level::eventual(Copies::One);
    let error = served(Mode::Strong, Operation::Write, &level).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a keyspace of mode strong does not serve a write at eventual:one; allowed: linearizable"
    );
    let error = served(Mode::Eventual, Operation::Transaction, &level).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a keyspace of mode eventual has no transaction at any level; modes strong and mixed do"
    );
}

#[test]
fn a_ladder_is_served_if_every_rung_is() {
    let ladder: Ladder = "linearizable@1s > eventual:one".parse().unwrap();
    assert_eq!(
        served_ladder(Mode::Mixed, Operation::Write, &ladder),
        Ok(())
    );
    assert!(served_ladder(Mode::Mixed, Operation::CompareAndSet, &ladder).is_err());
    assert!(served_ladder(Mode::Strong, Operation::Write, &ladder).is_err());
    assert!(served_ladder(Mode::Eventual, Operation::Write, &ladder).is_err());
}
