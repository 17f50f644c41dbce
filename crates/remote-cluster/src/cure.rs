//! What to do about a connection that fails: the libraries say what happened, not why.

/// What a library says, and what is most often behind it.
const CURES: [(&str, &str); 10] = [
    (
        "Connection refused",
        "nothing listens there: is the clustermesh-apiserver running, and is the port right?",
    ),
    (
        "UnknownIssuer",
        "trusted-ca-file does not hold the authority that issued the server's certificate: add the remote cluster's",
    ),
    (
        "BadSignature",
        "trusted-ca-file holds an authority of the same name with another key: add the remote cluster's own",
    ),
    (
        "not valid for name",
        "use an endpoint with one of these names, and cilium-host-aliases for its address",
    ),
    (
        "certificate expired",
        "the server's certificate must be renewed in the remote cluster (or a clock is wrong)",
    ),
    (
        "InvalidContentType",
        "what listens there does not speak TLS: is the port right?",
    ),
    (
        "UnknownCA",
        "the server does not trust our authority: add it to the remote cluster's bundle",
    ),
    (
        "BadCertificate",
        "the server refuses our client certificate: it must be issued by an authority that the remote cluster trusts",
    ),
    (
        "CertificateRequired",
        "the server wants a client certificate: set cert-file and key-file",
    ),
    (
        "CertificateExpired",
        "the server says that our client certificate has expired: renew cert-file",
    ),
];

/// The text with what to do, if that is known.
pub(crate) fn with_cure(text: String) -> String {
    match CURES.iter().find(|(sign, _)| text.contains(sign)) {
        Some((_, cure)) if !text.contains(cure) => format!("{text}; {cure}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cure_is_told_once() {
        let text = "127.0.0.1:1: Connection refused (os error 111)";
        let cured = with_cure(text.to_owned());
        assert!(
            cured.starts_with(text) && cured.ends_with("is the port right?"),
            "{cured}"
        );
        assert_eq!(with_cure(cured.clone()), cured);
        assert_eq!(
            with_cure("no reply within 60.0 s".to_owned()),
            "no reply within 60.0 s"
        );
    }
}
