//! One apiserver with its own authority, a directory of manifests, and clients by common name.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use etcd_client::{Certificate, Client, ConnectOptions, GetOptions, Identity, TlsOptions};
use isthmus_admin::AdminClient;
use isthmus_admin::apiserver::ApiserverStatus;
use isthmus_testkit::{Process, free_tcp_port, wait_until_async};
use isthmus_trust::{Authority, ClientName, LeafRequest, PairFiles, ServerNames, Validity};
use jiff::Timestamp;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_clustermesh-apiserver");
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ca: Authority,
    pub(crate) port: u16,
    pub(crate) name: String,
}

impl Rig {
    /// Certificates and an empty directory of manifests; nothing runs yet.
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let path = |name: &str| dir.path().join(name);
        let (ca, _) =
            Authority::ensure(&format!("CA {name}"), &path("ca.crt"), &path("ca.key"), now).unwrap();
        let request = LeafRequest::server(&ServerNames::default(), Validity::days(now, 30)).unwrap();
        ca.ensure_leaf(&request, &PairFiles::new(path("tls.crt"), path("tls.key")), now)
            .unwrap();
        std::fs::create_dir(path("manifests")).unwrap();
        Self {
            port: free_tcp_port().unwrap(),
            dir,
            ca,
            name: name.to_owned(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn manifest(&self, name: &str, text: &str) {
        let fresh = self.path(name);
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.path("manifests").join(name)).unwrap();
    }

    pub(crate) fn remove_manifest(&self, name: &str) {
        std::fs::remove_file(self.path("manifests").join(name)).unwrap();
    }

    /// The command line that works; tests spoil it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(["--cluster-name", &self.name, "--cluster-id", "1"]);
        command.arg("--manifests").arg(self.path("manifests"));
        command.arg("--listen").arg(format!("127.0.0.1:{}", self.port));
        command.arg("--tls-dir").arg(self.dir.path());
        command.arg("--admin-socket").arg(self.path("admin.sock"));
        command
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) async fn start(&self) -> Process {
        let server = Process::start("clustermesh-apiserver", self.command()).unwrap();
        let admin = self.admin();
        wait_until_async(PATIENCE, "the apiserver is ready", async || {
            admin.text("/readyz").await.is_ok()
        })
        .await
        .unwrap();
        server
    }

    pub(crate) fn admin(&self) -> AdminClient {
        AdminClient::new(self.path("admin.sock"))
    }

    pub(crate) async fn status(&self) -> ApiserverStatus {
        self.admin().read("/v1/status").await.unwrap()
    }

    pub(crate) async fn client(&self, name: &ClientName) -> Client {
        let now = Timestamp::now();
        let common_name = name.common_name();
        let files = PairFiles::new(
            self.path(&format!("{common_name}.crt")),
            self.path(&format!("{common_name}.key")),
        );
        self.ca
            .ensure_leaf(&LeafRequest::client(name, Validity::days(now, 30)), &files, now)
            .unwrap();
        let read = |path: &Path| std::fs::read(path).unwrap();
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(read(&self.path("ca.crt"))))
            .identity(Identity::from_pem(read(&files.certificate), read(&files.key)))
            .domain_name("east.mesh.cilium.io");
        let url = format!("https://127.0.0.1:{}", self.port);
        Client::connect([url], Some(ConnectOptions::new().with_tls(tls)))
            .await
            .unwrap()
    }

    pub(crate) async fn admin_client(&self) -> Client {
        self.client(&ClientName::Admin(self.name.clone())).await
    }
}

/// A key with its value and where it stands in history.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

/// All keys.
pub(crate) async fn rows(client: &mut Client, prefix: &str) -> Vec<Row> {
    let response = client
        .get(prefix, Some(GetOptions::new().with_prefix()))
        .await
        .unwrap();
    let row = |kv: &etcd_client::KeyValue| Row {
        key: String::from_utf8(kv.key().to_vec()).unwrap(),
        value: kv.value().to_vec(),
        created: kv.create_revision(),
        version: kv.version(),
        lease: kv.lease(),
    };
    response.kvs().iter().map(row).collect()
}

/// Runs a command that should end by itself at once.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}
