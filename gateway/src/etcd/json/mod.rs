//! etcd's JSON gateway: its calls over plain HTTP, as `POST` with JSON (`/v3/kv/put`), beside gRPC on
//! the same port.
//!
//! One bridge for all calls: a path names a method, the method's descriptor says how JSON becomes
//! its message (`messages`), and the message goes to the same services that gRPC clients speak to,
//! in this process. So nothing here knows what a call means. Pages that are no calls, `/version` and
//! `/health`, are in `pages`.

mod messages;
mod objects;
mod pages;
mod paths;

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, BoxStream, StreamExt};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use quorate_proto::ETCD_DESCRIPTOR_SET;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tonic::client::Grpc;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use self::messages::{Dynamic, read, written};
use self::objects::Objects;
use self::paths::Path;
use super::{EtcdStore, deadline_of, errors};
use crate::deadline;
use crate::serve::ServeError;

const JSON: &str = "application/json";
/// Headers that become metadata of the call, and their names there.
const METADATA: [(&str, &str); 2] = [
    (deadline::TIMEOUT_HEADER, deadline::TIMEOUT_HEADER),
    ("grpc-metadata-hasleader", "hasleader"),
];

/// The gateway: services, and what their messages look like. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct JsonGateway {
    store: EtcdStore,
    services: Routes,
    pool: DescriptorPool,
}

/// What a call answers, message by message.
type Answers = BoxStream<'static, Result<DynamicMessage, Status>>;

impl JsonGateway {
    /// A gateway to these services.
    ///
    /// # Errors
    ///
    /// [`ServeError::Descriptors`].
    pub(super) fn new(store: EtcdStore, services: Routes) -> Result<JsonGateway, ServeError> {
        Ok(JsonGateway {
            store,
            services: services.prepare(),
            pool: DescriptorPool::decode(ETCD_DESCRIPTOR_SET)?,
        })
    }

    /// Answers whatever no service of gRPC's has a path for.
    pub(super) async fn serve(self, request: Request<Body>) -> Response {
        let (parts, body) = request.into_parts();
        if is_grpc(&parts) {
            return Status::unimplemented("").into_http::<Body>();
        }
        if let Some(page) = pages::show(&self.store, &parts).await {
            return page;
        }
        match paths::find(parts.uri.path()) {
            Path::None => pages::not_found(),
            Path::Unknown => refused(&Status::not_found("Not Found")),
            Path::Method(..) if parts.method != Method::POST => {
                refused(&Status::unimplemented("Method Not Allowed"))
            }
            Path::Method(service, name) => match self.method(service, name) {
                Some(method) => self.in_time(&method, &parts, body).await,
                None => refused(&errors::not_served(name)),
            },
        }
    }

    fn method(&self, service: &str, name: &str) -> Option<MethodDescriptor> {
        let service = self.pool.get_service_by_name(service)?;
        service.methods().find(|method| method.name() == name)
    }

    /// A call, within the time that its client gives it. What serves the port would cut it off
    /// without a word of JSON, and with a status that says that all went well.
    async fn in_time(&self, method: &MethodDescriptor, parts: &Parts, body: Body) -> Response {
        let calling = self.call(method, parts, body);
        if !parts.headers.contains_key(deadline::TIMEOUT_HEADER) {
            return calling.await;
        }
        let late = |_| refused(&Status::deadline_exceeded("context deadline exceeded"));
        match deadline_of(&MetadataMap::from_headers(parts.headers.clone())) {
            Ok(deadline) => timeout_at(deadline, calling).await.unwrap_or_else(late),
            Err(status) => refused(&status),
        }
    }

    async fn call(&self, method: &MethodDescriptor, parts: &Parts, body: Body) -> Response {
        let answered = match method.is_client_streaming() {
            true => Ok(self.ask_many(method, parts, body).await),
            false => self.ask(method, parts, body).await,
        };
        match answered {
            Ok(answers) if method.is_server_streaming() => told(answers).await,
            Ok(mut answers) => match answers.next().await {
                Some(Ok(answer)) => shown(&answer),
                Some(Err(status)) => refused(&status),
                None => refused(&Status::internal("no answer")),
            },
            Err(status) => refused(&status),
        }
    }

    /// A call with one request: the body's first object. None at all is a request without fields,
    /// and what follows is not looked at: both as etcd has it.
    async fn ask(
        &self,
        method: &MethodDescriptor,
        parts: &Parts,
        body: Body,
    ) -> Result<Answers, Status> {
        let request = match Objects::new(body).next().await? {
            Some(json) => read(method.input(), &json)?,
            None => DynamicMessage::new(method.input()),
        };
        Ok(self.send(method, parts, stream::iter([request])).await)
    }

    /// A call with a stream of requests, which are read as the service takes them. One that is none
    /// ends the call.
    async fn ask_many(&self, method: &MethodDescriptor, parts: &Parts, body: Body) -> Answers {
        let (fail, failed) = oneshot::channel();
        let start = (Objects::new(body), fail, method.input());
        let requests = stream::unfold(start, |(mut objects, fail, input)| async {
            let request = match objects.next().await {
                Ok(Some(json)) => read(input.clone(), &json),
                Ok(None) => return None,
                Err(status) => Err(status),
            };
            match request {
                Ok(request) => Some((request, (objects, fail, input))),
                Err(status) => {
                    // A call that has ended needs no reason to.
                    let _ = fail.send(status);
                    None
                }
            }
        });
        let failed = stream::once(failed).filter_map(|failed| async { failed.ok().map(Err) });
        let sending = self.send(method, parts, requests);
        let answers = stream::once(sending).flatten();
        stream::select(failed.boxed(), answers.boxed()).boxed()
    }

