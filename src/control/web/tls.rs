//! TLS of the web listener: certificate and key as they are in their files, and what is wrong with them.
//!
//! Owns what is spoken: TLS 1.2 and 1.3, and HTTP/1.1 over it. Pure: the files' contents and the time are parameters.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, InconsistentKeys, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What is wrong with a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file of the certificate.
    Certificate(String),
    /// The file of the key.
    Key(String),
}

/// When a certificate is right, Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From here.
    pub from: i64,
    /// To here.
    pub to: i64,
}

/// What is needed to speak TLS. `chain` and `secret`: PEM.
///
/// # Errors
/// [`Fault`]: what is no PEM, or does not fit.
pub fn server(chain: &[u8], secret: &[u8]) -> Result<Arc<ServerConfig>, Fault> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(secret).map_err(|_| {
        let what = if secret.windows(10).any(|part| part == b"ENCRYPTED ") {
            "the key is encrypted, and nobody is there to type its password: `openssl pkey -in FILE -out NEW` writes it without"
        } else {
            "there is no private key in it"
        };
        Fault::Key(what.to_owned())
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Fault::Key(format!("TLS cannot be used: {error}")))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Fault::Key("the key is not that of the certificate".to_owned())
            }
            Error::InvalidCertificate(why) => Fault::Certificate(format!("the certificate cannot be used: {why:?}")),
            other => Fault::Key(format!("certificate and key cannot be used: {other}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(chain: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let found = found.map_err(|error| Fault::Certificate(format!("it is no sound PEM: {error}")))?;
    if found.is_empty() {
        return Err(Fault::Certificate("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

/// When the first certificate of a chain is right, as far as it can be read.
pub fn validity(chain: &[u8]) -> Option<Validity> {
    let found = certificates(chain).ok()?;
    let (_, first) = X509Certificate::from_der(found.first()?).ok()?;
    let validity = first.validity();
    Some(Validity { from: validity.not_before.timestamp(), to: validity.not_after.timestamp() })
}

/// Days before its end from which on a certificate is spoken of.
const SOON_DAYS: i64 = 14;

/// What is to be said of a certificate's time at `now`, Unix time.
pub fn doubt(chain: &[u8], now: i64) -> Option<String> {
    let Validity { from, to } = validity(chain)?;
    let days = |seconds: i64| seconds / 86_400;
    if now < from {
        return Some(format!("the certificate is not valid yet: it is from in {} days on", days(from - now) + 1));
    }
    if now >= to {
        return Some(format!("the certificate expired {} days ago", days(now - to)));
    }
    (days(to - now) < SOON_DAYS).then(|| format!("the certificate expires in {} days", days(to - now)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["lb1".to_owned()]).expect("parameters");
        (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let ((chain, key), (_, other)) = (pair(), pair());
        assert!(server(chain.as_bytes(), key.as_bytes()).is_ok());
        let both = format!("{chain}{key}");
        assert!(server(both.as_bytes(), both.as_bytes()).is_ok());
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (chain, key, fault, part) in [
            ("", key.as_str(), "c", "there is no certificate"),
            ("hello", &key, "c", "there is no certificate"),
            (&key, &key, "c", "there is no certificate"),
            ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", &key, "c", "no sound PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key, "c", "cannot be used"),
            (&chain, "", "k", "there is no private key"),
            (&chain, &chain, "k", "there is no private key"),
            (&chain, encrypted, "k", "is encrypted"),
            (&chain, &other, "k", "not that of the certificate"),
        ] {
            let found = server(chain.as_bytes(), key.as_bytes()).map(drop).unwrap_err();
            let (which, why) = match &found {
                Fault::Certificate(why) => ("c", why),
                Fault::Key(why) => ("k", why),
            };
            assert!(which == fault && why.contains(part), "{found:?}");
        }
    }

    #[test]
    fn its_time_is_told() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["lb1".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 3, 1);
        let chain = params.self_signed(&key).expect("a certificate").pem();
        let (from, to) = (1_893_456_000, 1_898_553_600);
        assert_eq!(validity(chain.as_bytes()), Some(Validity { from, to }));
        for (now, part) in [
            (from - 1, Some("not valid yet")),
            (from, None),
            (to - 15 * 86_400, None),
            (to - 86_400, Some("expires in 1 days")),
            (to, Some("expired 0 days ago")),
            (to + 86_400 * 9, Some("expired 9 days ago")),
        ] {
            let said = doubt(chain.as_bytes(), now);
            assert_eq!(said.is_some(), part.is_some(), "{said:?}");
            assert!(said.is_none_or(|said| part.is_some_and(|part| said.contains(part))));
        }
        assert_eq!(doubt(b"", 0), None);
    }
}
