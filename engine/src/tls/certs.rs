//! Certificates and trust: files → rustls configurations. Runs at start and on SIGHUP, never on the data path.

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;

/// Why a certificate or key cannot be used.
#[derive(Debug, Error)]
pub enum CertError {
    /// The file cannot be read or holds no PEM of that kind.
    #[error("{what} {path}: {reason}; give a PEM file that the server may read", path = path.display())]
    File {
        /// `certificate`, `private key` or `CA file`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// Certificate and key do not fit each other, or the key is of an unknown kind.
    #[error("certificate {cert} and key {key}: {reason}", cert = cert.display(), key = key.display())]
    Pair {
        /// Certificate file.
        cert: PathBuf,
        /// Key file.
        key: PathBuf,
        /// What rustls said.
        reason: String,
    },
    /// No root certificates for deliveries that require TLS.
    #[error("no root certificates: {0}; install the system's CA certificates or set [delivery] ca_file")]
    Roots(String),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Server configuration of a listener from its PEM files.
///
/// # Errors
/// [`CertError`] names the file.
pub fn server(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, CertError> {
    let file_error = |what, path: &Path, reason: String| CertError::File { what, path: path.into(), reason };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error("certificate", cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(file_error("certificate", cert, "no certificate in it".into()));
    }
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|error| file_error("private key", key, error.to_string()))?;
    let pair_error =
        |error: rustls::Error| CertError::Pair { cert: cert.into(), key: key.into(), reason: error.to_string() };
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(pair_error)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(pair_error)?;
    Ok(Arc::new(config))
}

/// Client configurations for deliveries.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Takes any certificate (RFC 7435: better encrypted to someone than to nobody).
    pub opportunistic: Arc<ClientConfig>,
    /// Takes only what chains to a known root and carries the host's name.
    pub required: Arc<ClientConfig>,
}

impl Trust {
    /// Roots from `ca_file` if given, else the system's.
    ///
    /// # Errors
    /// [`CertError`] when `ca_file` cannot be read. A host without system roots only fails the deliveries that
    /// require a verified certificate.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, CertError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = ca_file {
            let file_error = |reason: String| CertError::File { what: "CA file", path: path.into(), reason };
            for cert in CertificateDer::pem_file_iter(path).map_err(|error| file_error(error.to_string()))? {
                let cert = cert.map_err(|error| file_error(error.to_string()))?;
                roots.add(cert).map_err(|error| file_error(error.to_string()))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let builder = || {
            ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| CertError::Roots(error.to_string()))
        };
        let required = builder()?.with_root_certificates(roots).with_no_client_auth();
        let opportunistic = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
            .with_no_client_auth();
        Ok(Self { opportunistic: Arc::new(opportunistic), required: Arc::new(required) })
    }
}

/// Checks that the peer holds the key of the certificate it shows, and nothing about who that is.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
