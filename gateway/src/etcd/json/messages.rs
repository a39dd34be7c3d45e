//! Messages of calls as JSON, by their descriptors: bytes in base64, 64-bit numbers as strings,
//! fields by either of their names; what is unknown is passed over, and what is not set not told.

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// The message that JSON tells of.
///
/// # Errors
///
/// Refused where it is no JSON, or does not fit.
pub(super) fn read(kind: MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Status> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let lenient = DeserializeOptions::new().deny_unknown_fields(false);
    let read = DynamicMessage::deserialize_with_options(kind, &mut json, &lenient);
    read.and_then(|message| json.end().map(|()| message))
        .map_err(|error| Status::invalid_argument(format!("json: {error}")))
}

/// The JSON that tells of a message.
///
/// # Errors
///
/// Internal: every message of ours can be told.
pub(super) fn written(message: &DynamicMessage) -> Result<Bytes, Status> {
    let mut json = Vec::new();
    let as_etcd = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &as_etcd)
        .map_err(|error| Status::internal(error.to_string()))?;
    Ok(json.into())
}

/// Messages whose kind is known by a descriptor alone: that of the answers.
#[derive(Clone, Debug)]
pub(super) struct Dynamic(pub(super) MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Dynamic;
    type Decoder = Dynamic;

    fn encoder(&mut self) -> Dynamic {
        self.clone()
    }

    fn decoder(&mut self) -> Dynamic {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, bytes: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let encoded = message.encode(bytes);
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let decoded = DynamicMessage::decode(self.0.clone(), bytes);
        decoded
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prost_reflect::DescriptorPool;
    use quorate_proto::ETCD_DESCRIPTOR_SET;
    use tonic::Code;

    use super::*;

    /// JSON of a message, read and written again; or what is wrong with it.
    fn check(kind: &str, json: &str, expected: &str) {
        let pool = DescriptorPool::decode(ETCD_DESCRIPTOR_SET).unwrap();
        let kind = format!("etcdserverpb.{kind}");
        let kind = pool.get_message_by_name(&kind).unwrap();
        let found = match read(kind, json.as_bytes()) {
            Ok(message) => String::from_utf8(written(&message).unwrap().to_vec()).unwrap(),
            Err(status) => {
                assert_eq!(status.code(), Code::InvalidArgument);
                "refused".to_owned()
            }
        };
        assert_eq!(found, expected, "{json}");
    }

    #[test]
    fn what_is_read_is_written_as_etcd_does() {
        check("PutRequest", "{}", "{}");
        check(
            "PutRequest",
            r#"{"prevKv":true,"key":"Zm9v","lease":7}"#,
            r#"{"key":"Zm9v","lease":"7","prev_kv":true}"#,
        );
        check(
            "PutRequest",
            r#"{"prev_kv":false,"lease":"-7","unknown":[{}]}"#,
            r#"{"lease":"-7"}"#,
        );
        check("PutRequest", r#"{"key":"_-8"}"#, r#"{"key":"/+8="}"#);
        check("PutRequest", r#"{"key":null}"#, "{}");
        check(
            "LeaseGrantRequest",
            r#"{"TTL":5,"ID":"3"}"#,
            r#"{"TTL":"5","ID":"3"}"#,
        );
        check(
            "HashResponse",
            r#"{"hash":4000000000}"#,
            r#"{"hash":4000000000}"#,
        );
        check(
            "RangeRequest",
            r#"{"sort_order":"DESCEND","sortTarget":3,"serializable":true}"#,
            r#"{"sort_order":"DESCEND","sort_target":"MOD","serializable":true}"#,
        );
        check("RangeRequest", r#"{"sort_order":"WRONG"}"#, "{}");
        check(
            "Compare",
            r#"{"target":"MOD","mod_revision":"0"}"#,
            r#"{"target":"MOD","mod_revision":"0"}"#,
        );
        check(
            "TxnRequest",
            r#"{"success":[{"request_put":{"key":"AA=="}},{"requestTxn":{}}]}"#,
            r#"{"success":[{"request_put":{"key":"AA=="}},{"request_txn":{}}]}"#,
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for json in [
            "",
            "[]",
            "null",
            r#"{"key":"Zm9v""#,
            r#"{"key":"*"}"#,
            r#"{"key":"Zg==="}"#,
            r#"{"key":5}"#,
            r#"{"limit":"x"}"#,
            r#"{"limit":1.5}"#,
            r#"{"limit":9223372036854775808}"#,
            r#"{"serializable":"true"}"#,
            r#"{} {}"#,
        ] {
            check("RangeRequest", json, "refused");
        }
        let two = r#"{"request_put":{},"request_range":{}}"#;
        check("RequestOp", two, "refused");
        let deep = "{\"success\":[{\"request_txn\":".repeat(500);
        check("TxnRequest", &deep, "refused");
    }
}
