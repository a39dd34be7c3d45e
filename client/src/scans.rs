//! Scans: page by page, or as a stream over pages at one revision.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use quorate_proto::v1;
use quorate_types::Revision;

use crate::answer::{Entry, ScanPage};
use crate::attempts::Call;
use crate::client::Client;
use crate::error::ClientError;
use crate::options::ScanOptions;
use crate::request::{Request, Response};

impl Client {
    /// Reads one page.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub async fn scan(&self, options: ScanOptions) -> Result<ScanPage, ClientError> {
        let request = Request::Scan(v1::ScanRequest {
            keyspace: self.keyspace.to_string(),
            prefix: options.prefix,
            start: options.start,
            end: options.end,
            reverse: options.reverse,
            keys_only: options.keys_only,
            limit: options.limit,
            bytes_max: options.bytes_max,
            at_revision: options.read.at.unwrap_or(Revision::ZERO).0,
            page_token: options.page_token,
            consistency: options.read.consistency()?,
        });
        match self.run(request, Call::read(options.read.timeout)).await? {
            Response::Scan(answer) => Ok(answer.into()),
            _ => Err(ClientError::malformed("that of a scan")),
        }
    }

    /// All pages of a scan, each read when the one before is used up. One snapshot: the
    /// first page picks the revision for all.
    pub fn scan_pages(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<ScanPage, ClientError>> + Send + 'static {
        let client = self.clone();
        stream::try_unfold(Some(options), move |options| {
            let client = client.clone();
            async move {
                let Some(options) = options else {
                    return Ok(None);
                };
                let page = client.scan(options.clone()).await?;
                let next = next_page(options, &page.next_page_token);
                Ok(Some((page, next)))
            }
        })
    }

    /// All entries of a scan, over its pages, at one revision.
    pub fn scan_all(
        &self,
        options: ScanOptions,
    ) -> impl Stream<Item = Result<Entry, ClientError>> + Send + 'static {
        self.scan_pages(options)
            .map_ok(|page| stream::iter(page.entries).map(Ok))
            .try_flatten()
    }
}

/// The same scan, from where the last page ended. None: that was the last one.
fn next_page(options: ScanOptions, page_token: &Bytes) -> Option<ScanOptions> {
    (!page_token.is_empty()).then(|| ScanOptions {
        page_token: page_token.clone(),
        ..options
    })
}
