//! HTTP/1.1 by hand, so that whole answers are seen, and streams as they come: one request on each
//! connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What does not come by then does not come.
const WITHIN: Duration = Duration::from_secs(20);

/// An answer, up to its body.
pub struct Answer {
    pub status: u16,
    pub kind: String,
    body: Body,
}

enum Body {
    Chunks(BufReader<TcpStream>),
    Whole(BufReader<TcpStream>, u64),
}

/// Opens a connection and sends a request, without its body's end if it is open. The head is method
/// and path, and in lines of their own further headers.
pub fn begin(endpoint: &str, head: &str, body: &str, is_open: bool) -> std::io::Result<TcpStream> {
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_nodelay(true)?;
    let length = match is_open {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", body.len()),
    };
    let (head, headers) = head.split_once('\n').unwrap_or((head, "Accept: */*"));
    let lines = [
        &format!("{head} HTTP/1.1"),
        &format!("Host: {address}"),
        "Connection: close",
        headers,
        &length,
    ];
    write!(stream, "{}\r\n\r\n", lines.join("\r\n"))?;
    match is_open {
        true => more(&mut stream, body)?,
        false => stream.write_all(body.as_bytes())?,
    }
    Ok(stream)
}

/// Sends another piece of an open body.
pub fn more(stream: &mut TcpStream, piece: &str) -> std::io::Result<()> {
    write!(stream, "{:x}\r\n{piece}\r\n", piece.len())
}

/// Sends a request.
pub fn send(endpoint: &str, head: &str, body: &str) -> std::io::Result<Answer> {
    answer(begin(endpoint, head, body, false)?)
}

/// Reads an answer up to its body.
pub fn answer(stream: TcpStream) -> std::io::Result<Answer> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no HTTP: {first:?}")))?;
    let (mut kind, mut length, mut is_chunked) = (String::new(), 0, false);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        match &name.to_ascii_lowercase()[..] {
            "content-type" => kind = value.to_owned(),
            "content-length" => length = value.parse().unwrap(),
            "transfer-encoding" => is_chunked = value == "chunked",
            _ => {}
        }
    }
    let body = match is_chunked {
        true => Body::Chunks(stream),
        false => Body::Whole(stream, length),
    };
    Ok(Answer { status, kind, body })
}

impl Answer {
    /// The next piece of the body; none at its end.
    fn piece(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let (stream, length) = match &mut self.body {
            Body::Whole(_, 0) => return Ok(None),
            Body::Whole(stream, length) => (stream, std::mem::take(length)),
            Body::Chunks(stream) => {
                let mut line = String::new();
                stream.read_line(&mut line)?;
                let length = u64::from_str_radix(line.trim_end(), 16);
                (stream, length.map_err(std::io::Error::other)?)
            }
        };
        let mut piece = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut piece)?;
        if let Body::Chunks(stream) = &mut self.body {
            stream.read_line(&mut String::new())?;
            if piece.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(piece))
    }

    /// The body up to so many lines, or its end.
    pub fn lines(&mut self, lines: usize) -> std::io::Result<Vec<String>> {
        let mut text = Vec::new();
        while text.iter().filter(|byte| **byte == b'\n').count() < lines {
            let Some(piece) = self.piece()? else { break };
            text.extend(piece);
        }
        let text = String::from_utf8(text).map_err(std::io::Error::other)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The whole body.
    pub fn text(mut self) -> std::io::Result<String> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece()? {
            text.extend(piece);
        }
        String::from_utf8(text).map_err(std::io::Error::other)
    }
}
