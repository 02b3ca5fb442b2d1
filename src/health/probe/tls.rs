//! TLS of checks: what is trusted, sessions, and what is wrong with a certificate.
//!
//! Owns the words of TLS errors. Reading the authorities touches files and takes milliseconds: [`configure`] is for a thread
//! that may wait.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::stream::Security;
use crate::health::{Outcome, Reason};
use crate::model::TlsCheck;

/// What is trusted: checks with the same share it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Whoever answers.
    Anybody,
    /// The system's authorities.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

impl Trust {
    /// What that check trusts.
    pub fn of(check: &TlsCheck) -> Trust {
        match &check.authorities {
            _ if !check.verify => Trust::Anybody,
            Some(path) => Trust::File(path.clone()),
            None => Trust::System,
        }
    }
}

/// Reads what is trusted.
///
/// # Errors
/// A file that cannot be read or has no certificate, in words.
pub fn configure(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Anybody => Arc::new(Unverified(Arc::clone(&provider))),
        Trust::System => authorities(rustls_native_certs::load_native_certs().certs, "this system", &provider)?,
        Trust::File(path) => {
            let place = path.display();
            let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect)
                .map_err(|error| format!("cannot read the authorities in {place}: {error}"));
            authorities(found?, &place.to_string(), &provider)?
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    // A resumed session shows no certificate.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn authorities(
    found: Vec<CertificateDer<'static>>,
    place: &str,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        return Err(format!(
            "{place} has no certificates of authorities: name a PEM file that has, or turn verification off"
        ));
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    Ok(verifier.map_err(|error| format!("the authorities of {place} cannot be used: {error}"))?)
}

/// Takes every certificate: what is asked then is whether the server speaks TLS, and what is below it.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A session with the server at `address`; `alpn` is what is offered.
///
/// # Errors
/// Why there is none, as the outcome of the attempt.
pub fn session(security: &Security, address: IpAddr, alpn: &[&[u8]]) -> Result<ClientConnection, Outcome> {
    let name = match &security.wanted.name {
        Some(name) => ServerName::try_from(name.clone())
            .map_err(|_| Outcome::Unable(format!("`{name}` is no name that TLS can ask for")))?,
        None => ServerName::from(address),
    };
    let alpn = alpn.iter().map(|name| name.to_vec()).collect();
    ClientConnection::new_with_alpn(Arc::clone(&security.config), name, alpn)
        .map_err(|error| Outcome::Unable(format!("TLS cannot be used: {error}")))
}

/// What went wrong in a session.
pub fn failed(error: &Error, handshake: bool) -> Outcome {
    let words = match error {
        Error::InvalidCertificate(wrong) => return Outcome::bad(Reason::Certificate, certificate(wrong)),
        Error::InvalidMessage(_) if handshake => "the server does not speak TLS on this port".to_owned(),
        Error::AlertReceived(alert) => format!("the server refused TLS: alert {alert:?}"),
        Error::NoApplicationProtocol => "the server has none of the protocols that TLS offered (ALPN)".to_owned(),
        Error::NoCertificatesPresented => "the server has no certificate".to_owned(),
        other => format!("TLS failed: {other}"),
    };
    Outcome::bad(Reason::Tls, words)
}

fn certificate(wrong: &CertificateError) -> String {
    let date = |time: &UnixTime| {
        let time =
            i64::try_from(time.as_secs()).ok().and_then(|secs| x509_parser::time::ASN1Time::from_timestamp(secs).ok());
        time.map_or_else(String::new, |time| format!(" ({time})"))
    };
    match wrong {
        CertificateError::Expired => "the certificate has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!("the certificate has expired{}", date(not_after)),
        CertificateError::NotValidYet => "the certificate is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid yet{}", date(not_before))
        }
        CertificateError::UnknownIssuer => "the certificate is of an authority that is not trusted".to_owned(),
        CertificateError::Revoked => "the certificate is revoked".to_owned(),
        CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(String::as_str).take(3).collect();
            let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
            let shown: String = names.chars().filter(|letter| !letter.is_control()).take(120).collect();
            format!("the certificate is for {shown}, wanted {}", expected.to_str())
        }
        other => format!("the certificate is not valid: {other}"),
    }
}

/// What to say of the end of the server's own certificate, the first of `chain`, when that is in less than `days`.
pub fn expiry(chain: &[CertificateDer<'_>], days: u32) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(chain.first()?).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    ends(parsed.validity().not_after.timestamp(), i64::try_from(now).unwrap_or(i64::MAX), days)
}

/// Both times in seconds since 1970.
fn ends(end: i64, now: i64, days: u32) -> Option<String> {
    const DAY: i64 = 86_400;
    let counted = |count: i64, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    let left = end.saturating_sub(now);
    if left < 0 {
        let ago = left.saturating_neg();
        let ago = if ago < DAY { counted(ago / 3600, "hour") } else { counted(ago / DAY, "day") };
        return Some(format!("certificate ended {ago} ago"));
    }
    if left >= i64::from(days) * DAY {
        return None;
    }
    let left = if left < DAY { counted(left / 3600, "hour") } else { counted(left / DAY, "day") };
    Some(format!("certificate ends in {left}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate() {
        const DAY: i64 = 86_400;
        for (left, days, expected) in [
            (DAY * 31, 30, None),
            (DAY * 30, 30, None),
            (DAY * 30 - 1, 30, Some("certificate ends in 29 days")),
            (DAY * 5 + 10, 30, Some("certificate ends in 5 days")),
            (DAY + 10, 30, Some("certificate ends in 1 day")),
            (7200, 30, Some("certificate ends in 2 hours")),
            (7200, 0, None),
            (-7200, 0, Some("certificate ended 2 hours ago")),
            (-DAY * 3, 30, Some("certificate ended 3 days ago")),
        ] {
            assert_eq!(ends(1_000_000_000 + left, 1_000_000_000, days).as_deref(), expected, "{left} {days}");
        }
    }

    #[test]
    fn a_file_without_authorities_is_named() {
        let none = Trust::File("/nowhere/authorities.pem".into());
        let error = configure(&none).expect_err("no such file");
        assert!(error.starts_with("cannot read the authorities in /nowhere/authorities.pem: "), "{error}");
        assert!(configure(&Trust::Anybody).is_ok());
    }
}
