//! Two clusters with an authority each, and what can go wrong between them.
//!
//! ```text
//!   CA east ──┬── server (apiserver of east)          CA west ──── remote-west (client)
//!             └── remote, local-east, admin-east
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isthmus_trust::{
    Authority, CaBundle, CertFault, ClientName, LeafRequest, Outcome, Pair, PairFiles, ServerNames,
    ServerTls, TlsFiles, Validity, client_material,
};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};

struct Cluster {
    dir: tempfile::TempDir,
    ca: Authority,
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn days(n: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * n)
}

impl Cluster {
    fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (ca, outcome) = Authority::ensure(
            &format!("CA {name}"),
            &dir.path().join("ca.crt"),
            &dir.path().join("ca.key"),
            now(),
        )
        .unwrap();
        assert_eq!(outcome, Outcome::Created);
        Self { dir, ca }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn pair_files(&self, name: &str) -> PairFiles {
        PairFiles::new(
            self.file(&format!("{name}.crt")),
            self.file(&format!("{name}.key")),
        )
    }

    fn server_files(&self) -> TlsFiles {
        let request = LeafRequest::server(&ServerNames::default(), Validity::days(now(), 30)).unwrap();
        let files = TlsFiles::in_directory(self.dir.path());
        self.ca.ensure_leaf(&request, &files.pair, now()).unwrap();
        files
    }

    fn client(&self, name: &ClientName, validity: Validity) -> Pair {
        self.ca.issue(&LeafRequest::client(name, validity)).unwrap()
    }
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn server_certificate_has_ciliums_names() {
    let east = Cluster::new("east");
    let names = ServerNames {
        dns: vec!["edge.example.org".into()],
        ips: vec![
            "10.1.0.1".parse().unwrap(),
            "fd00::1".parse().unwrap(),
            "127.0.0.1".parse().unwrap(),
        ],
        ..ServerNames::default()
    };
    let request = LeafRequest::server(&names, Validity::days(now(), 30)).unwrap();
    let pair = east.ca.issue(&request).unwrap();
    let facts = pair.facts();
    assert_eq!(facts.common_name, "clustermesh-apiserver.cilium.io");
    assert_eq!(
        facts.names,
        [
            "*.mesh.cilium.io",
            "clustermesh-apiserver.kube-system.svc",
            "edge.example.org",
            "127.0.0.1",
            "::1",
            "10.1.0.1",
            "fd00::1"
        ]
    );
    assert_eq!(facts.issuer, "CA east");
    assert!(!facts.is_authority && facts.fingerprint.len() == 64);
    assert!(facts.not_after >= now() + days(30) && facts.not_before < now());
    pair.check(&east.ca.bundle(), now()).unwrap();
}

#[test]
fn client_names_read_back() {
    let all = [
        (ClientName::Remote, "remote"),
        (ClientName::RemotePeer("west".into()), "remote-west"),
        (ClientName::Local("east".into()), "local-east"),
        (ClientName::Admin("east".into()), "admin-east"),
        (ClientName::Root, "root"),
    ];
    for (name, text) in all {
        assert_eq!(name.common_name(), text);
        assert_eq!(ClientName::parse(text), Some(name));
    }
    for text in [
        "",
        "remote-",
        "admin-",
        "clustermesh-apiserver.cilium.io",
        "Remote",
    ] {
        assert_eq!(ClientName::parse(text), None, "{text}");
    }
}

#[test]
fn ensuring_twice_changes_nothing_and_keys_are_private() {
    let east = Cluster::new("east");
    let files = east.pair_files("remote");
    let request = LeafRequest::client(&ClientName::Remote, Validity::days(now(), 300));
    assert_eq!(
        east.ca.ensure_leaf(&request, &files, now()).unwrap(),
        Outcome::Created
    );
    let first = fs::read(&files.certificate).unwrap();
    assert_eq!(
        east.ca.ensure_leaf(&request, &files, now()).unwrap(),
        Outcome::Kept
    );
    assert_eq!(fs::read(&files.certificate).unwrap(), first);
    assert_eq!((mode(&files.key), mode(&files.certificate)), (0o600, 0o644));
    assert_eq!(mode(&east.file("ca.key")), 0o600);

    // After two thirds of its life the certificate is renewed, and another authority does not keep it.
    assert_eq!(
        east.ca.ensure_leaf(&request, &files, now() + days(250)).unwrap(),
        Outcome::Renewed
    );
    assert_eq!(
        Cluster::new("west")
            .ca
            .ensure_leaf(&request, &files, now())
            .unwrap(),
        Outcome::Renewed
    );

    let (again, outcome) = Authority::ensure("x", &east.file("ca.crt"), &east.file("ca.key"), now()).unwrap();
    assert_eq!(
        (outcome, again.facts().common_name.as_str()),
        (Outcome::Kept, "CA east")
    );
    // An authority that was loaded signs as well as the one that was made.
    again
        .issue(&request)
        .unwrap()
        .check(&east.ca.bundle(), now())
        .unwrap();
}

#[test]
fn every_fault_names_file_cause_and_cure() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let bundle = CaBundle::load(&east.file("ca.crt")).unwrap();
    let files = east.pair_files("client");
    let long_ago = Validity {
        from: now() - days(90),
        until: now() - days(60),
    };
    let some_day = Validity {
        from: now() + days(60),
        until: now() + days(90),
    };
    let good = Validity::days(now(), 30);
    let check = |pair: Pair| {
        pair.save(&files).unwrap();
        Pair::load(&files)
            .and_then(|pair| pair.check(&bundle, now()))
            .unwrap_err()
    };
    let cases = [
        (
            check(east.client(&ClientName::Remote, long_ago)),
            CertFault::Expired,
            "expired",
        ),
        (
            check(east.client(&ClientName::Remote, some_day)),
            CertFault::NotYetValid,
            "valid only from",
        ),
        (
            check(west.client(&ClientName::Remote, good)),
            CertFault::WrongIssuer,
            "\"CA west\"",
        ),
    ];
    for (error, fault, word) in &cases {
        assert_eq!((error.fault, &error.file), (*fault, &files.certificate));
        assert!(
            error.to_string().contains(word) && !error.cure.is_empty(),
            "{error}"
        );
    }
    assert!(cases[2].0.to_string().contains("\"CA east\""), "{}", cases[2].0);

