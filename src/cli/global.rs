//! Flags that every command takes, and what they stand for: a client and an output.

use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;
use quorate_client::{Client, ClientOptions};
use quorate_types::limits::TIMEOUT_MAX_SECONDS;
use quorate_types::{parse_duration, validate_keyspace_name};

use super::error::CliError;
use super::output::{Format, Output};

/// Flags that every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalArgs {
    /// Nodes to ask, any of them serves any request
    #[arg(
        long,
        global = true,
        env = "QUORATE_ENDPOINTS",
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        default_value = "127.0.0.1:7450",
        value_parser = parse_endpoint
    )]
    endpoints: Vec<String>,
    /// Where the keys live
    #[arg(
        long,
        global = true,
        env = "QUORATE_KEYSPACE",
        value_name = "NAME",
        default_value = "default",
        value_parser = parse_keyspace
    )]
    keyspace: String,
    /// How long a request may take, retries included
    #[arg(
        long,
        global = true,
        env = "QUORATE_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        // A negative one is refused as a duration, not as a flag that nobody knows.
        allow_negative_numbers = true,
        value_parser = parse_timeout
    )]
    timeout: Duration,
    /// How results are written
    #[arg(
        long,
        short,
        global = true,
        env = "QUORATE_OUTPUT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    output: Format,
    /// Tell what was really delivered: level, node, replicas, times
    #[arg(
        long,
        global = true,
        env = "QUORATE_RECEIPT",
        value_parser = FalseyValueParser::new()
    )]
    receipt: bool,
}

/// What a command works with.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) output: Output,
}

impl GlobalArgs {
    /// How to connect.
    pub(super) fn client_options(&self) -> Result<ClientOptions, CliError> {
        let options = ClientOptions {
            endpoints: self.endpoints.clone(),
            keyspace: self.keyspace.clone(),
            timeout: self.timeout,
            ..ClientOptions::default()
        };
        options
            .validate()
            .map_err(|error| CliError::usage(error.to_string(), ""))?;
        Ok(options)
    }

    pub(super) fn output(&self) -> Output {
        Output::stdout(self.output, self.receipt)
    }

    /// A client and an output; nothing is connected before the first request.
    pub(super) fn session(&self) -> Result<Session, CliError> {
        Ok(Session {
            client: Client::connect(self.client_options()?)?,
            output: self.output(),
        })
    }
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    const WANTED: &str = "wanted: HOST:PORT, as in 127.0.0.1:7450 or [::1]:7450";
    let (host, port) = text.rsplit_once(':').ok_or(WANTED)?;
    if host.is_empty() || host.contains('/') {
        return Err(WANTED.to_owned());
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(text.to_owned()),
        _ => Err(format!("`{port}` is no port; {WANTED}")),
    }
}

fn parse_keyspace(text: &str) -> Result<String, String> {
    validate_keyspace_name(text).map_err(|error| error.problem)?;
    Ok(text.to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text).map_err(|error| error.to_string())?;
    if timeout < Duration::from_millis(1) || timeout > Duration::from_secs(TIMEOUT_MAX_SECONDS) {
        return Err(format!(
            "a timeout goes from 1ms to {}h",
            TIMEOUT_MAX_SECONDS / 3600
        ));
    }
    Ok(timeout)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        for text in ["127.0.0.1:7450", "[::1]:7450", "node-1.example:1"] {
            parse_endpoint(text).unwrap();
        }
        for text in ["", "localhost", ":1", "a:0", "a:70000", "http://a:1"] {
            assert!(parse_endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn timeouts_have_bounds() {
        parse_timeout("1h").unwrap();
        for text in ["0", "61m", "-1s", "5", "5 s"] {
            assert!(parse_timeout(text).is_err(), "{text}");
        }
    }
}
