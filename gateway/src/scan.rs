//! Scans: pages of a prefix or an interval in key order, all of one snapshot, over one range or
//! many.
//!
//! A scan of several ranges reads all of them at one revision: at least what every range had last
//! when asked after the scan came (`linearizable`), what all have closed (`bounded`, `stale`), or
//! what the session has seen. Each range closes that revision before it is read. The revision
//! travels in the page token, so later pages, through any gateway, belong to the same snapshot.
//! Keyspaces without history cannot do that: they serve one page of one range, or stale pages.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use quorate_proto::v1;
use quorate_raft::{KeyspaceView, RangeView};
use quorate_types::limits::CLOCK_OFFSET_MAX;
use quorate_types::{Operation, Partitioning, ReadLevel, Revision, Timestamp, prefix_end};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::context::Context;
use crate::errors::GatewayError;
use crate::gateway::{Gateway, keyspace};
use crate::level;
use crate::merge::{Merge, Next};
use crate::page_token::{Fingerprint, PageToken};
use crate::range_page::{Bounds, PageLimit, Scan};
use crate::receipt;
use crate::seal::Kind;
use crate::session::Session;
use crate::validate;

/// Ranges asked at the same time by one scan.
const RANGES_ASKED_MAX: usize = 64;
/// How long a stale scan waits for its ranges to agree on a recent revision.
const STALE_AGREE_MAX: Duration = Duration::from_millis(200);
/// The smallest page that is asked of one bucket, bytes.
const BUCKET_PAGE_MIN_BYTES: usize = 4 << 10;
/// Rows asked of one bucket beyond its even share, so that most pages need one fetch each.
const BUCKET_ROWS_SPARE: usize = 8;

/// Rows gathered for one page, and whether there are more.
struct Gathered {
    entries: Vec<v1::KeyValue>,
    more: bool,
    receipts: Vec<v1::Receipt>,
    at: Revision,
}

impl Gathered {
    fn new(at: Option<Revision>) -> Gathered {
        let at = at.unwrap_or(Revision::ZERO);
        Gathered {
            entries: Vec::new(),
            more: false,
            receipts: Vec::new(),
            at,
        }
    }
}

impl Gateway {
    /// Reads a page of a prefix or an interval.
    ///
    /// # Errors
    ///
    /// `PAGE_TOKEN_MISMATCH`, `REVISION_COLLECTED`, `REVISION_FUTURE`; else see [`GatewayError`].
    pub(crate) async fn scan(
        &self,
        request: v1::ScanRequest,
        context: Context,
    ) -> Result<v1::ScanResponse, GatewayError> {
        let catalog = self.node().catalog();
        let keyspace = keyspace(&catalog, &request.keyspace)?;
        let (rows, bytes) = validate::page(request.limit, request.bytes_max)?;
        let limit = PageLimit { rows, bytes };
        let whole = bounds_of(&request, keyspace)?;
        let fingerprint = fingerprint_of(&request, keyspace);
        let (bounds, token_at) = self.resumed(&request, whole, fingerprint)?;
        let at = Some(token_at.max(Revision(request.at_revision))).filter(|at| !at.is_none());
        let operation = if at.is_none() {
            Operation::Read
        } else {
            Operation::Snapshot
        };
        let consistency = request.consistency.as_ref();
        let mode = keyspace.options.mode;
        let plan = level::read_plan(&keyspace.name, mode, operation, consistency)?;
        let session = self.session(keyspace, consistency)?;
        let (session, bounds) = (&session, &bounds);
        let resumes = !request.page_token.is_empty();
        self.climb(&plan, &context, |rung, context| {
            let keys_only = request.keys_only;
            async move {
                let level = rung.level;
                let scan = Scan {
                    keyspace,
                    keys_only,
                    level,
                    session,
                    context,
                };
                if let Some(forwarded) = context.forwarded {
                    return self
                        .scan_forwarded(&scan, forwarded.range, bounds, at, limit)
                        .await;
                }
                let gathered = self.gather(&scan, bounds, at, resumes, limit).await?;
                Ok(self.page_of(&scan, bounds, fingerprint, gathered))
            }
        })
        .await
    }

