//! What a read of many keys by etcd's API costs a server in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcd::etcdserverpb::{RangeRequest, RangeStreamResponse};
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use crate::error::CompareError;
use crate::process::{forget_peak, peak_bytes, resident_bytes};
use crate::store::Store;

/// Rows of a page, where the client asks for pages.
const PAGE_ROWS: i64 = 1_000;
/// Largest answer that this client takes: all keys at once are more than the usual limit.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// After so long, what was freed has been given back.
const SETTLE: Duration = Duration::from_secs(2);

/// How all keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reading {
    /// By one call that streams.
    Streamed,
    /// By one call a page.
    Pages,
    /// By one call, in one answer.
    Whole,
}

impl Reading {
    /// The cheapest first: what a server keeps of a dear one would hide what a cheap one needs.
    const ALL: [Reading; 3] = [Reading::Streamed, Reading::Pages, Reading::Whole];
}

/// Reads all keys of a store in each way, and tells by how much the memory of the node that grew
/// most did so meanwhile. A way that the store does not know is left out.
///
/// # Errors
///
/// A read that fails, or that shows fewer keys; a node that ends.
pub async fn measure_range<S: Store>(
    store: &S,
    keys: u64,
) -> Result<BTreeMap<Reading, u64>, CompareError> {
    let endpoint = store.etcd_endpoints().first().cloned().unwrap_or_default();
    let address = endpoint.trim_start_matches("http://");
    let failed = |source: Status| CompareError::Range {
        store: S::NAME,
        source: Box::new(source),
    };
    let channel = Endpoint::from_shared(format!("http://{address}"));
    let channel = async { channel?.connect().await }.await;
    let channel = channel.map_err(|error| failed(Status::from_error(Box::new(error))))?;
    let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    // What is read for the first time fills caches; that is not what is measured.
    read(&mut client, Reading::Pages).await.map_err(failed)?;
    let mut grown = BTreeMap::new();
    for reading in Reading::ALL {
        sleep(SETTLE).await;
        let mut before = BTreeMap::new();
        for &pid in store.pids() {
            forget_peak(pid).map_err(CompareError::io("reset a node's peak of memory"))?;
            before.insert(pid, resident(pid)?);
        }
        match read(&mut client, reading).await {
            // What told that the store serves is there, too.
            Ok(rows) if rows >= keys => {}
            Ok(rows) => {
                let problem = format!("{rows} of {keys} keys were shown");
                return Err(failed(Status::data_loss(problem)));
            }
            Err(status) if status.code() == Code::Unimplemented => continue,
            Err(status) => return Err(failed(status)),
        }
        let mut most = 0;
        for (pid, before) in before {
            let peak = peak_bytes(pid).map_err(CompareError::io("read a node's memory"))?;
            most = most.max(peak.saturating_sub(before));
        }
        grown.insert(reading, most);
    }
    Ok(grown)
}

fn resident(pid: u32) -> Result<u64, CompareError> {
    resident_bytes(pid).map_err(CompareError::io("read a node's memory"))
}

/// Reads all keys, and counts them.
async fn read(client: &mut KvClient<Channel>, reading: Reading) -> Result<u64, Status> {
    let all = RangeRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        ..RangeRequest::default()
    };
    match reading {
        Reading::Whole => Ok(client.range(all).await?.into_inner().kvs.len() as u64),
        Reading::Streamed => count(client.range_stream(all).await?.into_inner()).await,
        Reading::Pages => {
            let mut next = RangeRequest {
                limit: PAGE_ROWS,
                ..all
            };
            let mut rows = 0;
            loop {
                let page = client.range(next.clone()).await?.into_inner();
                rows += page.kvs.len() as u64;
                match page.kvs.last() {
                    Some(last) if page.more => next.key = [&last.key[..], &[0]].concat().into(),
                    _ => return Ok(rows),
                }
            }
        }
    }
}

async fn count(mut stream: Streaming<RangeStreamResponse>) -> Result<u64, Status> {
    let mut rows = 0;
    while let Some(part) = stream.message().await? {
        let part = part.range_response.unwrap_or_default();
        rows += part.kvs.len() as u64;
    }
    Ok(rows)
}
