//! Errors as etcd's clients match them: the code, and the words.

use quorate_raft::machine::etcd::EtcdRefusal;
use tonic::{Code, Status};

use crate::write::prefix_full;

/// The words of etcd's errors: facts that clients compare.
macro_rules! errors {
    ($($name:ident: $code:ident $text:literal),+ $(,)?) => {
        $(
            #[doc = $text]
            pub(crate) fn $name() -> Status {
                Status::new(Code::$code, $text)
            }
        )+
    };
}

errors! {
    empty_key: InvalidArgument "etcdserver: key is not provided",
    key_not_found: InvalidArgument "etcdserver: key not found",
    value_provided: InvalidArgument "etcdserver: value is provided",
    lease_provided: InvalidArgument "etcdserver: lease is provided",
    too_many_operations: InvalidArgument "etcdserver: too many operations in txn request",
    duplicate_key: InvalidArgument "etcdserver: duplicate key given in txn request",
    bad_sort_option: InvalidArgument "etcdserver: invalid sort option",
    request_too_large: InvalidArgument "etcdserver: request is too large",
    compacted: OutOfRange "etcdserver: mvcc: required revision has been compacted",
    future_revision: OutOfRange "etcdserver: mvcc: required revision is a future revision",
    lease_not_found: NotFound "etcdserver: requested lease not found",
    lease_exists: FailedPrecondition "etcdserver: lease already exists",
    lease_ttl_too_large: OutOfRange "etcdserver: too large lease TTL",
    bad_leader_transferee: FailedPrecondition "etcdserver: bad leader transferee",
    not_leader: FailedPrecondition "etcdserver: not leader",
    no_leader: Unavailable "etcdserver: no leader",
    timed_out: Unavailable "etcdserver: request timed out",
    stopped: Unavailable "etcdserver: server stopped",
}

/// What the log refused.
pub(crate) fn refused(refusal: EtcdRefusal) -> Status {
    match refusal {
        EtcdRefusal::KeyNotFound => key_not_found(),
        EtcdRefusal::LeaseNotFound => lease_not_found(),
        EtcdRefusal::LeaseFull => Status::resource_exhausted(
            "etcdserver: as many keys as can be are attached to this lease; attach the others to another one",
        ),
        // Not etcd's words for a full store, which its clients take for an alarm of the cluster.
        EtcdRefusal::PrefixFull(full) => {
            Status::resource_exhausted(format!("etcdserver: {}", prefix_full(&full)))
        }
        EtcdRefusal::Compacted { .. } => compacted(),
        EtcdRefusal::Future { .. } => future_revision(),
    }
}

/// What is not served, by name.
pub(crate) fn not_served(what: &str) -> Status {
    Status::unimplemented(format!(
        "etcdserver: {what} is not served by Quorate, see docs/ETCD.md"
    ))
}
