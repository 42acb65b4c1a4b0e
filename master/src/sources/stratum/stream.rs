//! The way to a pool: TCP, with TLS where its address says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use flota_proto::sources::PoolConfig;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

/// Where a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its name or number.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// With TLS.
    pub tls: bool,
}

/// Reads `stratum+tcp://host:port` and its likes.
///
/// # Errors
/// What is allowed.
pub fn address(text: &str) -> Result<Address, String> {
    let allowed = || "must be stratum+tcp://HOST:PORT, or stratum+ssl://HOST:PORT for TLS".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(allowed)?;
    let tls = match scheme {
        "stratum+tcp" => false,
        "stratum+ssl" | "stratum+tls" => true,
        _ => return Err(allowed()),
    };
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(allowed)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(allowed)?;
    if host.is_empty() || !host.chars().all(plain) {
        return Err(allowed());
    }
    Ok(Address { host: host.to_owned(), port, tls })
}

/// A connection.
pub enum Stream {
    /// In clear.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to `pool`.
///
/// # Errors
/// Why it can't.
pub async fn connect(pool: &PoolConfig) -> Result<Stream, String> {
    let address = address(&pool.url)?;
    let connected = TcpStream::connect((address.host.as_str(), address.port)).await;
    let tcp = connected.map_err(|error| format!("no connection: {error}"))?;
    let _ = tcp.set_nodelay(true);
    if !address.tls {
        return Ok(Stream::Plain(tcp));
    }
    let name = ServerName::try_from(address.host).map_err(|error| format!("its name can't be checked: {error}"))?;
    let connector = TlsConnector::from(Arc::new(client_config(pool.tls_fingerprint.as_deref())?));
    let tls = connector.connect(name, tcp).await.map_err(|error| format!("no TLS: {error}"))?;
    Ok(Stream::Tls(Box::new(tls)))
}

fn client_config(fingerprint: Option<&str>) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?;
    if let Some(fingerprint) = fingerprint {
        let digest = fingerprint_bytes(fingerprint)?;
        let pinned = Arc::new(Pinned { digest, provider });
        return Ok(builder.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A certificate's SHA-256 from hex, with or without colons.
///
/// # Errors
/// What is allowed.
pub fn fingerprint_bytes(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text.replace(':', "")).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "must be the SHA-256 of a certificate: 64 hex digits".to_owned())
}

/// Takes the one certificate that the operator named, and no other.
#[derive(Debug)]
struct Pinned {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if Sha256::digest(end_entity)[..] == self.digest {
            return Ok(ServerCertVerified::assertion());
        }
        Err(TlsError::General("the pool's certificate is not the one of tls_fingerprint".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_pools() {
        let at = |host: &str, port, tls| Ok(Address { host: host.into(), port, tls });
        assert_eq!(address("stratum+tcp://pool.example.org:3333"), at("pool.example.org", 3333, false));
        assert_eq!(address("stratum+ssl://[::1]:443/"), at("::1", 443, true));
        for wrong in [
            "",
            "pool:3333",
            "http://pool:3333",
            "stratum+tcp://pool",
            "stratum+tcp://:1",
            "stratum+tcp://a b:1",
            "stratum+tcp://u@pool:1",
            "stratum+tcp://pool:0",
            "stratum+tcp://pool:99999",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
