//! Ids, times, durations, options and the words of errors.
#![allow(clippy::unwrap_used)]

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_types::{
    ClientId, ConflictPolicy, Context, Effect, HybridClock, KeyspaceId, KeyspaceOptions, Mode,
    NodeId, ParseError, Partitioning, RangeId, Reason, RequestHandle, RequestId, Revision,
    Timestamp, format_duration, limits, parse_duration, validate_keyspace_name,
};

fn check_round_trip<T>(value: T)
where
    T: Display + FromStr<Err = ParseError> + Debug + PartialEq,
{
    assert_eq!(value.to_string().parse::<T>().unwrap(), value);
}

proptest! {
    #[test]
    fn ids_round_trip(number: u64, small: u32, sequence: u64) {
        check_round_trip(NodeId(number));
        check_round_trip(RangeId(number));
        check_round_trip(KeyspaceId(small));
        check_round_trip(ClientId(number));
        check_round_trip(Timestamp(number));
        check_round_trip(Revision(number));
        let request = RequestId { client: ClientId(number), sequence };
        check_round_trip(request);
        check_round_trip(RequestHandle { range: RangeId(sequence), request });
    }

    #[test]
    fn durations_round_trip(nanos in 0..=limits::DURATION_MAX.as_nanos() as u64) {
        let duration = Duration::from_nanos(nanos);
        prop_assert_eq!(parse_duration(&format_duration(duration)).unwrap(), duration);
        let whole = Duration::from_secs(nanos / 1_000_000_000);
        prop_assert_eq!(parse_duration(&format_duration(whole)).unwrap(), whole);
    }

    #[test]
    fn a_clock_never_repeats_or_goes_back(
        steps in proptest::collection::vec((0..2_000_u64, proptest::option::of(0..3_000_u64)), 1..60)
    ) {
        let max_offset = Duration::from_micros(500);
        let mut clock = HybridClock::new(max_offset);
        let mut last = Timestamp::ZERO;
        for (now, remote) in steps {
            let now = Timestamp(now);
            if let Some(remote) = remote.map(Timestamp) {
                let before = clock.last();
                let adopted = clock.observe(remote, now).is_ok();
                prop_assert_eq!(adopted, remote <= now.saturating_add(max_offset));
                prop_assert_eq!(clock.last(), if adopted { before.max(remote) } else { before });
                last = if adopted { last.max(remote) } else { last };
            }
            let next = clock.tick(now);
            prop_assert!(next > last);
            prop_assert!(next >= now);
            prop_assert!(next == now || next.0 == last.0 + 1, "{next} after {last} at {now}");
            last = next;
        }
    }
}

#[test]
fn a_request_handle_looks_as_documented() {
    let handle = RequestHandle {
        range: RangeId(7),
        request: RequestId {
            client: ClientId(0x00c0_ffee_0000_0001),
            sequence: 42,
        },
    };
    assert_eq!(handle.to_string(), "r7-00c0ffee00000001-42");
    for text in [
        "",
        "r",
        "7-00c0ffee00000001-42",
        "r7",
        "r7-",
        "r7-c0ffee",
        "r7-c0ffee-",
        "r7--42",
        "r7-c0ffee-+42",
        "r7-c0ffee-42-1",
        "r-c0ffee-42",
        "r7-00000000000000000-1",
        "r7-xyz-1",
    ] {
        assert!(text.parse::<RequestHandle>().is_err(), "{text}");
    }
}

#[test]
fn strange_numbers_are_no_ids() {
    for text in ["", "+1", "-1", " 1", "1 ", "18446744073709551616", "0x1"] {
        assert!(text.parse::<NodeId>().is_err(), "{text}");
        assert!(text.parse::<Revision>().is_err(), "{text}");
    }
    assert!("4294967296".parse::<KeyspaceId>().is_err());
}