    east.client(&ClientName::Remote, good).save(&files).unwrap();
    fs::write(&files.key, west.client(&ClientName::Remote, good).key_pem()).unwrap();
    let error = Pair::load(&files).unwrap_err();
    assert_eq!((error.fault, &error.file), (CertFault::KeyMismatch, &files.key));

    fs::write(&files.key, "not a key").unwrap();
    assert_eq!(Pair::load(&files).unwrap_err().fault, CertFault::Malformed);
    fs::remove_file(&files.key).unwrap();
    let error = Pair::load(&files).unwrap_err();
    assert_eq!((error.fault, &error.file), (CertFault::Unreadable, &files.key));
    assert!(error.to_string().contains("create it"), "{error}");
    fs::write(east.file("empty.crt"), "").unwrap();
    assert_eq!(
        CaBundle::load(&east.file("empty.crt")).unwrap_err().fault,
        CertFault::Malformed
    );

    let leaf = east.server_files().pair;
    let error = Authority::load(&leaf.certificate, &leaf.key, now()).unwrap_err();
    assert_eq!(error.fault, CertFault::NotAnAuthority);
    let error = Authority::load(&east.file("ca.crt"), &east.file("ca.key"), now() + days(5000)).unwrap_err();
    assert_eq!(error.fault, CertFault::Expired);
    let names = ServerNames {
        dns: vec!["übel".into()],
        ..ServerNames::default()
    };
    assert_eq!(
        LeafRequest::server(&names, good).unwrap_err().fault,
        CertFault::BadName
    );
}

