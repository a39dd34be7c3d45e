//! The answers of all operations by one trait, so that routing is written once: an answer that a
//! peer sent is unpacked, and its receipt completed, whatever the operation.

use bytes::Bytes;
use quorate_proto::v1::{self, pipeline_response::Response};
use quorate_types::Effect;

/// An operation's answer.
pub trait Answer: Sized + Send {
    /// Takes it out of a peer's response, if it is of this kind.
    fn unpack(response: Response) -> Option<Self>;
    /// Puts it into a pipeline's response.
    fn pack(self) -> Response;
    /// Its receipt, made where it is missing.
    fn receipt(&mut self) -> &mut v1::Receipt;
}

macro_rules! answers {
    ($($answer:ident = $variant:ident,)*) => {
        $(impl Answer for v1::$answer {
            fn unpack(response: Response) -> Option<Self> {
                match response {
                    Response::$variant(answer) => Some(answer),
                    _ => None,
                }
            }

            fn pack(self) -> Response {
                Response::$variant(self)
            }

            fn receipt(&mut self) -> &mut v1::Receipt {
                self.receipt.get_or_insert_default()
            }
        })*
    };
}

answers! {
    GetResponse = Get,
    PutResponse = Put,
    DeleteResponse = Delete,
    ScanResponse = Scan,
    BatchResponse = Batch,
    CompareAndSetResponse = CompareAndSet,
    TxnResponse = Txn,
    HistoryResponse = History,
    OutcomeResponse = Outcome,
    UpdateResponse = Update,
    AwaitConvergedResponse = AwaitConverged,
    LeaseGrantResponse = LeaseGrant,
    LeaseKeepAliveResponse = LeaseKeepAlive,
    LeaseRevokeResponse = LeaseRevoke,
    LeaseShowResponse = LeaseShow,
}

/// Bytes of keys and values in an answer, for the room that it takes until its reader has it.
pub fn payload_bytes(response: &Response) -> usize {
    let of = |entry: &Option<v1::KeyValue>| entry.as_ref().map_or(0, entry_bytes);
    match response {
        Response::Get(get) => {
            of(&get.entry)
                + get.siblings.iter().map(entry_bytes).sum::<usize>()
                + typed_bytes(get.typed.as_ref())
        }
        Response::Update(update) => typed_bytes(update.typed.as_ref()),
        Response::LeaseShow(show) => show.keys.iter().map(Bytes::len).sum(),
        Response::Scan(scan) => scan.entries.iter().map(entry_bytes).sum(),
        Response::Batch(batch) => batch.results.iter().map(|result| of(&result.entry)).sum(),
        Response::Txn(txn) => txn.results.iter().map(|result| of(&result.entry)).sum(),
        Response::CompareAndSet(cas) => of(&cas.current),
        Response::History(history) => history.entries.iter().map(|entry| of(&entry.version)).sum(),
        Response::Put(_)
        | Response::Delete(_)
        | Response::Outcome(_)
        | Response::AwaitConverged(_)
        | Response::LeaseGrant(_)
        | Response::LeaseKeepAlive(_)
        | Response::LeaseRevoke(_)
        | Response::Error(_) => 0,
    }
}

fn typed_bytes(typed: Option<&v1::TypedValue>) -> usize {
    use v1::typed_value::Value;
    match typed.and_then(|typed| typed.value.as_ref()) {
        Some(Value::Set(set)) => set.elements.iter().map(Bytes::len).sum(),
        Some(Value::Map(map)) => map.fields.iter().map(field_bytes).sum(),
        Some(Value::Counter(_)) | None => 0,
    }
}

fn field_bytes(field: &v1::typed_value::Field) -> usize {
    let lists = field.values.iter().chain(&field.elements);
    let inner: usize = field.fields.iter().map(field_bytes).sum();
    field.name.len() + lists.map(Bytes::len).sum::<usize>() + inner
}

fn entry_bytes(entry: &v1::KeyValue) -> usize {
    entry.key.len() + entry.value.len()
}

/// Ties something to the life of an answer's bytes: it is dropped when they are, which is once the
/// answer has been encoded for a reader that takes it.
pub fn hold<G: Send + Sync + 'static>(response: &mut Response, guard: G) {
    let entry = match response {
        Response::Get(get) => get.entry.as_mut(),
        Response::Scan(scan) => scan.entries.first_mut(),
        Response::Batch(batch) => batch.results.iter_mut().find_map(|one| one.entry.as_mut()),
        Response::Txn(txn) => txn.results.iter_mut().find_map(|one| one.entry.as_mut()),
        Response::CompareAndSet(cas) => cas.current.as_mut(),
        Response::History(history) => history
            .entries
            .iter_mut()
            .find_map(|entry| entry.version.as_mut()),
        Response::Put(_)
        | Response::Delete(_)
        | Response::Outcome(_)
        | Response::Update(_)
        | Response::AwaitConverged(_)
        | Response::LeaseGrant(_)
        | Response::LeaseKeepAlive(_)
        | Response::LeaseRevoke(_)
        | Response::LeaseShow(_)
        | Response::Error(_) => None,
    };
    if let Some(entry) = entry {
        let bytes = std::mem::take(&mut entry.key);
        entry.key = Bytes::from_owner(Held {
            bytes,
            _guard: guard,
        });
    }
}

struct Held<G> {
    bytes: Bytes,
    _guard: G,
}

impl<G> AsRef<[u8]> for Held<G> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a request did to the data if its answer is dropped for want of room.
pub fn effect_of(response: &Response) -> Effect {
    match response {
        Response::Get(_)
        | Response::Scan(_)
        | Response::History(_)
        | Response::Outcome(_)
        | Response::AwaitConverged(_)
        | Response::LeaseShow(_)
        | Response::Error(_) => Effect::None,
        // Only an answer with a value is large: the condition did not hold.
        Response::CompareAndSet(cas) if !cas.succeeded => Effect::None,
        Response::Batch(batch) if batch.results.iter().all(|one| one.revision == 0) => Effect::None,
        Response::CompareAndSet(_)
        | Response::Batch(_)
        | Response::Txn(_)
        | Response::Put(_)
        | Response::Update(_)
        | Response::LeaseGrant(_)
        | Response::LeaseKeepAlive(_)
        | Response::LeaseRevoke(_)
        | Response::Delete(_) => Effect::Applied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_guard_lives_as_long_as_the_bytes() {
        let guard = Arc::new(());
        let entry = v1::KeyValue {
            key: "key".into(),
            value: "v".into(),
            ..Default::default()
        };
        let get = v1::GetResponse {
            found: true,
            entry: Some(entry),
            ..Default::default()
        };
        let mut response = Response::Get(get);
        assert_eq!(payload_bytes(&response), 4);
        hold(&mut response, Arc::clone(&guard));
        assert_eq!(Arc::strong_count(&guard), 2);
        let Response::Get(get) = response else { return };
        let key = get.entry.clone().unwrap_or_default().key;
        drop(get);
        assert_eq!(key, "key");
        assert_eq!(Arc::strong_count(&guard), 2);
        drop(key);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