    /// Has the service do it.
    fn send(
        &self,
        method: &MethodDescriptor,
        parts: &Parts,
        requests: impl futures::Stream<Item = DynamicMessage> + Send + 'static,
    ) -> impl Future<Output = Answers> + Send + 'static {
        let mut request = tonic::Request::new(requests);
        for (header, name) in METADATA {
            let value = parts.headers.get(header).map(|value| value.as_bytes());
            if let Some(Ok(value)) = value.map(MetadataValue::try_from) {
                request.metadata_mut().insert(name, value);
            }
        }
        if let Some(connection) = parts.extensions.get::<TcpConnectInfo>() {
            request.extensions_mut().insert(connection.clone());
        }
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let codec = Dynamic(method.output());
        let grpc = Grpc::new(self.services.clone());
        async move {
            let path = PathAndQuery::try_from(path);
            let answered = async {
                let path = path.map_err(|error| Status::internal(error.to_string()))?;
                let mut grpc = grpc.max_decoding_message_size(usize::MAX);
                // A service in this process is always ready.
                let answered = grpc.streaming(request, path, codec).await?;
                Ok(answered.into_inner())
            };
            match answered.await {
                Ok(answers) => answers.boxed(),
                Err(status) => stream::iter([Err(status)]).boxed(),
            }
        }
    }
}

fn is_grpc(parts: &Parts) -> bool {
    let kind = parts.headers.get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// One answer.
fn shown(answer: &DynamicMessage) -> Response {
    match written(answer) {
        Ok(json) => ([(CONTENT_TYPE, JSON)], json).into_response(),
        Err(status) => refused(&status),
    }
}

/// An error, as a whole answer.
fn refused(status: &Status) -> Response {
    let json = error(status).to_string();
    (http_code(status.code()), [(CONTENT_TYPE, JSON)], json).into_response()
}

fn error(status: &Status) -> serde_json::Value {
    json!({ "code": i32::from(status.code()), "message": status.message() })
}

/// Answers as they come, each in a line. The first one decides the code: where nothing went well, it
/// says so.
async fn told(mut answers: Answers) -> Response {
    let first = answers.next().await;
    let code = match &first {
        Some(Err(status)) => http_code(status.code()),
        Some(Ok(_)) | None => StatusCode::OK,
    };
    let answers = first.is_some().then_some(answers);
    // A line goes out before the next answer is waited for.
    let lines = stream::unfold((first, answers), |(first, answers)| async {
        let mut answers = answers?;
        let answer = match first {
            Some(answer) => answer,
            None => answers.next().await?,
        };
        let (line, is_last) = line(answer);
        let rest = (!is_last).then_some(answers);
        Some((Ok::<_, Infallible>(line), (None, rest)))
    });
    (code, [(CONTENT_TYPE, JSON)], Body::from_stream(lines)).into_response()
}

/// An answer's line, and whether it is the last.
fn line(answer: Result<DynamicMessage, Status>) -> (Bytes, bool) {
    match answer.and_then(|answer| written(&answer)) {
        Ok(json) => (
            Bytes::from([b"{\"result\":", &json[..], b"}\n"].concat()),
            false,
        ),
        Err(status) => {
            let json = json!({ "error": error(&status) });
            (Bytes::from(format!("{json}\n")), true)
        }
    }
}

/// How HTTP says what gRPC's code says: as the gateway of etcd has it.
fn http_code(code: Code) -> StatusCode {
    let number = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;

    fn message() -> DynamicMessage {
        let pool = DescriptorPool::decode(ETCD_DESCRIPTOR_SET).unwrap();
        let kind = pool.get_message_by_name("etcdserverpb.LeaseStatus");
        read(kind.unwrap(), br#"{"ID":7}"#).unwrap()
    }

    /// The lines of a body that are there without waiting, up to so many.
    fn lines(response: Response, most: usize) -> Vec<Bytes> {
        let mut body = response.into_body().into_data_stream();
        let next = || body.next().now_or_never().flatten().map(Result::unwrap);
        std::iter::from_fn(next).take(most).collect()
    }

    #[tokio::test]
    async fn a_line_goes_out_before_the_next_answer_is_there() {
        let answers = stream::iter([Ok(message())]).chain(stream::pending());
        let told = told(answers.boxed()).await;
        assert_eq!(told.status(), StatusCode::OK);
        assert_eq!(lines(told, 2), ["{\"result\":{\"ID\":\"7\"}}\n"]);
    }

    #[tokio::test]
    async fn what_a_client_does_not_read_is_not_taken() {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = taken.clone();
        let answers = stream::repeat_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(message())
        });
        let told = told(answers.boxed()).await;
        assert_eq!(lines(told, 5).len(), 5);
        assert_eq!(taken.load(Ordering::Relaxed), 5);
    }

    #[tokio::test]
    async fn an_error_is_the_last_line_and_as_the_first_decides_the_status() {
        let error = || Err(errors::lease_not_found());
        let text =
            "{\"error\":{\"code\":5,\"message\":\"etcdserver: requested lease not found\"}}\n";
        let answers = stream::iter([Ok(message()), error(), Ok(message())]);
        let late = told(answers.boxed()).await;
        assert_eq!(late.status(), StatusCode::OK);
        assert_eq!(lines(late, 9)[1..], [text]);
        let first = told(stream::iter([error(), Ok(message())]).boxed()).await;
        assert_eq!(first.status(), StatusCode::NOT_FOUND);
        assert_eq!(lines(first, 9), [text]);
    }
}
