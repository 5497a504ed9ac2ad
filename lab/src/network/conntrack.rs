//! Makes a router forget every flow (ctnetlink; what `conntrack -F` does).

use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use super::NetworkError;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE` (linux/netfilter/nfnetlink_conntrack.h).
const DELETE_FLOWS: u16 = 1 << 8 | 2;

/// `NLM_F_REQUEST | NLM_F_ACK` (linux/netlink.h).
const REQUEST_WITH_ANSWER: u16 = 1 | 4;

/// Length of a netlink header, and of the one of netfilter behind it.
const HEADER: usize = 16;
const MESSAGE: usize = HEADER + 4;

/// Forgets all flows of the current thread's namespace.
pub(crate) fn flush() -> Result<(), NetworkError> {
    let refused = NetworkError::Conntrack;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )
    .map_err(refused)?;
    let mut message = [0; MESSAGE];
    message[..4].copy_from_slice(&(MESSAGE as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&DELETE_FLOWS.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_WITH_ANSWER.to_ne_bytes());
    message[8] = 1;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &message, &kernel, MsgFlags::empty()).map_err(refused)?;
    let mut answer = [0; 256];
    let received = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).map_err(refused)?;
    // An error message with the number 0 is the acknowledgement (RFC 3549 §2.3.2.2).
    let code = answer[..received]
        .get(HEADER..HEADER + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, i32::from_ne_bytes);
    if code == 0 {
        Ok(())
    } else {
        Err(refused(nix::errno::Errno::from_raw(-code)))
    }
}
