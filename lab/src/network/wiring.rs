//! Interfaces and their addresses, as lines for `ip -batch`. Pure.

use super::address::{Attachment, PREFIX_V4, PREFIX_V6, Subnet};
use crate::lines::put;
use crate::spec::Families;

/// A router's uplink.
pub(crate) const WAN: &str = "wan";

/// The bridge of its LAN.
const LAN: &str = "lan";

/// A host's only interface.
pub(crate) const ETH: &str = "eth0";

/// Lines for `ip -batch` at a node.
pub(crate) fn near_end(attachment: &Attachment, device: &str) -> String {
    let mut batch = String::new();
    for address in &attachment.v4 {
        put(
            &mut batch,
            format_args!("addr add {address}/{PREFIX_V4} dev {device}"),
        );
    }
    for address in &attachment.v6 {
        put(
            &mut batch,
            format_args!("addr add {address}/{PREFIX_V6} dev {device} nodad"),
        );
    }
    put(&mut batch, format_args!("link set {device} up"));
    if !attachment.v4.is_empty() {
        let router = attachment.router_v4;
        put(
            &mut batch,
            format_args!("route replace default via {router} dev {device}"),
        );
    }
    if !attachment.v6.is_empty() {
        let router = attachment.router_v6;
        put(
            &mut batch,
            format_args!("route replace default via {router} dev {device}"),
        );
    }
    batch
}

/// Lines for `ip -batch` at the other end of its link.
pub(crate) fn far_end(attachment: &Attachment) -> String {
    let port = &attachment.port;
    if attachment.lan.is_some() {
        return format!("link set {port} master {LAN}\nlink set {port} up\n");
    }
    format!(
        "addr add {}/{PREFIX_V4} dev {port}\naddr add {}/{PREFIX_V6} dev {port} nodad\nlink set {port} up\n",
        attachment.router_v4, attachment.router_v6
    )
}

/// The router's side of a LAN.
pub(crate) fn bridge(families: Families, subnet: Subnet) -> String {
    let (v4, v6) = subnet.router();
    let mut batch = format!("link add {LAN} type bridge forward_delay 0\n");
    if families.v4() {
        put(
            &mut batch,
            format_args!("addr add {v4}/{PREFIX_V4} dev {LAN}"),
        );
    }
    if families.v6() {
        put(
            &mut batch,
            format_args!("addr add {v6}/{PREFIX_V6} dev {LAN} nodad"),
        );
    }
    put(&mut batch, format_args!("link set {LAN} up"));
    batch
}