    /// The bounds and snapshot of a later page.
    fn resumed(
        &self,
        request: &v1::ScanRequest,
        whole: Bounds,
        fingerprint: u64,
    ) -> Result<(Bounds, Revision), GatewayError> {
        if request.page_token.is_empty() {
            return Ok((whole, Revision::ZERO));
        }
        let token =
            PageToken::decode(Kind::Scan, self.cluster(), fingerprint, &request.page_token)?;
        let bounds = if whole.reverse {
            Bounds {
                end: token.key,
                ..whole
            }
        } else {
            Bounds {
                start: token.key,
                ..whole
            }
        };
        Ok((bounds, token.at))
    }

    async fn scan_forwarded(
        &self,
        scan: &Scan<'_>,
        range: quorate_types::RangeId,
        bounds: &Bounds,
        at: Option<Revision>,
        limit: PageLimit,
    ) -> Result<v1::ScanResponse, GatewayError> {
        let view = scan.keyspace.ranges.iter().find(|view| view.id == range);
        let view = view.ok_or(GatewayError::RangeMoved { range })?;
        self.range_page(scan, view, bounds, at, limit).await
    }

    /// The rows of one page, from as many ranges as it takes.
    async fn gather(
        &self,
        scan: &Scan<'_>,
        bounds: &Bounds,
        at: Option<Revision>,
        resumes: bool,
        limit: PageLimit,
    ) -> Result<Gathered, GatewayError> {
        let ranges = ranges_within(scan.keyspace, bounds);
        // Neither reads one state in time.
        let stale = scan.level == ReadLevel::Stale || scan.is_eventual();
        if !scan.keeps_history() && !stale && (at.is_some() || resumes || ranges.len() > 1) {
            return Err(no_history(scan));
        }
        if ranges.is_empty() {
            return Ok(Gathered::new(at));
        }
        let at = match at {
            None if ranges.len() > 1 && scan.keeps_history() && !scan.is_eventual() => {
                Some(self.snapshot(scan, &ranges).await?)
            }
            chosen => chosen,
        };
        let gathered = match scan.keyspace.options.partitioning {
            Partitioning::Hash(_) if ranges.len() > 1 => {
                self.gather_merged(scan, &ranges, bounds, at, limit).await?
            }
            Partitioning::Ordered | Partitioning::Hash(_) => {
                self.gather_in_turn(scan, &ranges, bounds, at, limit)
                    .await?
            }
        };
        if gathered.more && !scan.keeps_history() && !stale {
            return Err(no_history(scan));
        }
        Ok(gathered)
    }

    /// The revision at which all ranges are read.
    async fn snapshot(
        &self,
        scan: &Scan<'_>,
        ranges: &[&RangeView],
    ) -> Result<Revision, GatewayError> {
        let known = self.ask_all(scan, ranges).await?;
        let newest = known.iter().copied().max().unwrap_or(Revision::ZERO);
        let wanted = ranges
            .iter()
            .map(|range| scan.session.wanted(range.id).revision)
            .max();
        // What a session has seen and the log has decided lately is not in the oldest state.
        let has_dots = |range: &&RangeView| !scan.session.wanted(range.id).dots.is_empty();
        let oldest = match ranges.iter().any(has_dots) {
            true => newest,
            false => known.iter().copied().min().unwrap_or(Revision::ZERO),
        };
        let oldest = oldest.max(wanted.unwrap_or(Revision::ZERO));
        match scan.level {
            ReadLevel::Linearizable => Ok(newest),
            ReadLevel::Session => Ok(oldest),
            ReadLevel::Bounded(age) => {
                // Each was fresh enough when asked; the ones asked first may not be any more.
                let now = self.node().now();
                let allowed = age.saturating_sub(CLOCK_OFFSET_MAX);
                let least = Revision(now.saturating_sub(allowed / 2).0);
                let fresh = now.saturating_duration_since(Timestamp(oldest.0)) <= allowed;
                Ok(if fresh { oldest } else { least.max(oldest) })
            }
            ReadLevel::Stale | ReadLevel::Eventual(_) => {
                Ok(if self.agree(scan, ranges, newest).await {
                    newest
                } else {
                    oldest
                })
            }
        }
    }

    /// Asks all ranges what they have last, by the level.
    async fn ask_all(
        &self,
        scan: &Scan<'_>,
        ranges: &[&RangeView],
    ) -> Result<Vec<Revision>, GatewayError> {
        // One key, of no interest: what counts is the revision at which it was read.
        let limit = PageLimit { rows: 1, bytes: 1 };
        let nothing = Bounds {
            start: Bytes::new(),
            end: Bytes::from_static(&[0]),
            reverse: false,
        };
        let mut asked = Vec::with_capacity(ranges.len());
        for range in ranges {
            asked.push(self.range_page(scan, range, &nothing, None, limit));
        }
        stream::iter(asked)
            .buffer_unordered(RANGES_ASKED_MAX)
            .map_ok(|page| Revision(page.at_revision))
            .try_collect()
            .await
    }

