//! The fields of a request against their limits: each refusal names the field, the limit, and what
//! would be taken instead. Nothing is routed before this has passed.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1;
use quorate_types::limits::{
    BATCH_OPERATIONS_MAX, CLOCK_OFFSET_MAX, MESSAGE_MAX_BYTES, SCAN_BYTES_MAX, SCAN_ROWS_MAX,
    TTL_MAX, TXN_OPERATIONS_MAX,
};
use quorate_types::{ClientId, KeyspaceOptions, Reason, RequestId, Timestamp, format_duration};

use crate::errors::GatewayError;

/// Most versions in one answer about a key's history.
pub const HISTORY_ENTRIES_MAX: usize = 1000;
/// Bytes of keys and values that one batch or transaction may carry.
pub const OPERATIONS_MAX_BYTES: usize = MESSAGE_MAX_BYTES - (1 << 20);

fn refused(
    field: impl Into<Cow<'static, str>>,
    reason: Reason,
    problem: String,
) -> Result<(), GatewayError> {
    Err(GatewayError::Field {
        field: field.into(),
        problem,
        reason,
    })
}

/// A key that names one record.
pub fn key(field: &'static str, key: &[u8], options: &KeyspaceOptions) -> Result<(), GatewayError> {
    if key.is_empty() {
        return refused(
            field,
            Reason::KeyEmpty,
            "a key has at least 1 byte".to_owned(),
        );
    }
    within_length(field, key, options.key_max_bytes as usize)
}

/// A prefix or the bound of an interval: a key that may be empty, and one byte longer, since the
/// first bound above the longest key is.
pub fn bound(
    field: &'static str,
    key: &[u8],
    options: &KeyspaceOptions,
) -> Result<(), GatewayError> {
    within_length(field, key, options.key_max_bytes as usize + 1)
}

fn within_length(field: &'static str, key: &[u8], max: usize) -> Result<(), GatewayError> {
    if key.len() <= max {
        return Ok(());
    }
    let problem = format!(
        "{} bytes are above the keyspace's limit of {max}",
        key.len()
    );
    refused(field, Reason::KeyTooLong, problem)
}

/// A value.
pub fn value(
    field: &'static str,
    value: &[u8],
    options: &KeyspaceOptions,
) -> Result<(), GatewayError> {
    let max = options.value_max_bytes as usize;
    if value.len() <= max {
        return Ok(());
    }
    let problem = format!(
        "{} bytes are above the keyspace's limit of {max}",
        value.len()
    );
    refused(field, Reason::ValueTooLong, problem)
}

/// A time to live in microseconds, from a request's or the keyspace's; zero: none.
pub fn ttl(
    field: &'static str,
    ttl_ms: u64,
    options: &KeyspaceOptions,
) -> Result<u64, GatewayError> {
    let ttl = match (ttl_ms, options.ttl_default) {
        (0, None) => return Ok(0),
        (0, Some(ttl)) => ttl,
        (millis, _) => Duration::from_millis(millis),
    };
    if ttl > TTL_MAX {
        let problem = format!(
            "{ttl_ms} ms are above the limit of {}; what should live longer has none",
            format_duration(TTL_MAX)
        );
        refused(field, Reason::FieldInvalid, problem)?;
    }
    Ok(u64::try_from(ttl.as_micros()).unwrap_or(u64::MAX))
}

/// The name of a write that its client chose; `None`: it chose none.
pub fn request_id(
    id: Option<&v1::RequestId>,
    now: Timestamp,
) -> Result<Option<(RequestId, Timestamp)>, GatewayError> {
    let Some(id) = id else { return Ok(None) };
    let invalid = |field, problem: &str| refused(field, Reason::FieldInvalid, problem.to_owned());
    if id.client == 0 {
        invalid(
            "request_id.client",
            "0 names no client; draw a random number once",
        )?;
    }
    if id.sequence == 0 {
        invalid("request_id.sequence", "sequences begin with 1")?;
    }
    if id.first_tried == 0 {
        invalid(
            "request_id.first_tried",
            "say when the first attempt was made, in microseconds",
        )?;
    }
    // A stamp from the future would pass the floor under which forgotten writes are refused.
    let latest = now
        .saturating_add(CLOCK_OFFSET_MAX)
        .saturating_add(CLOCK_OFFSET_MAX);
    if id.first_tried > latest.0 {
        let problem = format!("{} lies in the future; now is {now}", id.first_tried);
        refused("request_id.first_tried", Reason::ClockOffset, problem)?;
    }
    let name = RequestId {
        client: ClientId(id.client),
        sequence: id.sequence,
    };
    Ok(Some((name, Timestamp(id.first_tried))))
}

