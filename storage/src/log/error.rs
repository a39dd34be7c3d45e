//! What can go wrong with a log. No error here is worth a retry on the same
//! open log unless its text says so.

use std::io;

/// An error of the node log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk failed. After a failed write or sync the log takes nothing
    /// more, since what reached the disk is unknown.
    #[error("the disk failed to {action}")]
    Disk {
        /// What the log wanted of the disk.
        action: &'static str,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// Bytes that were durable are not what was written. Nothing was changed.
    #[error("the log is damaged in segment {segment} at byte {offset}: {detail}")]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// The byte in its file at which the damage was seen.
        offset: u64,
        /// What is wrong there.
        detail: &'static str,
    },
    /// The folder belongs to another node or cluster. Nothing was changed.
    #[error(
        "the log belongs to node {found_node} of cluster {found_cluster}, \
         not to node {node} of cluster {cluster}"
    )]
    Identity {
        /// The node that wrote the log.
        found_node: u64,
        /// The cluster it was written in, in hexadecimal.
        found_cluster: String,
        /// The node that opens it.
        node: u64,
        /// The cluster of the node that opens it, in hexadecimal.
        cluster: String,
    },
    /// The folder was written in a format that this program does not know.
    /// Nothing was changed.
    #[error("the log has format version {found}, this program reads up to {supported}")]
    Version {
        /// The version found.
        found: u32,
        /// The newest version known.
        supported: u32,
    },
    /// Another log, of this process or another, has the folder open.
    #[error("the log's folder is in use")]
    InUse,
    /// The log was closed before the request was durable.
    #[error("the log is closed")]
    Closed,
    /// An entry is over the limit. Nothing was changed.
    #[error("an entry of {bytes} bytes is over the log's limit of {bytes_max}")]
    EntryTooLarge {
        /// The entry's payload.
        bytes: u64,
        /// The largest payload.
        bytes_max: u64,
    },
    /// Entries do not follow the group's last one. Nothing was changed.
    #[error("entry {index} does not follow the last entry of group {group}, which is {last:?}")]
    NotConsecutive {
        /// The group.
        group: u64,
        /// The index that breaks the order.
        index: u64,
        /// The index that it should have followed.
        last: Option<u64>,
    },
    /// The entry is purged already.
    #[error("entry {index} of group {group} is purged")]
    Purged {
        /// The group.
        group: u64,
        /// The first index that was asked for.
        index: u64,
    },
}

impl LogError {
    /// For `map_err` on calls of the disk.
    pub(super) fn disk(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk { action, source }
    }
}
