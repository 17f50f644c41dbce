//! ICMP echo requests and replies as bytes (RFC 792, RFC 4443 §4).
/// Bytes of an ICMP echo header.
const HEADER: usize = 8;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Data of a small probe: enough to know whose it is in a capture.
const MARK: &[u8] = b"isthmus-probe---";

/// An echo request; the kernel fills in ICMPv6's checksum, whose pseudo header it knows. `packet` is the size of the whole IP
/// packet, if it shall be larger than a small one.
pub(crate) fn request(v6: bool, ident: u16, seq: u16, packet: Option<usize>) -> Vec<u8> {
    let ip_header = if v6 { 40 } else { 20 };
    let length = packet
        .map_or(0, |size| size.saturating_sub(ip_header))
        .max(HEADER + MARK.len());
    let mut bytes = vec![0; length];
    bytes[0] = if v6 { ECHO_REQUEST_V6 } else { ECHO_REQUEST_V4 };
    bytes[4..6].copy_from_slice(&ident.to_be_bytes());
    bytes[6..8].copy_from_slice(&seq.to_be_bytes());
    bytes[HEADER..HEADER + MARK.len()].copy_from_slice(MARK);
    if !v6 {
        let sum = checksum(&bytes);
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// Identifier and sequence number, if what a raw socket received is an echo reply. IPv4 sockets deliver the IP header too.
pub(crate) fn reply(v6: bool, datagram: &[u8]) -> Option<(u16, u16)> {
    let icmp = if v6 {
        datagram
    } else {
        let header = usize::from(*datagram.first()? & 0x0f) * 4;
        datagram.get(header..)?
    };
    let expected = if v6 { ECHO_REPLY_V6 } else { ECHO_REPLY_V4 };
    let [kind, 0, _, _, i0, i1, s0, s1, rest @ ..] = icmp else {
        return None;
    };
    let ours = *kind == expected && rest.starts_with(MARK);
    ours.then(|| (u16::from_be_bytes([*i0, *i1]), u16::from_be_bytes([*s0, *s1])))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_a_valid_checksum_and_its_size() {
        let bytes = request(false, 0x1234, 7, Some(1450));
        assert_eq!(bytes.len(), 1430);
        assert_eq!(checksum(&bytes), 0, "summed with its checksum it is all ones");
        assert_eq!(request(true, 1, 1, None).len(), 24);
    }

    #[test]
    fn a_reply_is_taken_apart() {
        let mut bytes = request(true, 0x1234, 7, None);
        bytes[0] = ECHO_REPLY_V6;
        assert_eq!(reply(true, &bytes), Some((0x1234, 7)));
        let mut with_header = vec![0x46; 24];
        bytes[0] = ECHO_REPLY_V4;
        with_header.extend(&bytes);
        assert_eq!(reply(false, &with_header), Some((0x1234, 7)));
        assert_eq!(
            reply(false, &request(false, 1, 1, None)),
            None,
            "a request is no reply"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..80), v6: bool) {
            let _ = reply(v6, &bytes);
        }
    }
}
