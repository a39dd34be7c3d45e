//! Streamed ranges show what a range of one answer shows, whatever the limit, here and in etcd.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcd::etcdserverpb::{
    PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, request_op,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::servers::{find, start_etcd, start_quorate};

/// A store serves by then.
const WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// More than two pages.
const ROWS: i64 = 2_500;
/// Puts of one transaction: etcd takes 128.
const PUTS: i64 = 100;
const LIMITS: [i64; 9] = [0, 1, 999, 1_000, 1_001, 2_000, 2_499, 2_500, 2_501];

/// Waits for a store that has just been started.
pub async fn connect(endpoint: &str) -> KvClient<Channel> {
    let endpoint = Endpoint::from_shared(endpoint.to_owned()).unwrap();
    let connecting = async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return KvClient::new(channel),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    };
    let connected = tokio::time::timeout(WITHIN, connecting).await;
    connected.unwrap_or_else(|_| panic!("no connection within {WITHIN:?}"))
}

async fn fill(client: &mut KvClient<Channel>) {
    for first in (0..ROWS).step_by(PUTS as usize) {
        let put = |row: i64| RequestOp {
            request: Some(request_op::Request::RequestPut(PutRequest {
                key: Bytes::from(format!("row/{row:05}")),
                value: Bytes::from(row.to_string()),
                ..PutRequest::default()
            })),
        };
        let txn = TxnRequest {
            success: (first..first + PUTS).map(put).collect(),
            ..TxnRequest::default()
        };
        client.txn(txn).await.unwrap();
    }
}

/// All parts as one answer, without its header; and how many parts there were.
async fn streamed(
    client: &mut KvClient<Channel>,
    request: RangeRequest,
) -> Result<(RangeResponse, usize), Status> {
    let mut stream = client.range_stream(request).await?.into_inner();
    let (mut all, mut parts) = (RangeResponse::default(), 0);
    while let Some(part) = stream.message().await? {
        let mut part = part.range_response.unwrap();
        parts += 1;
        all.kvs.append(&mut part.kvs);
        all.count = part.count;
        all.more = part.more;
    }
    Ok((all, parts))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_range_shows_what_a_range_shows() {
    let quorate = start_quorate();
    let mut client = connect(&quorate.endpoints[0]).await;
    fill(&mut client).await;
    let etcd = find("etcd", "QUORATE_ETCD").map(|program| start_etcd(&program));
    let mut other = None;
    if let Some(etcd) = &etcd {
        let mut client = connect(&etcd.endpoints[0]).await;
        fill(&mut client).await;
        other = Some(client);
    }
    for limit in LIMITS {
        let request = RangeRequest {
            key: Bytes::from_static(b"row/"),
            range_end: Bytes::from_static(b"row0"),
            limit,
            ..RangeRequest::default()
        };
        let whole = client.range(request.clone()).await.unwrap().into_inner();
        let whole = RangeResponse {
            header: None,
            ..whole
        };
        let (all, parts) = streamed(&mut client, request.clone()).await.unwrap();
        assert_eq!(all, whole, "limit {limit}");
        assert!(parts >= all.kvs.len().div_ceil(1_000), "{parts} parts");
        let Some(other) = &mut other else { continue };
        match streamed(other, request).await {
            Ok((told, _)) => assert_eq!(all, told, "limit {limit}, beside etcd"),
            // An etcd of before 3.7.
            Err(status) => assert_eq!(status.code(), Code::Unimplemented, "{status}"),
        }
    }
}
