//! One port for pages and for STUN, in the open and within TLS, and a certificate that is renewed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use portway_protocol::key::SigningKey;
use portway_protocol::secret::Secret;
use portway_protocol::signal::IceServer;
use portway_signaling::config::{Stun, TlsFiles};
use portway_signaling::relay::{Issuer, Lease, Relay, StunConnection};
use portway_signaling::store::Sqlite;
use portway_signaling::{Assets, Config, Signaling};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// The head of a Binding request; who takes the connection reads the rest.
const BINDING: &[u8] = &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];

/// A relay of which only the way to it is looked at.
struct Taker(mpsc::Sender<StunConnection>);

impl Issuer for Taker {
    fn issue(&self, _: &Lease) -> Vec<IceServer> {
        Vec::new()
    }
}

impl Relay for Taker {
    fn take(&self, connection: StunConnection) {
        self.0.try_send(connection).unwrap();
    }
}

/// Writes a certificate for `localhost` that nobody has signed.
fn certify(files: &TlsFiles) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["home.localhost".to_owned()]).unwrap();
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

fn files(folder: &Path) -> TlsFiles {
    TlsFiles {
        certificate: folder.join("chain.pem"),
        key: folder.join("key.pem"),
    }
}

async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "home.localhost".try_into().unwrap();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

#[tokio::test]
async fn pages_and_stun_share_a_port() {
    let folder = TempDir::new().unwrap();
    let files = files(folder.path());
    let first = certify(&files);
    let config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        cluster: "home".parse().unwrap(),
        cluster_keys: vec![SigningKey::from_seed(&Secret::new([1; 32])).public()],
        domain: "localhost".into(),
        tls: Some(files.clone()),
        ice_servers: Vec::new(),
        stun: Stun::Relay,
        version: "test".into(),
    };
    let store = Box::new(Sqlite::in_memory().unwrap());
    let signaling = Signaling::bind(config, Assets::new(&[], "hash"), store)
        .await
        .unwrap();
    let (sender, mut taken) = mpsc::channel(1);
    signaling.offer_relay(Arc::new(Taker(sender)));
    let (address, handle) = (signaling.local_addr().unwrap(), signaling.handle());
    let mut tasks = JoinSet::new();
    tasks.spawn(signaling.run(CancellationToken::new()));

    let mut open = TcpStream::connect(address).await.unwrap();
    open.write_all(BINDING).await.unwrap();
    let mut connection = taken.recv().await.unwrap();
    assert_eq!(connection.peer, open.local_addr().unwrap());
    assert!(connection.tls.is_none());
    let mut said = [0; BINDING.len()];
    connection.socket.read_exact(&mut said).unwrap();
    assert_eq!(said, BINDING, "nothing was taken out");

    let mut within = connect(address, &first).await.unwrap();
    within.write_all(BINDING).await.unwrap();
    let mut connection = taken.recv().await.unwrap();
    let mut said = [0; BINDING.len()];
    let tls = connection.tls.as_mut().unwrap();
    tls.reader().read_exact(&mut said).unwrap();
    assert_eq!(said, BINDING, "nothing was taken out");

    let page = format!(
        "GET /_portway/health HTTP/1.1\r\nhost: home.localhost:{}\r\nconnection: close\r\n\r\n",
        address.port()
    );
    let mut browser = connect(address, &first).await.unwrap();
    browser.write_all(page.as_bytes()).await.unwrap();
    let mut answer = String::new();
    browser.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(taken.is_empty());

    let second = certify(&files);
    assert!(connect(address, &second).await.is_err(), "not asked to yet");
    handle.renew(&files).unwrap();
    connect(address, &second).await.unwrap();
    std::fs::write(&files.key, "nonsense").unwrap();
    handle.renew(&files).unwrap_err();
    connect(address, &second).await.unwrap();
}
