//! JSON objects out of a request's body, one after the other, as they come in: a call reads the
//! first, a stream of requests all. What is in them is not looked at here.

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use tonic::Status;

/// Bytes of one object: etcd takes requests of 1.5 MiB, base64 adds a third, and then there are names.
pub(super) const OBJECT_MAX_BYTES: usize = 4 << 20;

/// The objects of a body.
pub(super) struct Objects {
    body: BodyDataStream,
    cutter: Cutter,
}

/// Finds where objects end, in bytes that come in pieces. It looks at each byte once.
#[derive(Debug, Default)]
struct Cutter {
    bytes: BytesMut,
    /// So many of them were looked at.
    seen: usize,
    /// Open braces and brackets.
    depth: usize,
    is_text: bool,
    is_escaped: bool,
}

impl Objects {
    pub(super) fn new(body: Body) -> Objects {
        Objects {
            body: body.into_data_stream(),
            cutter: Cutter::default(),
        }
    }

    /// The next one, or none where the body ends.
    ///
    /// # Errors
    ///
    /// Refused where something else comes, the body breaks off, or an object is too long.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(object) = self.cutter.cut()? {
                return Ok(Some(object));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.cutter.bytes.extend_from_slice(&bytes),
                None if self.cutter.bytes.is_empty() => return Ok(None),
                // In etcd's words.
                None => return Err(Status::invalid_argument("unexpected EOF")),
                Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
            }
        }
    }
}

impl Cutter {
    /// The next object, if it is here as a whole.
    fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        if self.seen == 0 {
            let blank = |byte: &&u8| byte.is_ascii_whitespace();
            self.bytes
                .advance(self.bytes.iter().take_while(blank).count());
            if self.bytes.first().is_some_and(|byte| *byte != b'{') {
                return Err(Status::invalid_argument(
                    "json: a request is an object: {…}",
                ));
            }
        }
        while let Some(byte) = self.bytes.get(self.seen) {
            self.seen += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_text => self.is_escaped = true,
                b'"' => self.is_text = !self.is_text,
                _ if self.is_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let object = self.bytes.split_to(self.seen).freeze();
                self.seen = 0;
                return Ok(Some(object));
            }
            if self.seen > OBJECT_MAX_BYTES {
                return Err(Status::resource_exhausted(format!(
                    "etcdserver: a request has more than {OBJECT_MAX_BYTES} bytes of JSON"
                )));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use futures::stream;
    use tonic::Code;

    use super::*;

    /// Cuts a body that comes in pieces of a size.
    async fn cut(body: &str, piece: usize) -> Result<Vec<String>, Status> {
        let pieces = body.as_bytes().chunks(piece);
        let pieces: Vec<_> = pieces
            .map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece)))
            .collect();
        let mut objects = Objects::new(Body::from_stream(stream::iter(pieces)));
        let mut found = Vec::new();
        while let Some(object) = objects.next().await? {
            found.push(String::from_utf8(object.to_vec()).unwrap());
        }
        Ok(found)
    }

    #[tokio::test]
    async fn objects_end_where_they_end_however_they_come() {
        let body = "\n {\"a\":[{},\"}\"]}{\"\\\"}\":\"\\\\\"}\r\n\t{} ";
        for piece in 1..=body.len() {
            let found = cut(body, piece).await.unwrap();
            assert_eq!(found, ["{\"a\":[{},\"}\"]}", "{\"\\\"}\":\"\\\\\"}", "{}"]);
        }
        assert!(cut(" \n", 1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_object_is_refused() {
        for body in ["[]", "null", "{}x", "{\"a\":\"", "{", "\"{}\""] {
            let refused = cut(body, 2).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{body}");
        }
    }

    #[tokio::test]
    async fn an_object_without_end_is_refused() {
        let long = format!("{{\"a\":\"{}", "x".repeat(OBJECT_MAX_BYTES));
        let refused = cut(&long, 1 << 16).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
}
