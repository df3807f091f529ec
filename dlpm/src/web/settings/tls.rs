//! TLS: certificate, key and who may connect.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

/// A text in PEM, and where it came from.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::web) struct Pem {
    /// The key of the file and, where it names one, the file.
    pub(in crate::web) origin: String,
    pub(in crate::web) text: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A private key belongs into no message.
        write!(formatter, "Pem({})", self.origin)
    }
}

/// A version of TLS, as Go names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::web) enum Version {
    Tls12,
    Tls13,
}

impl Version {
    pub(super) fn from_word(word: &str) -> Result<Self, String> {
        match word {
            "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            "TLS10" | "TLS11" => Err(format!("{word} is not secure, and not supported; give TLS12 or TLS13")),
            _ => Err("it is not a version of TLS; give TLS12 or TLS13".to_owned()),
        }
    }

    fn as_rustls(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }
}

/// Whether clients show a certificate of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::web) enum ClientAuth {
    /// No.
    None,
    /// If they have one it is verified.
    IfGiven,
    /// A client without a valid one is not let in.
    Required,
}

/// What `tls_server_config` says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::web) struct Tls {
    pub(super) certificate: Pem,
    pub(super) key: Pem,
    pub(super) client_ca: Option<Pem>,
    pub(super) client_auth: ClientAuth,
    pub(super) lowest: Version,
    pub(super) highest: Version,
}

/// What is wrong with a certificate or a key.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {what}")]
pub(in crate::web) struct TlsError {
    origin: String,
    what: String,
}

impl Pem {
    fn wrong(&self, what: impl fmt::Display) -> TlsError {
        TlsError {
            origin: self.origin.clone(),
            what: what.to_string(),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(self.text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| self.wrong(format!("it is not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(self.wrong("there is no certificate in it (`-----BEGIN CERTIFICATE-----`)"));
        }
        Ok(certificates)
    }

    /// Who is trusted, where these are authorities.
    ///
    /// # Errors
    ///
    /// It is not PEM, has no certificate, or one that cannot be used.
    pub(in crate::web) fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            roots.add(certificate).map_err(|error| self.wrong(error))?;
        }
        Ok(roots)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        if self.text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            return Err(self.wrong("the key is encrypted, and nobody could type its password; store it without one"));
        }
        PrivateKeyDer::from_pem_slice(self.text.as_bytes()).map_err(|error| match error {
            pem::Error::NoItemsFound => self.wrong("there is no private key in it (`-----BEGIN PRIVATE KEY-----`)"),
            error => self.wrong(format!("it is not PEM: {error}")),
        })
    }
}

impl Tls {
    /// The configuration of a server.
    ///
    /// # Errors
    ///
    /// A certificate or key that cannot be used, with the place it came from.
    pub(in crate::web) fn server(&self) -> Result<ServerConfig, TlsError> {
        let versions: Vec<_> = [Version::Tls12, Version::Tls13]
            .into_iter()
            .filter(|version| (self.lowest..=self.highest).contains(version))
            .map(Version::as_rustls)
            .collect();
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .map_err(|error| self.certificate.wrong(error))?;
        let builder = match &self.client_ca {
            Some(authority) if self.client_auth != ClientAuth::None => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()?), provider);
                let verifier = match self.client_auth {
                    ClientAuth::IfGiven => verifier.allow_unauthenticated(),
                    ClientAuth::None | ClientAuth::Required => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| authority.wrong(error))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let (certificates, key) = (self.certificate.certificates()?, self.key.private_key()?);
        let mut server = builder
            .with_single_cert(certificates, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => self.key.wrong(format!(
                    "it is not the key of the certificate in {}",
                    self.certificate.origin
                )),
                rustls::Error::InvalidCertificate(why) => self.certificate.wrong(format!("invalid certificate: {why}")),
                error => self.key.wrong(error),
            })?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(server)
    }
}
