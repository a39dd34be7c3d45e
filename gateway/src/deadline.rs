//! When a request must be answered: from gRPC's `grpc-timeout` header, a pipeline request's
//! `timeout_ms`, or the default. Not here: waiting (each step does, with the deadline in hand).

use std::time::Duration;

use quorate_types::limits::{TIMEOUT_DEFAULT, TIMEOUT_MAX_SECONDS};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::errors::GatewayError;

/// gRPC's header.
pub const TIMEOUT_HEADER: &str = "grpc-timeout";
/// Most digits of its value, by gRPC's own rule.
const TIMEOUT_DIGITS_MAX: usize = 8;
/// The part of the time that is kept back so that the answer can still reach the client.
const ANSWER_SHARE: u32 = 20;
/// Kept back at the most.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(50);

/// The deadline of a unary call.
///
/// # Errors
///
/// A header that gRPC does not define, or more than [`TIMEOUT_MAX_SECONDS`].
pub fn of_call(metadata: &MetadataMap, now: Instant) -> Result<Instant, GatewayError> {
    let Some(value) = metadata.get(TIMEOUT_HEADER) else {
        return Ok(now + TIMEOUT_DEFAULT);
    };
    let timeout = value.to_str().ok().and_then(parse_header).ok_or_else(|| {
        let problem = "not a timeout: 1 to 8 digits and one of H, M, S, m, u, n, never negative";
        GatewayError::field(TIMEOUT_HEADER, problem)
    })?;
    within_limit(TIMEOUT_HEADER, timeout)?;
    Ok(now + less_answer_time(timeout))
}

/// The deadline of a request on a pipeline.
///
/// # Errors
///
/// More than [`TIMEOUT_MAX_SECONDS`].
pub fn of_pipelined(timeout_ms: u32, now: Instant) -> Result<Instant, GatewayError> {
    if timeout_ms == 0 {
        return Ok(now + TIMEOUT_DEFAULT);
    }
    let timeout = Duration::from_millis(u64::from(timeout_ms));
    within_limit("timeout_ms", timeout)?;
    Ok(now + timeout)
}

fn within_limit(field: &'static str, timeout: Duration) -> Result<(), GatewayError> {
    let max = Duration::from_secs(TIMEOUT_MAX_SECONDS);
    if timeout <= max {
        return Ok(());
    }
    let problem = format!(
        "{} s is above the limit of {TIMEOUT_MAX_SECONDS} s",
        timeout.as_secs()
    );
    Err(GatewayError::field(field, problem))
}

fn less_answer_time(timeout: Duration) -> Duration {
    timeout - (timeout / ANSWER_SHARE).min(ANSWER_TIME_MAX)
}

/// Digits and a unit, as the gRPC-over-HTTP/2 specification has it.
fn parse_header(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > TIMEOUT_DIGITS_MAX {
        return None;
    }
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn given(header: &str) -> Result<Duration, String> {
        let mut metadata = MetadataMap::new();
        metadata.insert(TIMEOUT_HEADER, header.parse().unwrap());
        let now = Instant::now();
        of_call(&metadata, now)
            .map(|at| at - now)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn headers_as_grpc_has_them() {
        assert_eq!(given("5S"), Ok(Duration::from_millis(4950)));
        assert_eq!(given("100m"), Ok(Duration::from_millis(95)));
        assert_eq!(given("0S"), Ok(Duration::ZERO));
        assert_eq!(given("1H"), Ok(Duration::from_millis(3_599_950)));
        for refused in ["-5S", "5", "S", "5s", "123456789S", "1.5S", ""] {
            assert!(
                given(refused).unwrap_err().contains(TIMEOUT_HEADER),
                "{refused}"
            );
        }
    }

    #[test]
    fn huge_timeouts_name_the_limit() {
        assert!(given("2H").unwrap_err().contains("3600 s"));
        assert!(given("99999999H").unwrap_err().contains("3600 s"));
        let error = of_pipelined(u32::MAX, Instant::now()).unwrap_err();
        assert!(error.to_string().starts_with("timeout_ms"));
    }

    #[test]
    fn none_is_the_default() {
        let now = Instant::now();
        assert_eq!(
            of_call(&MetadataMap::new(), now).unwrap() - now,
            TIMEOUT_DEFAULT
        );
        assert_eq!(of_pipelined(0, now).unwrap() - now, TIMEOUT_DEFAULT);
    }
}