    /// Whether all ranges close a revision soon.
    async fn agree(&self, scan: &Scan<'_>, ranges: &[&RangeView], at: Revision) -> bool {
        let limit = PageLimit { rows: 1, bytes: 1 };
        let nothing = Bounds {
            start: Bytes::new(),
            end: Bytes::from_static(&[0]),
            reverse: false,
        };
        let until = Instant::now() + STALE_AGREE_MAX;
        let scan = Scan {
            keyspace: scan.keyspace,
            keys_only: true,
            level: scan.level,
            session: &Session::none(self.binding(scan.keyspace)),
            context: scan.context.until(until),
        };
        let mut closing = Vec::with_capacity(ranges.len());
        for range in ranges {
            closing.push(self.range_page(&scan, range, &nothing, Some(at), limit));
        }
        stream::iter(closing)
            .buffer_unordered(RANGES_ASKED_MAX)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await
            .is_ok()
    }

    /// Range after range, until the page is full.
    async fn gather_in_turn(
        &self,
        scan: &Scan<'_>,
        ranges: &[&RangeView],
        bounds: &Bounds,
        at: Option<Revision>,
        limit: PageLimit,
    ) -> Result<Gathered, GatewayError> {
        let mut gathered = Gathered::new(at);
        let mut left = limit;
        for (done, range) in ranges.iter().enumerate() {
            let mut page = self.range_page(scan, range, bounds, at, left).await?;
            gathered.at = Revision(page.at_revision);
            gathered.more = !page.next_page_token.is_empty();
            gathered.receipts.push(std::mem::take(page.receipt()));
            left.rows = left.rows.saturating_sub(page.entries.len());
            left.bytes = left
                .bytes
                .saturating_sub(page.entries.iter().map(row_bytes).sum());
            gathered.entries.extend(page.entries);
            if gathered.more {
                break;
            }
            if left.rows == 0 || left.bytes == 0 {
                gathered.more = done + 1 < ranges.len();
                break;
            }
        }
        Ok(gathered)
    }

    /// Buckets side by side, merged by key.
    async fn gather_merged(
        &self,
        scan: &Scan<'_>,
        ranges: &[&RangeView],
        bounds: &Bounds,
        at: Option<Revision>,
        limit: PageLimit,
    ) -> Result<Gathered, GatewayError> {
        let share = PageLimit {
            rows: limit
                .rows
                .min(limit.rows.div_ceil(ranges.len()) + BUCKET_ROWS_SPARE),
            bytes: limit
                .bytes
                .min((limit.bytes * 2 / ranges.len()).max(BUCKET_PAGE_MIN_BYTES)),
        };
        let mut gathered = Gathered::new(at);
        let mut merge = Merge::new(ranges.len(), bounds.reverse);
        let mut next_bounds = vec![bounds.clone(); ranges.len()];
        let mut firsts = Vec::with_capacity(ranges.len());
        for (source, range) in ranges.iter().enumerate() {
            firsts.push(async move {
                let page = self.range_page(scan, range, bounds, at, share).await?;
                Ok::<_, GatewayError>((source, page))
            });
        }
        let mut firsts = stream::iter(firsts).buffer_unordered(RANGES_ASKED_MAX);
        while let Some((source, page)) = firsts.try_next().await? {
            take_page(&mut gathered, &mut merge, &mut next_bounds, source, page);
        }
        drop(firsts);
        let mut bytes = 0;
        while gathered.entries.len() < limit.rows && bytes < limit.bytes {
            match merge.next() {
                Next::Row(row) => {
                    bytes += row_bytes(&row);
                    gathered.entries.push(row);
                }
                Next::Fetch(source) => {
                    let bounds = next_bounds[source].clone();
                    let page = self
                        .range_page(scan, ranges[source], &bounds, at, share)
                        .await?;
                    take_page(&mut gathered, &mut merge, &mut next_bounds, source, page);
                }
                Next::End => break,
            }
        }
        gathered.more = merge.has_more();
        Ok(gathered)
    }

