//! An HTTP/1.1 client of one connection.
//!
//! Owns requests with GET and responses with a Content-Length, which is all that the lab's servers send. Every wait is
//! bounded.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The header `X-Server`: who answered.
    pub server: String,
    /// The header `X-Client`: address and port of the client as the server sees them, with a blank between; or empty.
    pub client: String,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection to a web server.
pub struct HttpConnection {
    stream: TcpStream,
    target: SocketAddr,
    received: Vec<u8>,
}

impl HttpConnection {
    /// Connects. `timeout` bounds this and every later wait for data.
    pub fn open(target: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&target, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(HttpConnection { stream, target, received: Vec::new() })
    }

    /// The address that this end uses.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends a request and reads the whole response. `last` asks the server to close the connection.
    pub fn get(&mut self, path: &str, last: bool) -> io::Result<Response> {
        let connection = if last { "close" } else { "keep-alive" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.target);
        self.stream.write_all(request.as_bytes())?;
        loop {
            if let Some(head) = parse_head(&self.received)? {
                let end = head.length + head.body;
                while self.received.len() < end {
                    self.receive()?;
                }
                let body = self.received[head.length..end].to_vec();
                self.received.drain(..end);
                return Ok(Response { status: head.status, server: head.server, client: head.client, body });
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16384];
        match self.stream.read(&mut chunk)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed in the middle of a response")),
            count => {
                self.received.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}

/// One request on a connection of its own.
pub fn get(target: SocketAddr, path: &str, timeout: Duration) -> io::Result<Response> {
    HttpConnection::open(target, timeout)?.get(path, true)
}

struct Head {
    status: u16,
    server: String,
    client: String,
    length: usize,
    body: usize,
}

/// The head of a response, once all of it is there.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes).map_err(|error| wrong(format!("not an HTTP response: {error}")))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return Ok(None),
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let body = header("content-length")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| wrong("a response without Content-Length".into()))?;
    let server = header("x-server").unwrap_or("?").to_owned();
    let client = header("x-client").unwrap_or_default().to_owned();
    Ok(Some(Head { status: response.code.unwrap_or(0), server, client, length, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Server: server2\r\n\r\nabc";
        assert!(parse_head(&text[..30]).unwrap().is_none());
        let head = parse_head(text).unwrap().unwrap();
        assert_eq!((head.status, head.server.as_str(), head.body), (200, "server2", 3));
        assert_eq!(&text[head.length..], b"abc");
        assert!(parse_head(b"SSH-2.0-x\r\n\r\n").is_err());
        assert!(parse_head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
