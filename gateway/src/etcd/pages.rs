//! Many keys of an etcd keyspace, read page by page as of one revision: nobody holds them all.

use bytes::Bytes;
use quorate_proto::etcd::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_proto::internal::etcd_call::Call;
use tokio::time::Instant;
use tonic::Status;

use super::EtcdStore;

/// Rows of one page.
const PAGE_ROWS: i64 = 1_000;

/// A range in the order of its keys, of which pages are asked for when they are wanted.
#[derive(Debug)]
pub(super) struct Pages {
    next: Option<RangeRequest>,
    /// As of which revision all of it is read. 0: not known yet.
    pub(super) revision: i64,
    /// Rows of all pages; 0: all there are.
    limit: i64,
    sent: i64,
}

/// One page.
#[derive(Debug)]
pub(super) struct Page {
    /// As etcd answers a range; what it counts are the rows of all pages so far and, in the last
    /// one, those behind the limit.
    pub(super) response: RangeResponse,
    /// Nothing follows.
    pub(super) is_last: bool,
}

impl Pages {
    /// What a request asks for. Its limit is one over all pages.
    pub(super) fn new(request: RangeRequest) -> Pages {
        Pages {
            revision: request.revision.max(0),
            limit: request.limit.max(0),
            next: Some(request),
            sent: 0,
        }
    }

    /// All rows of a store; revision 0: the newest.
    pub(super) fn all(revision: i64, serializable: bool) -> Pages {
        Pages::new(RangeRequest {
            key: Bytes::from_static(&[0]),
            range_end: Bytes::from_static(&[0]),
            revision,
            serializable,
            ..RangeRequest::default()
        })
    }

    /// Rows that are still allowed; none: all.
    fn left(&self) -> Option<i64> {
        (self.limit > 0).then(|| self.limit - self.sent)
    }

    /// The next page; none: the last one was there.
    ///
    /// # Errors
    ///
    /// As etcd's `Range`: also that what is read was compacted meanwhile.
    pub(super) async fn next(
        &mut self,
        store: &EtcdStore,
        deadline: Instant,
    ) -> Result<Option<Page>, Status> {
        let Some(mut request) = self.next.take() else {
            return Ok(None);
        };
        let call = match self.left() {
            // The last one, if there are so many: it tells how many there are behind it.
            Some(left) if left <= PAGE_ROWS => {
                request.limit = left;
                Call::Range(request.clone())
            }
            _ => {
                request.limit = PAGE_ROWS;
                Call::Page(request.clone())
            }
        };
        let mut response = store.read(call, deadline).await?;
        let rows = response.kvs.len() as i64;
        if self.revision == 0 {
            // The others are read as of the same moment.
            self.revision = response.header.as_ref().map_or(0, |header| header.revision);
        }
        response.count += self.sent;
        self.sent += rows;
        let is_last = !response.more || self.left() == Some(0);
        if let (false, Some(last)) = (is_last, response.kvs.last()) {
            request.key = Bytes::from([&last.key[..], &[0]].concat());
            request.revision = self.revision;
            self.next = Some(request);
        }
        Ok(Some(Page { response, is_last }))
    }
}
