//! ICMP errors about packets of relay sockets: the kernel keeps them in a queue beside that of packets.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use portway_relay_proto::command::Family;
use portway_relay_proto::icmp::IcmpError;
use socket2::Socket;

/// Who reports (linux/errqueue.h): a router or host by ICMP, by ICMPv6.
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// Has the kernel keep them.
pub(crate) fn keep(socket: &Socket, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        Family::V6 => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// The next one, and for whom the packet was; `None`: there is none, or none that is understood.
pub(crate) fn next(
    socket: &mio::net::UdpSocket,
    family: Family,
) -> Option<(SocketAddr, IcmpError)> {
    // An error with the address of who reports it, the larger of both families.
    let mut control = cmsg_space!(nix::libc::sock_extended_err, nix::libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut [], Some(&mut control), flags).ok()?;
    let peer = message.address?;
    let peer: SocketAddr = match (peer.as_sockaddr_in(), peer.as_sockaddr_in6()) {
        (Some(v4), _) => std::net::SocketAddrV4::from(*v4).into(),
        (None, Some(v6)) => std::net::SocketAddrV6::from(*v6).into(),
        (None, None) => return None,
    };
    let error = message.cmsgs().ok()?.find_map(|control| {
        let (ControlMessageOwned::Ipv4RecvErr(error, _)
        | ControlMessageOwned::Ipv6RecvErr(error, _)) = control
        else {
            return None;
        };
        Some(error)
    })?;
    // A router said so, or this machine, which remembers it.
    if error.ee_errno == Errno::EMSGSIZE as u32 {
        return Some((peer, IcmpError::too_big(family, error.ee_info)));
    }
    let is_icmp = [ORIGIN_ICMP, ORIGIN_ICMP6].contains(&error.ee_origin);
    is_icmp.then_some((
        peer,
        IcmpError {
            kind: error.ee_type,
            code: error.ee_code,
            data: 0,
        },
    ))
}
