//! A small HTTPS server of our own, with an authority of its own, that does what a test wants of it.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// Who vouches for servers and clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// A certificate and its key.
pub struct Identity {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// For a server of this name, good until the end of this year.
    pub fn identity(&self, name: &str, last_year: i32) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(last_year, 12, 31);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        Identity {
            certificate: params.signed_by(&key, &self.issuer).expect("a certificate"),
            key,
        }
    }

    /// The file to trust it by.
    pub fn file(&self, directory: &Path) -> PathBuf {
        let path = directory.join("ca.pem");
        std::fs::write(&path, self.certificate.pem()).expect("a file");
        path
    }
}

impl Identity {
    /// The files of certificate and key.
    pub fn files(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (directory.join("own.pem"), directory.join("own.key"));
        std::fs::write(&certificate, self.certificate.pem()).expect("a file");
        std::fs::write(&key, self.key.serialize_pem()).expect("a file");
        (certificate, key)
    }
}

/// What the server does with a request.
#[derive(Clone)]
pub enum Act {
    /// Sends these bytes, head and all.
    Send(Vec<u8>),
    /// Sends these bytes, then nothing for so long.
    Stall(Vec<u8>, Duration),
}

/// An answer with a body.
pub fn answer(head: &str, body: impl AsRef<[u8]>) -> Act {
    let body = body.as_ref();
    let mut bytes = format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend(body);
    Act::Send(bytes)
}

type Behaviour = dyn Fn(&str) -> Act + Send + Sync;

/// A server that runs until the test ends.
pub struct Server {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves on an address, port 0 for any; asks clients for a certificate of `clients` if there is one.
    pub fn start(
        address: SocketAddr,
        identity: &Identity,
        clients: Option<&Authority>,
        behaviour: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(authority.certificate.der().clone())
                    .expect("an authority");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let chain: Vec<CertificateDer<'static>> = vec![identity.certificate.der().clone()];
        let key = PrivateKeyDer::try_from(identity.key.serialize_der()).expect("a key");
        let config = Arc::new(builder.with_single_cert(chain, key).expect("a configuration"));
        Self::listen(address, Some(config), Arc::new(behaviour))
    }

    /// The same without TLS.
    pub fn start_plain(address: SocketAddr, behaviour: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        Self::listen(address, None, Arc::new(behaviour))
    }

    fn listen(address: SocketAddr, config: Option<Arc<ServerConfig>>, behaviour: Arc<Behaviour>) -> Self {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, behaviour, seen) = (config.clone(), behaviour.clone(), seen.clone());
                // A client that goes away is no failure of the server's.
                thread::spawn(move || {
                    let _ = serve(stream, config, &*behaviour, &seen);
                });
            }
        });
        Self { address, requests }
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn serve(
    stream: TcpStream,
    config: Option<Arc<ServerConfig>>,
    behaviour: &Behaviour,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    match config {
        None => converse(stream, behaviour, seen),
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
            let mut stream = StreamOwned::new(connection, stream);
            converse(&mut stream, behaviour, seen)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
    }
}

fn converse(
    mut stream: impl std::io::Read + std::io::Write,
    behaviour: &Behaviour,
    seen: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let act = behaviour(&head);
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    match act {
        Act::Send(bytes) => stream.write_all(&bytes)?,
        Act::Stall(bytes, time) => {
            stream.write_all(&bytes)?;
            stream.flush()?;
            thread::sleep(time);
        }
    }
    stream.flush()
}
