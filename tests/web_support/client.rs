//! A client that says what it is told to say, and reads one answer.
//!
//! Owns no connection.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

#[derive(Debug)]
pub struct Response {
    pub code: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

pub fn send(stream: &mut TcpStream, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        text.push_str("Host: 127.0.0.1\r\n");
    }
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes()).unwrap();
    receive(stream, method == "HEAD").unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// One response, and not a byte more.
pub fn receive(stream: &mut TcpStream, headless: bool) -> std::io::Result<Response> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    let mut response = Response { code, head, body: Vec::new() };
    if headless || code == 204 {
        return Ok(response);
    }
    if let Some(length) = response.header("content-length") {
        response.body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut response.body)?;
        return Ok(response);
    }
    assert_eq!(response.header("transfer-encoding"), Some("chunked"), "{}", response.head);
    while let Some(chunk) = chunk(stream)? {
        response.body.extend(chunk);
    }
    Ok(response)
}

pub fn chunk(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        size.push(byte[0]);
    }
    let length = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
    let mut data = vec![0; length + 2];
    stream.read_exact(&mut data)?;
    data.truncate(length);
    Ok((length > 0).then_some(data))
}
