//! What etcd's clients put is held to the schemas and the quotas of its keys, as what Quorate's own
//! clients put elsewhere is.

use std::time::Duration;

use quorate_client::{Client, ClientOptions, KeyspaceChange};
use quorate_proto::etcd::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, compare, request_op,
};
use quorate_types::PrefixQuota;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::servers::start_quorate;
use crate::streamed::connect;

/// Nodes have heard of new options by then.
const WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

fn put_of(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest {
        key: key.into(),
        value: value.into(),
        ..PutRequest::default()
    }
}

fn operation(put: PutRequest) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestPut(put)),
    }
}

async fn put(
    client: &mut KvClient<Channel>,
    key: &'static str,
    value: &'static str,
) -> Result<(), Status> {
    client.put(put_of(key, value)).await.map(drop)
}

/// Waits until a put is refused, and tells how.
async fn refused(client: &mut KvClient<Channel>, key: &'static str, value: &'static str) -> Status {
    let refused = async {
        loop {
            match put(client, key, value).await {
                Ok(()) => tokio::time::sleep(POLL).await,
                Err(status) => return status,
            }
        }
    };
    let refused = tokio::time::timeout(WITHIN, refused).await;
    refused.unwrap_or_else(|_| panic!("`{key}` is not refused within {WITHIN:?}"))
}

async fn limit(own: &Client) {
    let quota = PrefixQuota {
        max_keys: 2,
        max_bytes: 0,
    };
    let change = KeyspaceChange {
        schemas: vec![("ports/".to_owned(), r#"{"type":"integer"}"#.to_owned())],
        quotas: vec![("app/".to_owned(), quota)],
        ..KeyspaceChange::default()
    };
    own.admin().alter_keyspace("etcd", change).await.unwrap();
    let counted = async {
        loop {
            let ranges = own.admin().ranges("etcd", false).await.unwrap();
            if ranges.iter().any(|range| !range.quotas.is_empty()) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(WITHIN, counted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcds_clients_put_is_held_to_schemas_and_quotas() {
    let quorate = start_quorate();
    let own = Client::connect(ClientOptions {
        endpoints: quorate.own.clone(),
        ..ClientOptions::default()
    });
    let mut client = connect(&quorate.endpoints[0]).await;
    put(&mut client, "app/before", "1").await.unwrap();
    limit(&own.unwrap()).await;

    let status = refused(&mut client, "ports/web", "eighty").await;
    assert_eq!(status.code(), Code::InvalidArgument);
    let says =
        "etcdserver: value: does not fit the schema of `ports/`: /: \"eighty\" is not of type";
    assert!(status.message().starts_with(says), "{status}");
    put(&mut client, "ports/web", "80").await.unwrap();
    let txn = TxnRequest {
        failure: vec![operation(put_of("ports/web", "ninety"))],
        ..TxnRequest::default()
    };
    let status = client.txn(txn).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("failure[0].value"), "{status}");

    // One key was there when the quota came.
    put(&mut client, "app/a", "1").await.unwrap();
    let status = put(&mut client, "app/b", "1").await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let says = "etcdserver: the quota of `app/` is used up: 2 of 2 keys, 3 with this write";
    assert!(status.message().starts_with(says), "{status}");
    // Judged by the list that runs.
    let missing = Compare {
        key: "none".into(),
        result: compare::CompareResult::Greater.into(),
        target: compare::CompareTarget::Version.into(),
        target_union: Some(compare::TargetUnion::Version(0)),
        ..Compare::default()
    };
    let txn = TxnRequest {
        compare: vec![missing],
        success: vec![operation(put_of("app/b", "1"))],
        failure: vec![operation(put_of("app/a", "2"))],
    };
    assert!(!client.txn(txn).await.unwrap().into_inner().succeeded);
    let delete = DeleteRangeRequest {
        key: "app/before".into(),
        ..DeleteRangeRequest::default()
    };
    client.delete_range(delete).await.unwrap();
    put(&mut client, "app/b", "1").await.unwrap();
}