    fn page_of(
        &self,
        scan: &Scan<'_>,
        bounds: &Bounds,
        fingerprint: u64,
        mut gathered: Gathered,
    ) -> v1::ScanResponse {
        let last = gathered.entries.last().filter(|_| gathered.more);
        let next_page_token = last.map_or_else(Bytes::new, |last| {
            let next = bounds.after(&last.key);
            let key = if bounds.reverse { next.end } else { next.start };
            let token = PageToken {
                fingerprint,
                at: gathered.at,
                bucket: 0,
                key,
            };
            token.encode(Kind::Scan, self.cluster())
        });
        if self.faults().lose_border_row && gathered.more {
            gathered.entries.pop();
        }
        v1::ScanResponse {
            next_page_token,
            at_revision: gathered.at.0,
            receipt: Some(joined(scan, gathered.receipts)),
            entries: gathered.entries,
        }
    }
}

fn take_page(
    gathered: &mut Gathered,
    merge: &mut Merge,
    next_bounds: &mut [Bounds],
    source: usize,
    mut page: v1::ScanResponse,
) {
    gathered.receipts.push(std::mem::take(page.receipt()));
    if let Some(last) = page.entries.last() {
        next_bounds[source] = next_bounds[source].after(&last.key);
    }
    let more = !page.next_page_token.is_empty();
    merge.fill(source, page.entries, more);
}

fn row_bytes(row: &v1::KeyValue) -> usize {
    row.key.len() + row.value.len()
}

fn no_history(scan: &Scan<'_>) -> GatewayError {
    GatewayError::NoHistory {
        keyspace: scan.keyspace.name.clone(),
    }
}

/// The ranges with keys within the bounds, in the order in which they are read.
fn ranges_within<'a>(keyspace: &'a KeyspaceView, bounds: &Bounds) -> Vec<&'a RangeView> {
    if bounds.is_empty() {
        return Vec::new();
    }
    let asked = match keyspace.options.partitioning {
        Partitioning::Hash(_) => return keyspace.ranges.iter().collect(),
        Partitioning::Ordered => {
            quorate_types::user_interval(keyspace.id, None, &bounds.start, &bounds.end)
        }
    };
    let mut ranges: Vec<_> = keyspace
        .ranges
        .iter()
        .filter(|range| range.interval.overlaps(&asked))
        .collect();
    if bounds.reverse {
        ranges.reverse();
    }
    ranges
}

/// What a scan asks for: its prefix and its interval, where both are given what lies in both.
fn bounds_of(request: &v1::ScanRequest, keyspace: &KeyspaceView) -> Result<Bounds, GatewayError> {
    let options = &keyspace.options;
    validate::bound("prefix", &request.prefix, options)?;
    validate::bound("start", &request.start, options)?;
    validate::bound("end", &request.end, options)?;
    if !request.end.is_empty() && request.start > request.end {
        return Err(GatewayError::field(
            "end",
            "the end is exclusive and not below the start",
        ));
    }
    let prefix_end = prefix_end(&request.prefix);
    let end = match (prefix_end.is_empty(), request.end.is_empty()) {
        (true, _) => request.end.clone(),
        (false, true) => prefix_end,
        (false, false) => prefix_end.min(request.end.clone()),
    };
    let start = request.start.clone().max(request.prefix.clone());
    Ok(Bounds {
        start,
        end,
        reverse: request.reverse,
    })
}

/// Of all that must be the same on every page; the sizes of pages may change.
fn fingerprint_of(request: &v1::ScanRequest, keyspace: &KeyspaceView) -> u64 {
    let rungs = request
        .consistency
        .as_ref()
        .map_or(&[][..], |consistency| &consistency.rungs);
    let fingerprint = Fingerprint::new(keyspace.id)
        .bytes(&request.prefix)
        .bytes(&request.start)
        .bytes(&request.end)
        .number(u64::from(request.reverse))
        .number(u64::from(request.keys_only))
        .number(request.at_revision);
    rungs
        .iter()
        .fold(fingerprint, |fingerprint, rung| {
            fingerprint.number(u64::from(rung.level.cast_unsigned()))
        })
        .finish()
}

/// One receipt of several ranges' ones.
fn joined(scan: &Scan<'_>, receipts: Vec<v1::Receipt>) -> v1::Receipt {
    let token = scan
        .session
        .joined(receipts.iter().map(|receipt| &receipt.session_token));
    let all = receipts.into_iter().reduce(receipt::joined);
    v1::Receipt {
        session_token: token,
        ..all.unwrap_or_else(|| v1::Receipt {
            level: Some(level::read_rung_to_wire(scan.level)),
            ..v1::Receipt::default()
        })
    }
}
