//! `etcdserverpb.Maintenance`: how the store is, its hash, a copy of it.

use prost::Message;
use quorate_proto::etcd::etcdserverpb::maintenance_server::Maintenance;
use quorate_proto::etcd::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use quorate_proto::internal::EtcdLook;
use quorate_types::NodeId;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::pages::Pages;
use super::streams::{Answers, Sender, sent_by};
use super::{EtcdStore, deadline_of, errors, find};

/// The etcd whose API this is.
pub(super) const ETCD_VERSION: &str = "3.6.0";
const STORAGE_VERSION: &str = "3.6.0";
/// A snapshot's length is a multiple of this before its checksum, as etcd's clients want it.
const SNAPSHOT_BLOCK_BYTES: usize = 512;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct MaintenanceService(pub(super) EtcdStore);

impl EtcdStore {
    /// The hash of all rows as of a revision (0: the newest), and which one that was.
    async fn hash(&self, revision: i64, deadline: Instant) -> Result<(u32, i64), Status> {
        let mut hash = crc32fast::Hasher::new();
        let mut pages = Pages::all(revision, true);
        while let Some(page) = pages.next(self, deadline).await? {
            for row in page.response.kvs {
                hash.update(&row.encode_to_vec());
            }
        }
        Ok((hash.finalize(), pages.revision))
    }

    /// All rows as messages with their lengths before them, filled up, and a checksum.
    async fn snapshot(
        self,
        deadline: Instant,
        parts: Sender<SnapshotResponse>,
    ) -> Result<(), Status> {
        let mut sum = Sha256::new();
        let mut bytes = 0;
        let mut pages = Pages::all(0, false);
        while let Some(page) = pages.next(&self, deadline).await? {
            let blob: Vec<u8> = (page.response.kvs.iter())
                .flat_map(Message::encode_length_delimited_to_vec)
                .collect();
            sum.update(&blob);
            bytes += blob.len();
            if parts.send(Ok(part(blob, 1))).await.is_err() {
                return Ok(());
            }
        }
        let fill = vec![0; bytes.next_multiple_of(SNAPSHOT_BLOCK_BYTES) - bytes];
        sum.update(&fill);
        let last = [fill, sum.finalize().to_vec()].concat();
        // Who asked may have gone, and there is nothing more to do.
        let _ = parts.send(Ok(part(last, 0))).await;
        Ok(())
    }
}

fn part(blob: Vec<u8>, remaining_bytes: u64) -> SnapshotResponse {
    SnapshotResponse {
        header: None,
        remaining_bytes,
        blob: blob.into(),
        version: STORAGE_VERSION.to_owned(),
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let (answered, looked) = self.0.look(EtcdLook::default(), deadline).await?;
        let report = self.0.gateway.node().local_report(false, "").await;
        let bytes = report.node.as_ref().map_or(0, |node| node.engine_bytes);
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let trouble = report.node.map(|node| node.trouble).unwrap_or_default();
        Ok(Response::new(StatusResponse {
            header: Some(self.0.header(answered.revision, answered.term)),
            version: ETCD_VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: looked.leader,
            raft_index: looked.index,
            raft_applied_index: looked.index,
            raft_term: answered.term,
            errors: (!trouble.is_empty())
                .then_some(trouble)
                .into_iter()
                .collect(),
            storage_version: STORAGE_VERSION.to_owned(),
            ..StatusResponse::default()
        }))
    }

    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        // Nothing here stops the cluster for want of space: there are none to show or to lift.
        let deadline = deadline_of(request.metadata())?;
        let (answered, _) = self.0.look(EtcdLook::default(), deadline).await?;
        Ok(Response::new(AlarmResponse {
            header: Some(self.0.header(answered.revision, answered.term)),
            alarms: Vec::new(),
        }))
    }

    async fn defragment(
        &self,
        request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        // The engine gives back room by itself.
        let deadline = deadline_of(request.metadata())?;
        let (answered, _) = self.0.look(EtcdLook::default(), deadline).await?;
        Ok(Response::new(DefragmentResponse {
            header: Some(self.0.header(answered.revision, answered.term)),
        }))
    }

    async fn hash(&self, request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let (hash, revision) = self.0.hash(0, deadline).await?;
        Ok(Response::new(HashResponse {
            header: Some(self.0.header(revision, 0)),
            hash,
        }))
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let asked = request.into_inner().revision;
        let (hash, hash_revision) = self.0.hash(asked, deadline).await?;
        let (answered, looked) = self.0.look(EtcdLook::default(), deadline).await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.0.header(answered.revision, answered.term)),
            hash,
            compact_revision: looked.compacted,
            hash_revision,
        }))
    }

    type SnapshotStream = Answers<SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let store = self.0.clone();
        Ok(Response::new(sent_by(move |parts| {
            store.snapshot(deadline, parts)
        })))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let deadline = deadline_of(request.metadata())?;
        let target = NodeId(request.into_inner().target_id);
        let catalog = self.0.gateway.node().catalog();
        let (_, range) = find(&catalog, &self.0.keyspace)?;
        let group = self.0.gateway.node().group(range.id);
        let Some(group) = group.filter(|group| group.is_leader()) else {
            return Err(errors::not_leader());
        };
        if !range.replicas.contains(&target) {
            return Err(errors::bad_leader_transferee());
        }
        if target != self.0.gateway.node_id() {
            group
                .move_leader(target, deadline)
                .await
                .map_err(|_| errors::timed_out())?;
        }
        let (answered, _) = self.0.look(EtcdLook::default(), deadline).await?;
        Ok(Response::new(MoveLeaderResponse {
            header: Some(self.0.header(answered.revision, answered.term)),
        }))
    }

    async fn downgrade(
        &self,
        _: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        Err(errors::not_served("Downgrade"))
    }
}
