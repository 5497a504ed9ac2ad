//! Nominations that come before their pair is known to work. Sans-IO.
//!
//! A browser nominates with its very first check. RFC 8445 §7.3.1.5 has the controlled end answer it,
//! check the pair itself, and take it once that succeeds. This stack (rtc-ice 0.21) neither answers nor
//! remembers: it only checks, and takes the pair with the browser's next check, 50 ms later. So the
//! request is kept here, and given to the stack once more when the stack's own check has succeeded:
//! then it answers and takes the pair at once.
//!
//! Security: what is given again is what the peer sent, from where it sent it, and the stack verifies it
//! again.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// Addresses of which a nomination is kept; the oldest goes first.
const MAX_WAITING: usize = 32;

/// Longest request that is kept: a check of a browser has about 120 bytes.
const MAX_REQUEST: usize = 548;

/// Types of STUN messages and attributes (RFC 8489 §18, RFC 8445 §20).
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const USE_CANDIDATE: u16 = 0x0025;

/// Length of a STUN header.
const HEADER: usize = 20;

/// The nominations of one socket.
#[derive(Debug, Default)]
pub(super) struct Nominations {
    waiting: VecDeque<(SocketAddr, Box<[u8]>)>,
    /// What was given again, and will come by once more on its way to the stack.
    given: VecDeque<Box<[u8]>>,
}

impl Nominations {
    /// Looks at a packet that the stack gets; returns one to give it after that.
    pub(super) fn pass(&mut self, from: SocketAddr, packet: &[u8]) -> Option<Box<[u8]>> {
        match packet.first_chunk() {
            Some(&BINDING_REQUEST) if nominates(packet) => {
                if let Some(place) = self.given.iter().position(|given| **given == *packet) {
                    self.given.remove(place);
                    return None;
                }
                self.take(from);
                if self.waiting.len() == MAX_WAITING {
                    self.waiting.pop_front();
                }
                self.waiting.push_back((from, packet.into()));
                None
            }
            Some(&BINDING_SUCCESS) => {
                let again = self.take(from)?;
                if self.given.len() == MAX_WAITING {
                    self.given.pop_front();
                }
                self.given.push_back(again.clone());
                Some(again)
            }
            Some(_) | None => None,
        }
    }

    fn take(&mut self, from: SocketAddr) -> Option<Box<[u8]>> {
        let place = self.waiting.iter().position(|(known, _)| *known == from)?;
        self.waiting.remove(place).map(|(_, request)| request)
    }
}

/// Whether a request has the attribute that nominates.
fn nominates(request: &[u8]) -> bool {
    if request.len() > MAX_REQUEST {
        return false;
    }
    let mut rest = request.get(HEADER..).unwrap_or_default();
    while let Some((&[a, b, c, d], value)) = rest.split_first_chunk() {
        if u16::from_be_bytes([a, b]) == USE_CANDIDATE {
            return true;
        }
        let length = usize::from(u16::from_be_bytes([c, d])).next_multiple_of(4);
        rest = value.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "192.0.2.1:5000";
    const THERE: &str = "192.0.2.2:5000";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A message with attributes; their values are not looked at.
    fn message(kind: [u8; 2], attributes: &[(u16, usize)]) -> Vec<u8> {
        let mut bytes = kind.to_vec();
        bytes.resize(HEADER, 0);
        for (attribute, length) in attributes {
            bytes.extend(attribute.to_be_bytes());
            bytes.extend(u16::try_from(*length).unwrap().to_be_bytes());
            bytes.resize(bytes.len() + length.next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn a_nomination_comes_again_when_its_pair_works() {
        let mut nominations = Nominations::default();
        let request = message(
            BINDING_REQUEST,
            &[(0x0006, 9), (USE_CANDIDATE, 0), (0x0008, 20)],
        );
        let success = message(BINDING_SUCCESS, &[(0x0020, 8)]);
        assert_eq!(nominations.pass(address(HERE), &request), None);
        assert_eq!(nominations.pass(address(THERE), &success), None);
        let again = nominations.pass(address(HERE), &success);
        assert_eq!(again.as_deref(), Some(&request[..]));
        assert_eq!(
            nominations.pass(address(HERE), &request),
            None,
            "given again"
        );
        assert_eq!(nominations.pass(address(HERE), &success), None, "once");
    }

    #[test]
    fn other_packets_are_not_kept() {
        let mut nominations = Nominations::default();
        let check = message(BINDING_REQUEST, &[(0x0006, 9), (0x0008, 20)]);
        let long = message(BINDING_REQUEST, &[(0x0006, 600), (USE_CANDIDATE, 0)]);
        for packet in [&check[..], &long, &[], &[0], &[0, 1], &[0x17, 0xfe, 0xfd]] {
            assert_eq!(nominations.pass(address(HERE), packet), None);
        }
        assert!(nominations.waiting.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut nominations = Nominations::default();
        let request = message(BINDING_REQUEST, &[(USE_CANDIDATE, 0)]);
        for port in 1..1000 {
            nominations.pass(([192, 0, 2, 1], port).into(), &request);
        }
        assert_eq!(nominations.waiting.len(), MAX_WAITING);
    }

    #[test]
    fn any_bytes_are_borne() {
        let mut bytes = message(BINDING_REQUEST, &[(0x0006, 9), (USE_CANDIDATE, 0)]);
        for cut in 0..bytes.len() {
            assert!(!nominates(&bytes[..cut]) || cut + 4 > bytes.len() - 4);
        }
        bytes[22] = 0xff;
        assert!(!nominates(&bytes));
    }
}