#[test]
fn newtypes_are_bare_numbers_in_json() {
    assert_eq!(serde_json::to_string(&RangeId::META).unwrap(), "1");
    assert_eq!(serde_json::to_string(&Revision(5)).unwrap(), "5");
    let context = Context(Bytes::from_static(b"\x00\xff"));
    let json = serde_json::to_string(&context).unwrap();
    assert_eq!(json, "\"00ff\"");
    assert_eq!(serde_json::from_str::<Context>(&json).unwrap(), context);
    assert!(serde_json::from_str::<Context>("\"0\"").is_err());
    assert!(serde_json::from_str::<Context>("\"0g\"").is_err());
}

#[test]
fn times_are_shown_as_rfc_3339() {
    let cases = [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_400_000_001, "2000-02-29T00:00:00.000001Z"),
        (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
        (1_709_251_200_000_000, "2024-03-01T00:00:00.000000Z"),
        (1_795_352_461_500_000, "2026-11-22T13:01:01.500000Z"),
        (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        (4_107_456_000_000_000, "2100-02-28T00:00:00.000000Z"),
    ];
    for (micros, expected) in cases {
        assert_eq!(Timestamp(micros).to_rfc3339(), expected);
    }
    assert!(Timestamp::MAX.to_rfc3339().ends_with('Z'));
}

#[test]
fn arithmetic_of_times_stops_at_the_ends() {
    let second = Duration::from_secs(1);
    assert_eq!(Timestamp(5).saturating_add(second), Timestamp(1_000_005));
    assert_eq!(Timestamp::MAX.saturating_add(second), Timestamp::MAX);
    assert_eq!(Timestamp(5).saturating_add(Duration::MAX), Timestamp::MAX);
    assert_eq!(Timestamp(5).saturating_sub(second), Timestamp::ZERO);
    assert_eq!(Timestamp::from_millis(u64::MAX), Timestamp::MAX);
    assert_eq!(Timestamp::from_millis(3).as_millis(), 3);
    let (early, late) = (Timestamp(10), Timestamp(25));
    assert_eq!(late.saturating_duration_since(early).as_micros(), 15);
    assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
}

#[test]
fn a_clock_far_ahead_is_not_followed() {
    let mut clock = HybridClock::resume(Timestamp(100), limits::CLOCK_OFFSET_MAX);
    let now = Timestamp::from_millis(1_000);
    let error = clock
        .observe(Timestamp::from_millis(1_501), now)
        .unwrap_err();
    assert_eq!(error.ahead, Duration::from_millis(501));
    assert_eq!(clock.last(), Timestamp(100));
    clock.observe(Timestamp::from_millis(1_500), now).unwrap();
    assert_eq!(clock.tick(now), Timestamp(1_500_001));
}

#[test]
fn durations_are_read_and_shown() {
    let cases = [
        ("200ms", 200_000_000),
        ("5s", 5_000_000_000),
        ("5m", 300_000_000_000),
        ("2h", 7_200_000_000_000),
        ("1d", 86_400_000_000_000),
        ("90s", 90_000_000_000),
        ("7us", 7_000),
        ("3ns", 3),
        ("0", 0),
    ];
    for (text, nanos) in cases {
        assert_eq!(parse_duration(text).unwrap(), Duration::from_nanos(nanos));
        assert_eq!(format_duration(Duration::from_nanos(nanos)), text);
    }
    assert_eq!(parse_duration("0s").unwrap(), Duration::ZERO);
    for text in [
        "",
        "5",
        "s",
        "-5s",
        "+5s",
        "1.5s",
        "5 s",
        "5S",
        "5w",
        "36501d",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        let error = parse_duration(text).unwrap_err();
        assert!(error.to_string().contains("as in 200ms"), "{error}");
    }
}

/// Options with one change, and the field that is to be refused.
fn check_options(change: impl FnOnce(&mut KeyspaceOptions), refused: Option<&str>) {
    let mut options = KeyspaceOptions::default();
    change(&mut options);
    let found = options.validate().map_err(|error| error.field);
    assert_eq!(found.err(), refused, "{options:?}");
}

#[test]
fn options_are_held_to_their_limits() {
    check_options(|_| {}, None);
    check_options(|o| o.replication = 0, Some("replication"));
    check_options(|o| o.replication = 10, Some("replication"));
    check_options(
        |o| o.partitioning = Partitioning::Hash(0),
        Some("partitioning"),
    );
    check_options(
        |o| o.partitioning = Partitioning::Hash(4097),
        Some("partitioning"),
    );
    check_options(|o| o.partitioning = Partitioning::Hash(4096), None);
    check_options(|o| o.key_max_bytes = 4097, Some("key_max_bytes"));
    check_options(|o| o.value_max_bytes = 0, Some("value_max_bytes"));
    check_options(|o| o.value_max_bytes = 16 << 20, None);
    check_options(
        |o| o.value_max_bytes = (16 << 20) + 1,
        Some("value_max_bytes"),
    );
    check_options(|o| o.quota_bytes = Some(0), Some("quota_bytes"));
    check_options(|o| o.history = Duration::ZERO, None);
    check_options(|o| o.history = Duration::MAX, Some("history"));
    check_options(
        |o| o.ttl_default = Some(Duration::ZERO),
        Some("ttl_default"),
    );
    check_options(|o| o.ttl_default = Some(Duration::from_secs(1)), None);
}

#[test]
fn options_are_read_from_a_file_with_defaults() {
    let options: KeyspaceOptions = serde_json::from_str(
        r#"{"mode":"strong","conflict":"last_write_wins","partitioning":"hash(16)","ttl_default":"1h"}"#,
    )
    .unwrap();
    assert_eq!(options.mode, Mode::Strong);
    assert_eq!(options.conflict, ConflictPolicy::LastWriteWins);
    assert_eq!(options.partitioning, Partitioning::Hash(16));
    assert_eq!(options.ttl_default, Some(Duration::from_secs(3600)));
    assert_eq!(options.history, Duration::from_secs(300));
    assert_eq!(options.replication, 3);
    let json = serde_json::to_string(&options).unwrap();
    assert_eq!(
        serde_json::from_str::<KeyspaceOptions>(&json).unwrap(),
        options
    );
    assert!(serde_json::from_str::<KeyspaceOptions>(r#"{"partitioning":"hash(0)"}"#).is_err());
    assert!(serde_json::from_str::<KeyspaceOptions>(r#"{"histroy":"5m"}"#).is_err());
}

#[test]
fn keyspace_names_are_checked() {
    for name in ["default", "a", "0", "a.b-c_d", "-", &"x".repeat(128)] {
        validate_keyspace_name(name).unwrap();
    }
    for name in ["", ".a", "A", "a b", "ä", "a/b", &"x".repeat(129)] {
        let error = validate_keyspace_name(name).unwrap_err();
        assert_eq!(error.field, "keyspace");
    }
}

#[test]
fn words_round_trip() {
    Mode::ALL.iter().copied().for_each(check_round_trip);
    ConflictPolicy::ALL
        .iter()
        .copied()
        .for_each(check_round_trip);
    Reason::ALL.iter().copied().for_each(check_round_trip);
    [Effect::None, Effect::Applied, Effect::Unknown]
        .into_iter()
        .for_each(check_round_trip);
    let error = "stong".parse::<Mode>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`stong` is not a valid mode; allowed: strong, mixed, eventual"
    );
}

#[test]
fn reasons_are_in_capitals() {
    for reason in Reason::ALL {
        let spelled: String = format!("{reason:?}")
            .chars()
            .enumerate()
            .flat_map(|(index, letter)| {
                let gap = (index > 0 && letter.is_ascii_uppercase()).then_some('_');
                gap.into_iter().chain([letter.to_ascii_uppercase()])
            })
            .collect();
        assert_eq!(reason.as_str(), spelled);
    }
}

#[test]
fn errors_repeat_only_the_start_of_what_was_sent() {
    let error = "ä".repeat(1_000_000).parse::<Mode>().unwrap_err();
    assert!(error.to_string().len() < 300);
}
