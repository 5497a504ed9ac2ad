//! Which candidates and descriptions of a peer are acceptable.
//!
//! Security: a candidate makes this machine send packets to an address that the peer chose. Loopback,
//! link-local, multicast and unspecified addresses are ignored, so that an offer cannot make a
//! gateway probe local-only services or cloud metadata. Private addresses pass: a visitor in the
//! same network is the fastest path there is. Names (mDNS) are not resolved; such a peer is found as
//! peer-reflexive.

use std::net::{IpAddr, SocketAddr};

use portway_protocol::signal::{IceCandidate, SessionDescription};
use webrtc::peer_connection::RTCIceCandidateType;

use crate::CandidateKind;

/// What to do with candidates that point at this machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoopbackPolicy {
    /// Ignore them.
    #[default]
    Refuse,
    /// Check them: both ends are known to be on this machine, as in tests.
    Accept,
}

/// What the stack's kind of candidate is; `None` if it does not know.
#[must_use]
pub(super) const fn kind(typ: RTCIceCandidateType) -> Option<CandidateKind> {
    match typ {
        RTCIceCandidateType::Host => Some(CandidateKind::Host),
        RTCIceCandidateType::Srflx => Some(CandidateKind::ServerReflexive),
        RTCIceCandidateType::Prflx => Some(CandidateKind::PeerReflexive),
        RTCIceCandidateType::Relay => Some(CandidateKind::Relay),
        RTCIceCandidateType::Unspecified | _ => None,
    }
}

/// Whether a remote candidate may be checked.
#[must_use]
pub fn is_acceptable(candidate: &IceCandidate, loopback: LoopbackPolicy) -> bool {
    address(&candidate.candidate).is_some_and(|address| is_reachable(address, loopback))
}

/// The connection address of a candidate-attribute (RFC 8839 §5.1), if it is an IP address.
fn address(attribute: &str) -> Option<IpAddr> {
    attribute.split_ascii_whitespace().nth(4)?.parse().ok()
}

/// The address of a relay's candidate (RFC 8839 §5.1: address, port, `typ`, type).
#[must_use]
pub fn relay(candidate: &IceCandidate) -> Option<SocketAddr> {
    let mut words = candidate.candidate.split_ascii_whitespace().skip(4);
    let (address, port) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_relay = words.next() == Some("typ") && words.next() == Some("relay");
    is_relay.then(|| SocketAddr::new(address, port))
}

/// Whether others may be able to reach an address.
pub(super) fn is_reachable(address: IpAddr, loopback: LoopbackPolicy) -> bool {
    let address = address.to_canonical();
    if address.is_loopback() {
        return loopback == LoopbackPolicy::Accept;
    }
    match address {
        IpAddr::V4(ip) => {
            !(ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0)
        }
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()),
    }
}

/// The description without unacceptable candidate lines.
#[must_use]
pub fn filter(description: &SessionDescription, loopback: LoopbackPolicy) -> SessionDescription {
    let keep = |line: &&str| match line.strip_prefix("a=candidate:") {
        Some(rest) => address(rest).is_some_and(|address| is_reachable(address, loopback)),
        None => true,
    };
    let mut sdp: String = description.sdp.split_inclusive('\n').filter(keep).collect();
    if !sdp.ends_with('\n') {
        sdp.push_str("\r\n");
    }
    SessionDescription {
        kind: description.kind,
        sdp,
    }
}

#[cfg(test)]
mod tests {
    use portway_protocol::signal::SdpKind;

    use super::*;

    fn candidate(address: &str) -> IceCandidate {
        IceCandidate {
            candidate: format!("candidate:1 1 udp 2122260223 {address} 5000 typ host"),
            sdp_mid: None,
            sdp_m_line_index: Some(0),
            username_fragment: None,
        }
    }

    #[test]
    fn relays_are_told_from_others() {
        let relayed = IceCandidate {
            candidate: "candidate:1 1 udp 41885439 192.0.2.9 50000 typ relay raddr 0.0.0.0 rport 0"
                .into(),
            ..candidate("192.0.2.9")
        };
        assert_eq!(relay(&relayed), Some(([192, 0, 2, 9], 50000).into()));
        assert_eq!(relay(&candidate("192.0.2.9")), None);
        for nonsense in [
            "",
            "candidate:1 1 udp 1 192.0.2.9 99999 typ relay",
            "a b c d e f g h",
        ] {
            let nonsense = IceCandidate {
                candidate: nonsense.into(),
                ..candidate("192.0.2.9")
            };
            assert_eq!(relay(&nonsense), None);
        }
    }

    #[test]
    fn addresses_of_this_machine_and_of_no_machine_are_refused() {
        for bad in [
            "127.0.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "3f1c.local",
            "localhost",
            "",
        ] {
            assert!(
                !is_acceptable(&candidate(bad), LoopbackPolicy::Refuse),
                "{bad}"
            );
        }
        for good in [
            "192.168.1.5",
            "10.0.0.1",
            "203.0.113.9",
            "2001:db8::1",
            "fd00::1",
        ] {
            assert!(
                is_acceptable(&candidate(good), LoopbackPolicy::Refuse),
                "{good}"
            );
        }
    }

    #[test]
    fn unacceptable_lines_leave_the_description() {
        let description = SessionDescription {
            kind: SdpKind::Offer,
            sdp: "v=0\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\na=candidate:2 1 udp 1 192.0.2.1 9 typ host\r\n".into(),
        };
        assert_eq!(
            filter(&description, LoopbackPolicy::Refuse).sdp,
            "v=0\r\na=candidate:2 1 udp 1 192.0.2.1 9 typ host\r\n"
        );
    }
}
