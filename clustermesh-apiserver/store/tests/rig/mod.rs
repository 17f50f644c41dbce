//! A store with TLS on loopback, an authority, and clients by common name.
#![allow(dead_code, reason = "each test file uses its part")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use isthmus_store::mvcc::Retention;
use isthmus_store::{AccessPolicy, AuthMode, ServeOptions, Server, StoreHandle};
use isthmus_trust::{
    Authority, ClientName, LeafRequest, PairFiles, ServerNames, ServerTls, TlsFiles, Validity,
};
use jiff::Timestamp;

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    ca: Authority,
    pub(crate) store: StoreHandle,
    pub(crate) server: Server,
}

impl Rig {
    /// The store of cluster `east`.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let (ca, _) = Authority::ensure(
            "CA east",
            &dir.path().join("ca.crt"),
            &dir.path().join("ca.key"),
            now,
        )
        .unwrap();
        let files = TlsFiles::in_directory(dir.path());
        let request = LeafRequest::server(&ServerNames::default(), Validity::days(now, 30)).unwrap();
        ca.ensure_leaf(&request, &files.pair, now).unwrap();
        let tls = Arc::new(ServerTls::load(files, now).unwrap());
        let store = StoreHandle::new(
            AccessPolicy::new("east", AuthMode::Migration),
            Retention::default(),
        );
        let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let server = Server::start(&store, ServeOptions { listen, tls }).await.unwrap();
        Self {
            dir,
            ca,
            store,
            server,
        }
    }

    /// Certificate and key of a client, made when first asked for.
    pub(crate) fn pair(&self, common_name: &str) -> PairFiles {
        let name = ClientName::parse(common_name).unwrap();
        let files = PairFiles::new(
            self.path(&format!("{common_name}.crt")),
            self.path(&format!("{common_name}.key")),
        );
        let now = Timestamp::now();
        self.ca
            .ensure_leaf(&LeafRequest::client(&name, Validity::days(now, 30)), &files, now)
            .unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn client(&self, common_name: &str) -> Client {
        let files = self.pair(common_name);
        let read = |path: &Path| std::fs::read(path).unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(&self.path("ca.crt"))))
            .identity(Identity::from_pem(read(&files.certificate), read(&files.key)))
            .domain_name("east.mesh.cilium.io");
        let url = format!("https://{}", self.server.address());
        Client::connect([url], Some(ConnectOptions::new().with_tls(tls)))
            .await
            .unwrap()
    }

    /// `etcdctl` of API 3 as a client of this store.
    pub(crate) fn etcdctl(&self, common_name: &str) -> Command {
        let files = self.pair(common_name);
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(format!("https://{}", self.server.address()));
        command.arg("--cacert").arg(self.path("ca.crt"));
        command
            .arg("--cert")
            .arg(files.certificate)
            .arg("--key")
            .arg(files.key);
        command.stdin(Stdio::null());
        command
    }

    /// Runs etcdctl without blocking the server's threads.
    pub(crate) async fn run(&self, common_name: &str, args: &[&str]) -> Output {
        let mut command = self.etcdctl(common_name);
        command.args(args);
        tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap()
    }

    /// Runs etcdctl and answers its standard output; it must succeed.
    pub(crate) async fn ok(&self, common_name: &str, args: &[&str]) -> String {
        let output = self.run(common_name, args).await;
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs etcdctl, which must fail, and answers what it complains of.
    pub(crate) async fn refused(&self, common_name: &str, args: &[&str]) -> String {
        let output = self.run(common_name, args).await;
        assert!(!output.status.success(), "{args:?} should fail");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Whether a program is there; says so if the test has to skip.
pub(crate) fn has(program: &str, package: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed (Debian package {package})");
    }
    found
}
