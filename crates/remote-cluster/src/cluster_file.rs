//! One file of the configuration directory: how to reach one remote cluster (spec §3.1).
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use isthmus_trust::{PairFiles, TlsFiles};
use serde::Deserialize;

/// The text by which a file is known to describe a cluster; other files are certificates and keys.
pub(crate) const MARK: &str = "endpoints:";

/// How to reach one remote cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterFile {
    /// In the order of the file; at least one.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Needed by endpoints with https.
    pub(crate) tls: Option<TlsFiles>,
}

/// Where an etcd of the remote cluster can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// As in the file.
    pub(crate) url: String,
    /// Over TLS.
    pub(crate) tls: bool,
    /// The name that the server's certificate must have: a host name or an address.
    pub(crate) host: String,
    /// Its TCP port.
    pub(crate) port: u16,
    /// The addresses to connect to (`cilium-host-aliases`); empty: ask the resolver for the host.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Why a file is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot be read: {0}; check its permissions")]
    Unreadable(String),
    #[error("is not UTF-8 text; write it anew")]
    NotText,
    #[error("{0}; correct that line")]
    Yaml(String),
    #[error("lists no endpoint; write `endpoints: [\"https://<cluster>.mesh.cilium.io:2379\"]`")]
    NoEndpoint,
    #[error("endpoint {url:?} is not valid: {reason}; write it as https://host:port")]
    Endpoint { url: String, reason: &'static str },
    #[error("endpoint {0:?} needs TLS: add trusted-ca-file, cert-file and key-file")]
    NoTls(String),
    #[error("has {present} without {missing}: both belong together")]
    Half {
        present: &'static str,
        missing: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Wire {
    #[serde(default)]
    endpoints: Option<Vec<String>>,
    #[serde(default)]
    trusted_ca_file: Option<PathBuf>,
    #[serde(default)]
    cert_file: Option<PathBuf>,
    #[serde(default)]
    key_file: Option<PathBuf>,
    #[serde(default)]
    cilium_host_aliases: Option<Vec<Alias>>,
}

#[derive(Deserialize)]
struct Alias {
    hostname: String,
    #[serde(default)]
    ips: Vec<IpAddr>,
}

impl ClusterFile {
    /// Parses the text of a file. Relative paths in it are relative to `directory`. Members that are not known belong to
    /// other programs (etcd's own client has many) and are left alone.
    pub(crate) fn parse(text: &str, directory: &Path) -> Result<Self, FileError> {
        let wire: Wire = serde_saphyr::from_str(text).map_err(|e| FileError::Yaml(yaml(&e)))?;
        let mut aliases = BTreeMap::<String, Vec<IpAddr>>::new();
        for alias in wire.cilium_host_aliases.unwrap_or_default() {
            let name = alias.hostname.to_ascii_lowercase();
            aliases.entry(name).or_default().extend(alias.ips);
        }
        let urls = wire.endpoints.unwrap_or_default();
        let endpoints = urls.iter().map(|url| endpoint(url, &aliases));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        let tls = tls(wire.trusted_ca_file, wire.cert_file, wire.key_file, directory)?;
        match endpoints.iter().find(|e| e.tls && tls.is_none()) {
            Some(endpoint) => Err(FileError::NoTls(endpoint.url.clone())),
            None if endpoints.is_empty() => Err(FileError::NoEndpoint),
            None => Ok(Self { endpoints, tls }),
        }
    }
}

/// The parser's message without its picture of the text, led by the line.
fn yaml(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let first = message.lines().next().unwrap_or("not valid YAML").to_owned();
    match error.location() {
        Some(at) if !first.contains("line ") => format!("line {}: {first}", at.line()),
        _ => first,
    }
}

fn tls(
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    directory: &Path,
) -> Result<Option<TlsFiles>, FileError> {
    let half = |present, missing| Err(FileError::Half { present, missing });
    match (ca, cert, key) {
        (None, None, None) => Ok(None),
        (Some(ca), Some(cert), Some(key)) => Ok(Some(TlsFiles {
            pair: PairFiles::new(directory.join(cert), directory.join(key)),
            bundle: directory.join(ca),
        })),
        (_, Some(_), None) => half("cert-file", "key-file"),
        (_, None, Some(_)) => half("key-file", "cert-file"),
        (None, _, _) => half("cert-file", "trusted-ca-file"),
        (_, None, None) => half("trusted-ca-file", "cert-file and key-file"),
    }
}

fn endpoint(url: &str, aliases: &BTreeMap<String, Vec<IpAddr>>) -> Result<Endpoint, FileError> {
    let bad = |reason| FileError::Endpoint {
        url: url.to_owned(),
        reason,
    };
    let uri: tonic::transport::Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(bad("it does not begin with https://")),
    };
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| bad("it has no host"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_ascii_lowercase();
    let port = uri.port_u16().ok_or_else(|| bad("it has no port"))?;
    let addresses = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => aliases.get(&host).cloned().unwrap_or_default(),
    };
    Ok(Endpoint {
        url: url.to_owned(),
        tls,
        host,
        port,
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<ClusterFile, String> {
        ClusterFile::parse(text, Path::new("/conf")).map_err(|e| e.to_string())
    }

    /// The file that Cilium's chart writes for a peer with an address, since 1.20 with its aliases inside.
    #[test]
    fn a_file_as_the_chart_writes_it() -> Result<(), String> {
        let file = parse(
            "endpoints:\n- https://west.mesh.cilium.io:2379\n\
             trusted-ca-file: /var/lib/cilium/clustermesh/common-etcd-client-ca.crt\n\
             key-file: '/var/lib/cilium/clustermesh/common-etcd-client.key'\ncert-file: client.crt\n\
             cilium-host-aliases:\n- hostname: west.mesh.cilium.io\n  ips: [192.0.2.1, \"2001:db8::1\"]\n",
        )?;
        let endpoint = &file.endpoints[0];
        assert_eq!(
            (endpoint.host.as_str(), endpoint.port),
            ("west.mesh.cilium.io", 2379)
        );
        let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
        let tls = file.tls.expect("tls");
        assert_eq!(tls.pair.certificate, Path::new("/conf/client.crt"));
        assert_eq!(
            tls.pair.key,
            Path::new("/var/lib/cilium/clustermesh/common-etcd-client.key")
        );
        Ok(())
    }

    #[test]
    fn members_of_other_programs_are_left_alone_and_addresses_are_hosts() -> Result<(), String> {
        let file = parse("endpoints: ['http://[::1]:2379']\nsome-option: {a: 1}\n")?;
        assert_eq!(file.endpoints[0].host, "::1");
        assert_eq!(file.endpoints[0].addresses.len(), 1);
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_named_with_its_cure() {
        let table = [
            ("endpoints: []\n", "lists no endpoint"),
            ("endpoints:\n", "lists no endpoint"),
            ("endpoints: [\"west:2379\"]\n", "does not begin with https://"),
            ("endpoints: [\"https://west\"]\n", "has no port"),
            (
                "endpoints: [\"https://west:2379\"]\n",
                "add trusted-ca-file, cert-file and key-file",
            ),
            (
                "endpoints: [\"https://west:2379\"]\ncert-file: a\n",
                "cert-file without key-file",
            ),
            (
                "endpoints: [\"https://west:2379\"]\ntrusted-ca-file: a\n",
                "without cert-file and key-file",
            ),
            ("endpoints:\n- a\n  b: [\n", "line 3"),
            ("endpoints: 5\n", "line 1"),
            (
                "endpoints: []\ncilium-host-aliases:\n- hostname: a\n  ips: [300.1.1.1]\n",
                "line 4",
            ),
        ];
        for (text, expected) in table {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    proptest! {
        /// No text makes it panic, and what is accepted has an endpoint with a host and a port.
        #[test]
        fn any_text_is_parsed_or_refused(text in prop_oneof![
            any::<String>(),
            "(endpoints: ?\\[?[\"'a-z0-9:/.\\[\\]-]{0,30}\\]?\n)?([a-z-]{0,20}: ?[a-z0-9\\[\\]{}:,&* -]{0,20}\n){0,4}",
        ]) {
            if let Ok(file) = ClusterFile::parse(&text, Path::new("/conf")) {
                prop_assert!(file.endpoints.iter().all(|e| !e.host.is_empty()));
                prop_assert!(!file.endpoints.is_empty());
            }
        }
    }
}
