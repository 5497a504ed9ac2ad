//! In which order a browser is told of our candidates. Sans-IO.
//!
//! Browsers try one pair of addresses every 50 ms, in the order in which they learn of them. An
//! address behind a NAT is known a round trip after the private one; told in that order, the try that
//! matters to everybody outside comes second or third. So the private ones wait for it, for a moment.
//!
//! The contract of the loop: a shell gives every candidate to [`Order::push`], sends what
//! [`Order::pop`] returns, and calls [`Order::release`] at [`Order::deadline`].

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use portway_protocol::signal::IceCandidate;

/// How long private addresses wait: the round trip to a server that is not far away. Whoever is in the
/// same network waits no longer than that.
const HOLD: Duration = Duration::from_millis(40);

/// Candidates on their way to the other end; `None` is the end of them.
#[derive(Debug)]
pub(super) struct Order {
    ready: VecDeque<Option<IceCandidate>>,
    held: VecDeque<Option<IceCandidate>>,
    /// `None`: nothing waits any more.
    deadline: Option<Duration>,
}

impl Order {
    /// `asks`: whether a server is asked for our address as others see it. `now` is any monotonic
    /// clock.
    pub(super) fn new(asks: bool, now: Duration) -> Self {
        Self {
            ready: VecDeque::new(),
            held: VecDeque::new(),
            deadline: asks.then(|| now + HOLD),
        }
    }

    /// Takes the next candidate of the stack.
    pub(super) fn push(&mut self, candidate: Option<IceCandidate>) {
        let waits = candidate.as_ref().is_some_and(is_private);
        if waits && self.deadline.is_some() {
            self.held.push_back(candidate);
            return;
        }
        match candidate {
            // The last word comes last.
            None => {
                self.release();
                self.ready.push_back(None);
            }
            Some(candidate) => {
                self.ready.push_back(Some(candidate));
                self.release();
            }
        }
    }

    /// The next one to send.
    pub(super) fn pop(&mut self) -> Option<Option<IceCandidate>> {
        self.ready.pop_front()
    }

    /// Lets go of what waits.
    pub(super) fn release(&mut self) {
        self.deadline = None;
        self.ready.append(&mut self.held);
    }

    /// When to let go, if anything could wait.
    pub(super) const fn deadline(&self) -> Option<Duration> {
        self.deadline
    }
}

/// Whether a candidate is an address that only neighbours reach (RFC 1918, RFC 6598, RFC 4193).
fn is_private(candidate: &IceCandidate) -> bool {
    let mut words = candidate.candidate.split_ascii_whitespace().skip(4);
    let address: Option<IpAddr> = words.next().and_then(|address| address.parse().ok());
    let is_host = words.skip_while(|word| *word != "typ").nth(1) == Some("host");
    is_host
        && address.is_some_and(|address| match address {
            IpAddr::V4(v4) => {
                v4.is_private() || v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64
            }
            IpAddr::V6(v6) => v6.is_unique_local(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(address: &str, kind: &str) -> Option<IceCandidate> {
        Some(IceCandidate {
            candidate: format!("candidate:1 1 udp 1 {address} 5000 typ {kind}"),
            sdp_mid: None,
            sdp_m_line_index: Some(0),
            username_fragment: None,
        })
    }

    fn drain(order: &mut Order) -> Vec<String> {
        std::iter::from_fn(|| order.pop())
            .map(|candidate| {
                candidate.map_or_else(
                    || "end".to_owned(),
                    |candidate| candidate.candidate.split(' ').nth(4).unwrap().to_owned(),
                )
            })
            .collect()
    }

    #[test]
    fn a_private_address_waits_for_the_one_that_others_see() {
        let mut order = Order::new(true, Duration::ZERO);
        order.push(candidate("10.0.0.2", "host"));
        order.push(candidate("fd00::2", "host"));
        assert_eq!(drain(&mut order), [""; 0]);
        order.push(candidate("192.0.2.1", "srflx"));
        assert_eq!(drain(&mut order), ["192.0.2.1", "10.0.0.2", "fd00::2"]);
        order.push(candidate("10.0.0.3", "host"));
        order.push(None);
        assert_eq!(drain(&mut order), ["10.0.0.3", "end"]);
    }

    #[test]
    fn it_does_not_wait_for_long_nor_for_nobody() {
        let mut order = Order::new(true, Duration::from_secs(1));
        order.push(candidate("100.64.0.2", "host"));
        assert_eq!(order.deadline(), Some(Duration::from_secs(1) + HOLD));
        order.release();
        assert_eq!(drain(&mut order), ["100.64.0.2"]);
        assert_eq!(order.deadline(), None);
        let mut nobody = Order::new(false, Duration::ZERO);
        nobody.push(candidate("10.0.0.2", "host"));
        assert_eq!(drain(&mut nobody), ["10.0.0.2"]);
    }

    #[test]
    fn the_end_comes_last_and_public_addresses_at_once() {
        let mut order = Order::new(true, Duration::ZERO);
        order.push(candidate("10.0.0.2", "host"));
        order.push(None);
        assert_eq!(drain(&mut order), ["10.0.0.2", "end"]);
        let mut order = Order::new(true, Duration::ZERO);
        order.push(candidate("192.0.2.2", "host"));
        assert_eq!(drain(&mut order), ["192.0.2.2"]);
    }
}