/// Rows and bytes of one page; zero: the server's limit.
pub fn page(limit: u32, bytes_max: u32) -> Result<(usize, usize), GatewayError> {
    let within = |field, given: u32, max: usize| -> Result<usize, GatewayError> {
        let given = given as usize;
        if given > max {
            refused(
                field,
                Reason::FieldInvalid,
                format!("{given} is above the limit of {max}; page on with next_page_token"),
            )?;
        }
        Ok(if given == 0 { max } else { given })
    };
    Ok((
        within("limit", limit, SCAN_ROWS_MAX)?,
        within("bytes_max", bytes_max, SCAN_BYTES_MAX)?,
    ))
}

/// How many versions of a key's history; zero: the server's limit.
pub fn history_limit(limit: u32) -> Result<usize, GatewayError> {
    match limit as usize {
        0 => Ok(HISTORY_ENTRIES_MAX),
        given if given <= HISTORY_ENTRIES_MAX => Ok(given),
        given => {
            let problem = format!("{given} is above the limit of {HISTORY_ENTRIES_MAX}");
            Err(GatewayError::field("limit", problem))
        }
    }
}

/// The operations of a batch.
pub fn batch(operations: &[v1::Operation], options: &KeyspaceOptions) -> Result<(), GatewayError> {
    count("operations", operations.len(), BATCH_OPERATIONS_MAX)?;
    all_of("operations", operations, options)
}

/// The compares and operations of a transaction.
pub fn transaction(
    request: &v1::TxnRequest,
    options: &KeyspaceOptions,
) -> Result<(), GatewayError> {
    count("compare", request.compare.len(), TXN_OPERATIONS_MAX)?;
    count("then", request.then.len(), TXN_OPERATIONS_MAX)?;
    count("otherwise", request.otherwise.len(), TXN_OPERATIONS_MAX)?;
    for (at, compare) in request.compare.iter().enumerate() {
        within("compare", at, key("key", &compare.key, options))?;
        within(
            "compare",
            at,
            expect("expect", compare.expect.as_ref()).map(|_| ()),
        )?;
    }
    all_of("then", &request.then, options)?;
    all_of("otherwise", &request.otherwise, options)
}

/// The state that a compare names.
pub fn expect<'a>(
    field: &'static str,
    expect: Option<&'a v1::Expect>,
) -> Result<&'a v1::expect::State, GatewayError> {
    use v1::expect::State;
    let wanted = "say one of revision (above 0), value, absent: true, present: true";
    match expect.and_then(|expect| expect.state.as_ref()) {
        Some(State::Revision(0) | State::Absent(false) | State::Present(false)) | None => {
            Err(GatewayError::field(field, wanted))
        }
        Some(state) => Ok(state),
    }
}

fn count(field: &'static str, count: usize, max: usize) -> Result<(), GatewayError> {
    if count <= max {
        return Ok(());
    }
    refused(
        field,
        Reason::FieldInvalid,
        format!("{count} are above the limit of {max}"),
    )
}

fn all_of(
    list: &'static str,
    operations: &[v1::Operation],
    options: &KeyspaceOptions,
) -> Result<(), GatewayError> {
    let mut bytes = 0;
    for (at, operation) in operations.iter().enumerate() {
        within(list, at, one_of(operation, options))?;
        bytes += operation_bytes(operation);
    }
    if bytes > OPERATIONS_MAX_BYTES {
        let problem = format!(
            "{bytes} bytes of keys and values are above the limit of {OPERATIONS_MAX_BYTES}"
        );
        refused(list, Reason::FieldInvalid, problem)?;
    }
    Ok(())
}

fn one_of(operation: &v1::Operation, options: &KeyspaceOptions) -> Result<(), GatewayError> {
    use v1::operation::Operation as Op;
    match &operation.operation {
        Some(Op::Put(put)) => {
            key("put.key", &put.key, options)?;
            value("put.value", &put.value, options)?;
            ttl("put.ttl_ms", put.ttl_ms, options).map(|_| ())
        }
        Some(Op::Delete(delete)) => key("delete.key", &delete.key, options),
        Some(Op::Get(get)) => key("get.key", &get.key, options),
        None => Err(GatewayError::field(
            "operation",
            "say one of put, delete, get",
        )),
    }
}

/// The key of a valid operation.
pub fn operation_key(operation: &v1::Operation) -> Bytes {
    use v1::operation::Operation as Op;
    match &operation.operation {
        Some(Op::Put(put)) => put.key.clone(),
        Some(Op::Delete(delete)) => delete.key.clone(),
        Some(Op::Get(get)) => get.key.clone(),
        None => Bytes::new(),
    }
}

