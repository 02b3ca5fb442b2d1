//! TLS of health checks against real sessions: what is trusted, names, ends of certificates, and servers without TLS.

mod health_support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;

use evenkeel::health::{Outcome, Reason};
use evenkeel::model::{CheckKind, HttpCheck, HttpRequest, Pace, TlsCheck};
use health_support::{BOTH, Checks, Server, V4, check, ms, pace};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// An authority and a server's certificate of it, which ends when that is said.
struct Certified {
    config: Arc<ServerConfig>,
    /// The authority, as PEM.
    authority: PathBuf,
}

impl Certified {
    fn new(name: &str, names: &[&str], end: (i32, u8, u8)) -> Certified {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, format!("authority {name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate and its key");
        let path = std::env::temp_dir().join(format!("evenkeel-health-tls-{name}-{}.pem", std::process::id()));
        std::fs::write(&path, authority.pem()).expect("a file");
        Certified { config: Arc::new(config), authority: path }
    }

    fn serve(&self) -> impl Fn(usize, TcpStream) + Send + Sync + 'static {
        let config = Arc::clone(&self.config);
        move |_, client| {
            let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = StreamOwned::new(session, client);
            let mut buffer = [0; 1024];
            if matches!(stream.read(&mut buffer), Ok(1..)) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
                let _ = stream.flush();
                let _ = stream.read(&mut buffer);
            }
        }
    }
}

impl Drop for Certified {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.authority);
    }
}

fn https(tls: TlsCheck) -> CheckKind {
    let request = HttpRequest {
        method: "GET".into(),
        path: "/".into(),
        host: None,
        headers: Vec::new(),
        status: vec![(200, 299)],
        body: None,
        digest: None,
    };
    CheckKind::Http(HttpCheck { tls: Some(tls), version_11: true, requests: vec![request] })
}

#[test]
fn certificates_are_believed_or_not() {
    let good = Certified::new("good", &["www.example.net", "127.0.0.1", "::1"], (2999, 1, 1));
    let other = Certified::new("other", &["www.example.net"], (2999, 1, 1));
    let over = Certified::new("over", &["www.example.net"], (2020, 1, 1));
    let tls = |name: Option<&str>, authority: Option<&Certified>, expiry_days| TlsCheck {
        name: name.map(str::to_owned),
        verify: authority.is_some(),
        authorities: authority.map(|authority| authority.authority.clone()),
        expiry_days,
    };
    for ip in BOTH {
        let (server, old) = (Server::start(ip, good.serve()), Server::start(ip, over.serve()));
        let www = Some("www.example.net");
        let checks = Checks::start(vec![
            (1, check(https(tls(www, Some(&good), 30)), server.address, pace())),
            (2, check(https(tls(None, Some(&good), 30)), server.address, pace())),
            (3, check(https(tls(www, Some(&other), 30)), server.address, pace())),
            (4, check(https(tls(Some("elsewhere.example.net"), Some(&good), 30)), server.address, pace())),
            (5, check(https(tls(www, Some(&over), 30)), old.address, pace())),
            (6, check(https(tls(www, None, 30)), old.address, pace())),
            (7, check(https(tls(www, Some(&good), 1_000_000)), server.address, pace())),
        ]);
        for id in [1, 2, 6, 7] {
            assert!(checks.first(id).0, "{id}: {}", checks.first(id).1);
        }
        for (id, expected) in [
            (3, "the certificate is of an authority that is not trusted"),
            (4, "the certificate is for "),
            (5, "the certificate has expired"),
        ] {
            let (reason, words) = checks.failure(id);
            assert_eq!(reason, Reason::Certificate);
            assert!(words.starts_with(expected), "{words}");
        }
        assert!(checks.failure(4).1.ends_with("wanted elsewhere.example.net"));
        let warning = |id| match checks.status(id).last {
            Some(Outcome::Good { warning, .. }) => warning,
            other => panic!("{other:?}"),
        };
        assert_eq!(warning(1), None);
        let old = warning(6).expect("it has ended");
        assert!(old.starts_with("certificate ended ") && old.ends_with(" days ago"), "{old}");
        let soon = warning(7).expect("it ends within a million days");
        assert!(soon.starts_with("certificate ends in "), "{soon}");
        checks.runs(1, 3);
        assert_eq!(checks.status(1).failed, 0);
    }
}

#[test]
fn what_is_no_tls() {
    let plain = Server::start(V4, |_, mut client| {
        let _ = client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        let _ = client.read(&mut [0; 1024]);
    });
    let mute = Server::start(V4, |_, mut client| while matches!(client.read(&mut [0; 1024]), Ok(1..)) {});
    let closes = Server::start(V4, |_, mut client| {
        let _ = client.read(&mut [0; 1024]);
    });
    // A record that promises more than there may be, without end.
    let endless = Server::start(V4, |_, mut client| {
        let _ = client.write_all(&[0x16, 3, 3, 0x40, 0]);
        while client.write_all(&[2; 16 * 1024]).is_ok() {}
    });
    let tls = TlsCheck { name: None, verify: false, authorities: None, expiry_days: 0 };
    let quick = Pace { timeout: ms(300), ..pace() };
    let missing = TlsCheck { verify: true, authorities: Some("/nowhere/authorities.pem".into()), ..tls.clone() };
    let checks = Checks::start(vec![
        (1, check(https(tls.clone()), plain.address, pace())),
        (2, check(https(tls.clone()), mute.address, quick)),
        (3, check(https(tls.clone()), closes.address, pace())),
        (4, check(https(tls), endless.address, pace())),
        (5, check(https(missing), mute.address, pace())),
    ]);
    assert_eq!(checks.failure(1), (Reason::Tls, "the server does not speak TLS on this port".into()));
    assert_eq!(checks.failure(2), (Reason::Timeout, "timed out in the TLS handshake after 300 ms".into()));
    let (reason, words) = checks.failure(3);
    assert!(reason == Reason::Tls || reason == Reason::Closed, "{words}");
    assert_eq!(checks.failure(4).0, Reason::Tls);
    checks.runs(5, 3);
    let status = checks.status(5);
    assert_eq!((status.up, status.failed), (None, 0));
    let Some(Outcome::Unable(words)) = status.last else { panic!("{:?}", status.last) };
    assert!(words.starts_with("cannot read the authorities in /nowhere/authorities.pem: "), "{words}");
}
