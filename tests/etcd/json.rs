//! The JSON gateway: the same HTTP requests to etcd and to Quorate, answers compared.
//!
//! Masked: ids of the cluster, its members and leases that a server has drawn, terms; the words of
//! errors about JSON itself. Of calls that show sizes, hashes or members, only the status is compared.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::plain::{Answer, answer, begin, more, send};
use crate::servers::{Server, find, start_etcd, start_quorate};

/// A store serves by then.
const WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What of an answer is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Status, kind of content, and all fields.
    Whole,
    /// Status and the error's code.
    Error,
    /// The status.
    Status,
    /// As `Whole`, line by line.
    Lines,
}

use Kind::{Error, Lines, Status, Whole};

/// `a` is `YQ==`, `b` is `Yg==`, `k` is `aw==`, `1` is `MQ==`.
const CALLS: &[(&str, &str, Kind)] = &[
    ("kv/put", r#"{"key":"YQ==","value":"MQ=="}"#, Whole),
    (
        "kv/put",
        r#"{"key":"YQ","value":"MQ","prevKv":true}"#,
        Whole,
    ),
    (
        "kv/put",
        r#"{"key":"Yg==","prev_kv":true,"unknown":{"x":[1]}}"#,
        Whole,
    ),
    ("kv/put", r#"{"key":"_-8=","value":"/+8="}"#, Whole),
    (
        "kv/put",
        r#"{"key":"YQ==","ignore_value":true,"value":"MQ=="}"#,
        Whole,
    ),
    ("kv/put", r#"{"value":"MQ=="}"#, Whole),
    ("kv/put", r#"{"key":"YQ==","lease":"77"}"#, Whole),
    ("kv/range", r#"{"key":"YQ=="}"#, Whole),
    (
        "kv/range",
        r#"{"key":"YQ=="} {"key":"Yg=="} and more"#,
        Whole,
    ),
    ("kv/range", r#"{"key":"AA==","range_end":"AA=="}"#, Whole),
    (
        "kv/range",
        r#"{"key":"AA==","rangeEnd":"AA==","limit":1,"sort_order":"DESCEND","sortTarget":"VERSION"}"#,
        Whole,
    ),
    (
        "kv/range",
        r#"{"key":"AA==","range_end":"AA==","limit":"1","keys_only":true,"serializable":true}"#,
        Whole,
    ),
    (
        "kv/range",
        r#"{"key":"AA==","range_end":"AA==","count_only":true}"#,
        Whole,
    ),
    (
        "kv/range",
        r#"{"key":"YQ==","revision":"2","sort_order":"NO","key_only":null}"#,
        Whole,
    ),
    ("kv/range", r#"{"key":"YQ==","revision":2e0}"#, Whole),
    ("kv/range", r#"{"key":"YQ==","revision":900}"#, Whole),
    ("kv/range", r#"{"key":"bm9uZQ=="}"#, Whole),
    ("kv/range", r#"{"key":"YQ==","sort_order":17}"#, Whole),
    ("kv/range", "", Whole),
    ("kv/range", "{}", Whole),
    ("kv/range", r#"{"key":null}"#, Whole),
    ("kv/range", r#"{"key":"YQ==""#, Whole),
    ("kv/range", r#"{"key":"*"}"#, Error),
    ("kv/range", r#"{"key":"Zg==="}"#, Error),
    ("kv/range", r#"{"key":5}"#, Error),
    ("kv/range", r#"{"key":"YQ==","limit":"x"}"#, Error),
    ("kv/range", r#"{"key":"YQ==","limit":1.5}"#, Error),
    ("kv/range", r#"{"key":"YQ==","serializable":"true"}"#, Error),
    ("kv/range", r#"{"key":"YQ==",}"#, Error),
    ("kv/range", "[]", Error),
    ("kv/range", "null", Error),
    ("kv/range", "garbage", Error),
    (
        "kv/txn",
        r#"{"compare":[{"target":"VALUE","key":"YQ==","result":"EQUAL","value":"MQ=="},
            {"target":"MOD","key":"YQ==","mod_revision":0,"result":"GREATER"}],
            "success":[{"request_put":{"key":"dA==","value":""}},{"requestRange":{"key":"YQ=="}},
            {"request_delete_range":{"key":"bm9uZQ=="}}],"failure":[]}"#,
        Whole,
    ),
    (
        "kv/txn",
        r#"{"compare":[{"target":"CREATE","key":"YQ==","createRevision":"0"}],
            "failure":[{"request_range":{"key":"bm9uZQ=="}}]}"#,
        Whole,
    ),
    (
        "kv/txn",
        r#"{"success":[{"request_put":{"key":"dA=="}},{"request_put":{"key":"dA=="}}]}"#,
        Whole,
    ),
    (
        "kv/txn",
        r#"{"success":[{"request_put":{"key":"dA=="},"request_range":{"key":"dA=="}}]}"#,
        Error,
    ),
    ("kv/deleterange", r#"{"key":"dA==","prev_kv":true}"#, Whole),
    ("kv/deleterange", r#"{"key":"dA=="}"#, Whole),
    (
        "watch",
        r#"{"create_request":{"key":"YQ==","start_revision":"-5"}}"#,
        Lines,
    ),
    (
        "watch",
        r#"{"create_request":{"key":"YQ==","start_revision":"2","prev_kv":true}}"#,
        Lines,
    ),
    (
        "kv/compaction",
        r#"{"revision":"3","physical":true}"#,
        Whole,
    ),
    ("kv/compaction", r#"{"revision":"3"}"#, Whole),
    ("kv/compaction", r#"{"revision":"900"}"#, Whole),
    ("kv/range", r#"{"key":"YQ==","revision":"2"}"#, Whole),
    ("lease/grant", r#"{"ID":"99","TTL":"600"}"#, Whole),
    ("lease/grant", r#"{"ID":"99","TTL":"600"}"#, Whole),
    ("lease/grant", r#"{"TTL":"9000000001"}"#, Whole),
    ("kv/put", r#"{"key":"aw==","lease":99}"#, Whole),
    ("lease/keepalive", r#"{"ID":"99"}"#, Lines),
    ("lease/keepalive", r#"{"ID":"99"}{"ID":"98"}"#, Lines),
    ("lease/timetolive", r#"{"ID":"97","keys":true}"#, Whole),
    ("kv/lease/timetolive", r#"{"ID":"97"}"#, Whole),
    ("lease/leases", "", Whole),
    ("kv/lease/leases", "{}", Whole),
    ("election/leader", r#"{"name":"ZQ=="}"#, Whole),
    (
        "election/campaign",
        r#"{"name":"ZQ==","value":"MQ==","lease":"99"}"#,
        Whole,
    ),
    ("election/leader", r#"{"name":"ZQ=="}"#, Whole),
    ("election/observe", r#"{"name":"ZQ=="}"#, Lines),
    ("election/observe", r#"{"name":5}"#, Error),
    ("election/proclaim", "{}", Whole),
    ("election/resign", "{}", Whole),
    ("lock/lock", r#"{"name":"bA==","lease":99}"#, Whole),
    ("lock/unlock", r#"{"key":"bC82Mw=="}"#, Whole),
    ("lock/lock", r#"{"name":"bA==","lease":98}"#, Whole),
    ("kv/lease/revoke", r#"{"ID":"99"}"#, Whole),
    ("lease/revoke", r#"{"ID":"99"}"#, Whole),
    ("maintenance/alarm", "{}", Whole),
    ("maintenance/status", "{}", Status),
    ("maintenance/hash", "{}", Status),
    ("maintenance/hashkv", "{}", Status),
    ("maintenance/defragment", "{}", Status),
    ("maintenance/snapshot", "{}", Status),
    ("cluster/member/list", r#"{"linearizable":true}"#, Status),
    ("auth/status", "{}", Whole),
    ("kv/nothing", "{}", Whole),
    ("kv/range/", r#"{"key":"YQ=="}"#, Whole),
    ("", "{}", Whole),
];

/// Requests that are no calls, or no proper ones.
const PAGES: &[(&str, Kind)] = &[
    ("GET /v3/kv/range", Whole),
    ("PUT /v3/kv/range", Whole),
    ("POST /v3/lease/leases?query=1", Whole),
    ("GET /health", Whole),
    ("GET /health?serializable=true", Whole),
    ("POST /health", Whole),
    ("GET /livez", Whole),
    ("GET /livez?verbose", Whole),
    ("GET /livez/serializable_read", Whole),
    ("GET /readyz", Whole),
    ("GET /readyz/linearizable_read?verbose", Whole),
    ("GET /readyz/none", Whole),
    ("GET /version", Status),
    ("POST /version", Whole),
    ("GET /", Whole),
    ("POST /nothing", Whole),
];

/// Waits for a store that has just been started.
fn ready(server: &Server) -> &str {
    let endpoint = &server.endpoints[0];
    let over = Instant::now() + WITHIN;
    loop {
        if send(endpoint, "GET /health", "").is_ok_and(|answer| answer.status == 200) {
            return endpoint;
        }
        assert!(Instant::now() < over, "{endpoint} does not serve");
        std::thread::sleep(POLL);
    }
}

fn masked(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| match &name[..] {
                "cluster_id" | "member_id" | "raft_term" => (name, Value::from("MASKED")),
                _ => (name, masked(value)),
            })
            .collect(),
        Value::Array(values) => values.into_iter().map(masked).collect(),
        value => value,
    }
}

/// JSON without what is masked; else the text.
fn read(text: &str) -> Value {
    serde_json::from_str(text).map_or_else(|_| Value::from(text), masked)
}

/// What is compared of an answer.
fn seen(mut answer: Answer, kind: Kind) -> std::io::Result<Value> {
    let status = answer.status;
    // Only a stream that ends by itself is read to its end.
    let body = match kind {
        Lines => answer.lines(1)?.iter().map(|line| read(line)).collect(),
        Status => return Ok(Value::from(status)),
        Whole | Error => {
            let kind = std::mem::take(&mut answer.kind);
            let body = read(&answer.text()?);
            Value::from(vec![Value::from(kind), body])
        }
    };
    let body = match kind {
        Error => body[1]["code"].clone(),
        Whole | Status | Lines => body,
    };
    Ok(Value::from(vec![Value::from(status), body]))
}

#[test]
fn the_json_gateway_answers_as_etcds_does() {
    let Some(etcd) = find("etcd", "QUORATE_ETCD") else {
        return;
    };
    let (etcd, quorate) = (start_etcd(&etcd), start_quorate());
    let sides = [ready(&etcd), ready(&quorate)];
    let calls = CALLS
        .iter()
        .map(|(path, body, kind)| (format!("POST /v3/{path}"), *body, *kind));
    let pages = PAGES
        .iter()
        .map(|(head, kind)| (head.to_string(), "", *kind));
    let mut different = 0;
    for (head, body, kind) in calls.chain(pages) {
        let [wanted, found] = sides.map(|side| {
            let answer = send(side, &head, body).and_then(|answer| seen(answer, kind));
            answer.unwrap_or_else(|error| panic!("{head} {body}: {error}"))
        });
        if wanted != found {
            different += 1;
            eprintln!("DIFFERENT: {head} {body}\netcd: {wanted}\nQuorate: {found}\n");
        }
    }
    let all = CALLS.len() + PAGES.len();
    assert_eq!(different, 0, "of {all} requests, see above");
    eprintln!("{all} requests, no difference");
}

/// What one watch is told while others write; and a second one is made on the same stream.
fn watched(endpoint: &str) -> Vec<Value> {
    let first = r#"{"create_request":{"key":"dw==","prev_kv":true}}"#;
    let mut stream = begin(endpoint, "POST /v3/watch", first, true).unwrap();
    let mut answer = answer(stream.try_clone().unwrap()).unwrap();
    assert_eq!(answer.status, 200);
    let mut told = answer.lines(1).unwrap();
    for call in ["put", "put", "deleterange"] {
        let head = format!("POST /v3/kv/{call}");
        let done = send(endpoint, &head, r#"{"key":"dw=="}"#).unwrap();
        assert_eq!(done.status, 200);
        told.extend(answer.lines(1).unwrap());
    }
    more(&mut stream, "\n{\"createRequest\":").unwrap();
    more(&mut stream, r#"{"key":"dw==","watch_id":7}}"#).unwrap();
    told.extend(answer.lines(1).unwrap());
    more(&mut stream, r#"{"cancel_request":{"watch_id":"7"}}"#).unwrap();
    told.extend(answer.lines(1).unwrap());
    told.iter().map(|line| read(line)).collect()
}

/// A watch whose client has sent all that it wants to: it still listens.
fn listened(endpoint: &str) -> Vec<Value> {
    let only = r#"{"create_request":{"key":"bw=="}}"#;
    let mut answer = send(endpoint, "POST /v3/watch", only).unwrap();
    let mut told = answer.lines(1).unwrap();
    for _ in 0..2 {
        let done = send(endpoint, "POST /v3/kv/put", r#"{"key":"bw=="}"#).unwrap();
        assert_eq!(done.status, 200);
        told.extend(answer.lines(1).unwrap());
    }
    told.iter().map(|line| read(line)).collect()
}

/// Calls that take longer than their client gives them.
fn late(endpoint: &str) -> Value {
    let name = |lease: u8| format!(r#"{{"name":"bGF0ZQ==","lease":{lease}}}"#);
    for lease in [71, 72] {
        let grant = format!(r#"{{"ID":{lease},"TTL":600}}"#);
        let granted = send(endpoint, "POST /v3/lease/grant", &grant).unwrap();
        assert_eq!(granted.status, 200);
    }
    let held = send(endpoint, "POST /v3/lock/lock", &name(71)).unwrap();
    assert_eq!(held.status, 200);
    let head = "POST /v3/lock/lock\nGrpc-Timeout: 300m";
    let answer = send(endpoint, head, &name(72)).unwrap();
    seen(answer, Whole).unwrap()
}

#[test]
fn a_watch_over_json_is_told_line_by_line_and_a_late_call_ends() {
    let quorate = start_quorate();
    let mut found = watched(ready(&quorate));
    assert_eq!(found.len(), 6, "{found:#?}");
    assert_eq!(
        found[3]["result"]["events"][0]["type"], "DELETE",
        "{found:#?}"
    );
    let heard = listened(&quorate.endpoints[0]);
    assert_eq!(heard.len(), 3, "{heard:#?}");
    found.extend(heard);
    let bad = begin(&quorate.endpoints[0], "POST /v3/watch", "{\"create", false).unwrap();
    let bad = answer(bad).unwrap();
    assert_eq!(bad.status, 400);
    let text = bad.text().unwrap();
    assert_eq!(
        text,
        "{\"error\":{\"code\":3,\"message\":\"unexpected EOF\"}}\n"
    );
    let ended = late(&quorate.endpoints[0]);
    assert_eq!((&ended[0], &ended[1][1]["code"]), (&504.into(), &4.into()));
    let Some(etcd) = find("etcd", "QUORATE_ETCD") else {
        return;
    };
    let etcd = start_etcd(&etcd);
    let mut wanted = watched(ready(&etcd));
    wanted.extend(listened(&etcd.endpoints[0]));
    assert_eq!(found, wanted);
    assert_eq!(ended, late(&etcd.endpoints[0]));
}