#[test]
fn a_bundle_grows_and_shrinks_by_whole_authorities() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let file = east.file("bundle.crt");
    assert!(CaBundle::add(&file, east.ca.certificate_pem().as_bytes()).unwrap());
    assert!(CaBundle::add(&file, west.ca.certificate_pem().as_bytes()).unwrap());
    assert!(
        !CaBundle::add(&file, west.ca.certificate_pem().as_bytes()).unwrap(),
        "adding twice changes nothing"
    );
    let names = |bundle: &CaBundle| bundle.facts().map(|f| f.common_name.clone()).collect::<Vec<_>>();
    let bundle = CaBundle::load(&file).unwrap();
    assert_eq!(names(&bundle), ["CA east", "CA west"]);
    let west_client = west.client(&ClientName::RemotePeer("west".into()), Validity::days(now(), 30));
    west_client.check(&bundle, now()).unwrap();

    assert!(CaBundle::remove(&file, &west.ca.facts().fingerprint).unwrap());
    assert!(!CaBundle::remove(&file, &west.ca.facts().fingerprint).unwrap());
    assert!(
        !CaBundle::remove(&file, &east.ca.facts().fingerprint).unwrap(),
        "the last authority stays"
    );
    assert_eq!(names(&CaBundle::load(&file).unwrap()), ["CA east"]);
}

/// A handshake in memory with a client that trusts `ca`; answers the first error of either end.
fn handshake(server: Arc<rustls::ServerConfig>, ca: &Authority, client: Option<&Pair>) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key_pem()).unwrap();
            builder.with_client_auth_cert(pair.chain().to_vec(), key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("east.mesh.cilium.io").unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = rustls::ServerConnection::new(server).unwrap();
    let mut wire = Vec::new();
    for _ in 0..10 {
        wire.clear();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|e| e.to_string())?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|e| e.to_string())?;
    }
    assert!(!server.is_handshaking());
    Ok(())
}

#[test]
fn the_server_follows_its_files_and_keeps_the_last_good_state() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let files = east.server_files();
    let tls = ServerTls::load(files.clone(), now()).unwrap();
    let good = Validity::days(now(), 30);
    let ours = east.client(&ClientName::Remote, good);
    let theirs = west.client(&ClientName::RemotePeer("west".into()), good);

    handshake(tls.current(now()), &east.ca, Some(&ours)).unwrap();
    assert!(
        handshake(tls.current(now()), &east.ca, None)
            .unwrap_err()
            .contains("no certificates")
    );
    assert!(
        handshake(tls.current(now()), &east.ca, Some(&theirs))
            .unwrap_err()
            .contains("UnknownIssuer")
    );

    // `connect` adds the peer's authority: no restart is needed.
    CaBundle::add(&files.bundle, west.ca.certificate_pem().as_bytes()).unwrap();
    handshake(tls.current(now()), &east.ca, Some(&theirs)).unwrap();
    assert_eq!((tls.reloads(), tls.authorities().len()), (1, 2));

    // A damaged file is reported and changes nothing.
    fs::write(&files.pair.certificate, "-----BEGIN CERTIFICATE-----\ngarbage").unwrap();
    handshake(tls.current(now()), &east.ca, Some(&theirs)).unwrap();
    assert_eq!(tls.fault().unwrap().fault, CertFault::Malformed);

    // A good one is taken.
    let before = tls.facts().fingerprint;
    east.server_files();
    handshake(tls.current(now()), &east.ca, Some(&ours)).unwrap();
    assert!(tls.fault().is_none() && tls.facts().fingerprint != before);
}

#[test]
fn a_foreign_or_expired_server_certificate_is_refused_at_start() {
    let (east, west) = (Cluster::new("east"), Cluster::new("west"));
    let files = east.server_files();
    let error = ServerTls::load(files.clone(), now() + days(60)).unwrap_err();
    assert_eq!(error.fault, CertFault::Expired);
    fs::copy(west.file("ca.crt"), &files.bundle).unwrap();
    let error = ServerTls::load(files.clone(), now()).unwrap_err();
    assert_eq!(
        (error.fault, &error.file),
        (CertFault::WrongIssuer, &files.pair.certificate)
    );
    // A client may well hold a certificate of another authority than those it trusts.
    let material = client_material(&files, now()).unwrap();
    assert_eq!(material.authorities[0].common_name, "CA west");
    assert_eq!(
        client_material(&files, now() + days(60)).unwrap_err().fault,
        CertFault::Expired
    );
}

proptest::proptest! {
    /// Foreign bytes in a PEM file give an error or a bundle, never a panic.
    #[test]
    fn foreign_bytes_never_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), wrap: bool) {
        let mut pem = body.clone();
        if wrap {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(&body);
            pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes();
        }
        let _ = CaBundle::from_pem(&pem, Path::new("fuzz"));
        let _ = Pair::from_pem(pem.clone(), pem);
    }
}
