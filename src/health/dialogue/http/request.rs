//! An HTTP request as it is sent (RFC 9112; RFC 1945 for HTTP/1.0, as keepalived's check_http.c has it). Pure.
//!
//! Owns which header lines there are. Names and values come from a configuration that refuses control characters.

use std::net::{IpAddr, SocketAddr};

use crate::model::{CheckTarget, HttpCheck, HttpRequest};

/// Appends the request. With `last` the server is asked to close the connection after its answer.
pub fn write(request: &HttpRequest, check: &HttpCheck, target: &CheckTarget, last: bool, out: &mut Vec<u8>) {
    let version = if check.version_11 { "1.1" } else { "1.0" };
    let mut text = format!("{} {} HTTP/{version}\r\n", request.method, request.path);
    let mut header = |name: &str, value: &str| {
        // What the configuration says takes the place of ours.
        if !request.headers.iter().any(|(theirs, _)| theirs.eq_ignore_ascii_case(name)) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    };
    let host = request.host.clone().unwrap_or_else(|| host(check, target));
    header("Host", &host);
    header("User-Agent", "evenkeel");
    if check.version_11 && last {
        header("Connection", "close");
    }
    // There is no body, which these methods have to say (RFC 9110, 8.6).
    if matches!(request.method.as_str(), "POST" | "PUT" | "PATCH") {
        header("Content-Length", "0");
    }
    for (name, value) in &request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    out.extend_from_slice(text.as_bytes());
}

/// The address as `Host`: its port only where it is not the usual one. In HTTP/1.0 keepalived always says it.
fn host(check: &HttpCheck, target: &CheckTarget) -> String {
    let usual = if check.tls.is_some() { 443 } else { 80 };
    match target.address {
        IpAddr::V6(address) if check.version_11 && target.port == usual => format!("[{address}]"),
        IpAddr::V4(address) if check.version_11 && target.port == usual => address.to_string(),
        address => SocketAddr::new(address, target.port).to_string(),
    }
}