/// Bytes of key and value that an operation carries.
pub fn operation_bytes(operation: &v1::Operation) -> usize {
    use v1::operation::Operation as Op;
    match &operation.operation {
        Some(Op::Put(put)) => put.key.len() + put.value.len(),
        Some(Op::Delete(delete)) => delete.key.len(),
        Some(Op::Get(get)) => get.key.len(),
        None => 0,
    }
}

/// Puts the list and the place before a field's name.
pub(crate) fn within(
    list: &'static str,
    at: usize,
    result: Result<(), GatewayError>,
) -> Result<(), GatewayError> {
    result.map_err(|error| match error {
        GatewayError::Field {
            field,
            problem,
            reason,
        } => GatewayError::Field {
            field: format!("{list}[{at}].{field}").into(),
            problem,
            reason,
        },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn options() -> KeyspaceOptions {
        KeyspaceOptions {
            key_max_bytes: 8,
            value_max_bytes: 16,
            ..KeyspaceOptions::default()
        }
    }

    fn check(result: Result<(), GatewayError>, reason: Reason, words: &[&str]) {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Some(reason));
        for word in words {
            assert!(error.to_string().contains(word), "`{error}` lacks `{word}`");
        }
    }

    #[test]
    fn keys_and_values() {
        check(key("key", b"", &options()), Reason::KeyEmpty, &["key"]);
        check(
            key("key", b"123456789", &options()),
            Reason::KeyTooLong,
            &["9 bytes", "8"],
        );
        check(
            value("value", &[0; 17], &options()),
            Reason::ValueTooLong,
            &["17", "16"],
        );
        assert!(key("key", &[0xff, 0], &options()).is_ok());
        assert!(bound("prefix", b"", &options()).is_ok());
        assert!(value("value", b"", &options()).is_ok());
    }

    #[test]
    fn times_to_live() {
        assert_eq!(ttl("ttl_ms", 0, &options()).unwrap(), 0);
        assert_eq!(ttl("ttl_ms", 5, &options()).unwrap(), 5000);
        let default = KeyspaceOptions {
            ttl_default: Some(Duration::from_secs(1)),
            ..options()
        };
        assert_eq!(ttl("ttl_ms", 0, &default).unwrap(), 1_000_000);
        check(
            ttl("ttl_ms", u64::MAX, &options()).map(|_| ()),
            Reason::FieldInvalid,
            &["ttl_ms"],
        );
    }

    #[test]
    fn request_names() {
        let now = Timestamp::from_millis(1000);
        let id = |client, sequence, first_tried| {
            request_id(
                Some(&v1::RequestId {
                    client,
                    sequence,
                    first_tried,
                }),
                now,
            )
        };
        assert!(request_id(None, now).unwrap().is_none());
        assert!(id(1, 1, 1).unwrap().is_some());
        for (refused, field) in [
            (id(0, 1, 1), "request_id.client"),
            (id(1, 0, 1), "request_id.sequence"),
            (id(1, 1, 0), "request_id.first_tried"),
            (id(1, 1, u64::MAX), "request_id.first_tried"),
        ] {
            assert!(refused.unwrap_err().to_string().starts_with(field));
        }
    }

    #[test]
    fn pages() {
        assert_eq!(page(0, 0).unwrap(), (SCAN_ROWS_MAX, SCAN_BYTES_MAX));
        assert_eq!(page(7, 9).unwrap(), (7, 9));
        check(
            page(1_000_000, 0).map(|_| ()),
            Reason::FieldInvalid,
            &["limit", "10000"],
        );
        check(
            page(0, u32::MAX).map(|_| ()),
            Reason::FieldInvalid,
            &["bytes_max"],
        );
    }

    #[test]
    fn a_bad_operation_is_named_by_its_place() {
        use v1::operation::{Operation as Op, Put};
        let put = |key: &'static [u8]| v1::Operation {
            operation: Some(Op::Put(Put {
                key: key.into(),
                ..Put::default()
            })),
        };
        check(
            batch(&[put(b"a"), put(b"")], &options()),
            Reason::KeyEmpty,
            &["operations[1].put.key"],
        );
        let empty = v1::Operation { operation: None };
        check(
            batch(&[empty], &options()),
            Reason::FieldInvalid,
            &["operations[0].operation"],
        );
        let many = vec![put(b"a"); BATCH_OPERATIONS_MAX + 1];
        check(batch(&many, &options()), Reason::FieldInvalid, &["4096"]);
        let txn = v1::TxnRequest {
            compare: vec![v1::Compare {
                key: "a".into(),
                expect: None,
            }],
            ..v1::TxnRequest::default()
        };
        check(
            transaction(&txn, &options()),
            Reason::FieldInvalid,
            &["compare[0].expect"],
        );
    }
}
