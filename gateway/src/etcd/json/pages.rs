//! What etcd's port says of itself over plain HTTP: `/version`, `/health`, `/livez`, `/readyz`.

use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use quorate_proto::internal::EtcdLook;
use serde_json::json;
use tokio::time::Instant;

use super::JSON;
use crate::etcd::maintenance::ETCD_VERSION;
use crate::etcd::{EtcdStore, TIMEOUT_DEFAULT};

/// A check of health, and whether it asks a majority.
#[derive(Clone, Copy, Debug)]
struct Check {
    name: &'static str,
    linearizable: bool,
}

const LOCAL: Check = Check {
    name: "serializable_read",
    linearizable: false,
};
const MAJORITY: Check = Check {
    name: "linearizable_read",
    linearizable: true,
};

/// The page at a path, if there is one.
pub(super) async fn show(store: &EtcdStore, parts: &Parts) -> Option<Response> {
    let path = parts.uri.path();
    let checks: &[Check] = match path {
        "/version" | "/health" => &[],
        "/livez" | "/livez/serializable_read" | "/readyz/serializable_read" => &[LOCAL],
        "/readyz" => &[LOCAL, MAJORITY],
        "/readyz/linearizable_read" => &[MAJORITY],
        _ => return None,
    };
    let query: Vec<&str> = parts.uri.query().unwrap_or_default().split('&').collect();
    Some(match path {
        _ if parts.method != Method::GET => not_allowed(),
        "/version" => version(),
        "/health" => health(store, query.contains(&"serializable=true")).await,
        _ => checked(store, checks, &query).await,
    })
}

/// Nothing is there.
pub(super) fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

fn not_allowed() -> Response {
    let code = StatusCode::METHOD_NOT_ALLOWED;
    (code, [(ALLOW, "GET")], "Method Not Allowed\n").into_response()
}

fn version() -> Response {
    let versions = json!({
        "etcdserver": ETCD_VERSION,
        "etcdcluster": ETCD_VERSION,
        "storage": ETCD_VERSION,
    });
    ([(CONTENT_TYPE, JSON)], versions.to_string()).into_response()
}

async fn health(store: &EtcdStore, serializable: bool) -> Response {
    match look(store, !serializable).await {
        Ok(()) => json!({ "health": "true", "reason": "" })
            .to_string()
            .into_response(),
        Err(why) => {
            let reason = format!("RANGE ERROR:{why}");
            let health = json!({ "health": "false", "reason": reason });
            (StatusCode::SERVICE_UNAVAILABLE, format!("{health}\n")).into_response()
        }
    }
}

/// A page of checks: how each went if that is asked for, or one failed.
async fn checked(store: &EtcdStore, checks: &[Check], query: &[&str]) -> Response {
    let excluded = |check: &&Check| !query.contains(&&*format!("exclude={}", check.name));
    let mut lines = String::new();
    let mut is_well = true;
    for check in checks.iter().filter(excluded) {
        match look(store, check.linearizable).await {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
            Err(why) => {
                lines.push_str(&format!("[-]{} failed: {why}\n", check.name));
                is_well = false;
            }
        }
    }
    let is_verbose = query.iter().any(|word| word.starts_with("verbose"));
    match is_well {
        true if is_verbose => format!("{lines}ok\n").into_response(),
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, lines).into_response(),
    }
}

async fn look(store: &EtcdStore, linearizable: bool) -> Result<(), String> {
    let look = EtcdLook {
        linearizable,
        ..EtcdLook::default()
    };
    let looked = store.look(look, Instant::now() + TIMEOUT_DEFAULT).await;
    looked
        .map(|_| ())
        .map_err(|status| status.message().to_owned())
}
