//! Whether what etcd's clients put fits the schemas of its keys: of a transaction, what any of its
//! lists would put. Refused before anything is asked of the log.

use quorate_proto::etcd::etcdserverpb::request_op::Request;
use quorate_proto::etcd::etcdserverpb::{PutRequest, TxnRequest};
use quorate_types::KeyspaceOptions;
use tonic::Status;

use super::{EtcdStore, find};
use crate::errors::GatewayError;
use crate::schema::Schemas;
use crate::validate::within;

impl EtcdStore {
    /// Holds a change against the keyspace's schemas, if it has any.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT`, with the place in the request and in the value.
    pub(super) fn fits(
        &self,
        check: impl FnOnce(&Schemas, &KeyspaceOptions) -> Result<(), GatewayError>,
    ) -> Result<(), Status> {
        let catalog = self.gateway.node().catalog();
        let options = &find(&catalog, &self.keyspace)?.0.options;
        if options.schemas.is_empty() {
            return Ok(());
        }
        let checked = check(self.gateway.schemas(), options);
        checked.map_err(|error| Status::invalid_argument(format!("etcdserver: {error}")))
    }
}

pub(super) fn put(
    schemas: &Schemas,
    put: &PutRequest,
    options: &KeyspaceOptions,
) -> Result<(), GatewayError> {
    // The value that is there was held against them when it was put.
    if put.ignore_value {
        return Ok(());
    }
    schemas.check("value", (&put.key, &put.value), options)
}

pub(super) fn txn(
    schemas: &Schemas,
    request: &TxnRequest,
    options: &KeyspaceOptions,
) -> Result<(), GatewayError> {
    for (list, operations) in [("success", &request.success), ("failure", &request.failure)] {
        for (at, operation) in operations.iter().enumerate() {
            let checked = match &operation.request {
                Some(Request::RequestPut(one)) => put(schemas, one, options),
                Some(Request::RequestTxn(inner)) => txn(schemas, inner, options),
                Some(Request::RequestRange(_) | Request::RequestDeleteRange(_)) | None => Ok(()),
            };
            within(list, at, checked)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use quorate_proto::etcd::etcdserverpb::RequestOp;

    use super::*;

    fn options() -> KeyspaceOptions {
        let schema = r#"{"type":"integer"}"#.to_owned();
        KeyspaceOptions {
            schemas: [("ports/".to_owned(), schema)].into(),
            ..KeyspaceOptions::default()
        }
    }

    fn put_of(key: &'static str, value: &'static str) -> PutRequest {
        PutRequest {
            key: key.into(),
            value: value.into(),
            ..PutRequest::default()
        }
    }

    fn operation(request: Request) -> RequestOp {
        RequestOp {
            request: Some(request),
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_by_its_place_in_the_transaction() {
        let (schemas, options) = (Schemas::default(), options());
        let inner = TxnRequest {
            failure: vec![
                operation(Request::RequestPut(put_of("ports/web", "80"))),
                operation(Request::RequestPut(put_of("ports/web", "eighty"))),
            ],
            ..TxnRequest::default()
        };
        let outer = TxnRequest {
            success: vec![operation(Request::RequestTxn(inner))],
            ..TxnRequest::default()
        };
        let error = txn(&schemas, &outer, &options).unwrap_err().to_string();
        let place = "success[0].failure[1].value: does not fit the schema of `ports/`: /: ";
        assert!(error.starts_with(place), "{error}");
        put(&schemas, &put_of("other", "eighty"), &options).unwrap();
        let kept = PutRequest {
            ignore_value: true,
            ..put_of("ports/web", "")
        };
        put(&schemas, &kept, &options).unwrap();
        put(&schemas, &put_of("ports/web", ""), &options).unwrap_err();
    }
}
