//! A SOCKS5 proxy (RFC 1928) to all services of a cluster, by the names `{service}.{cluster}`.
//!
//! It leads nowhere else: other names and addresses are refused. There is no password; whoever can connect has
//! the rights of this machine, as with a [listener](super::listen).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use fast_socks5::server::{Socks5ServerProtocol, SocksServerError};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use portway_protocol::id::{ClusterName, ServiceName};
use portway_protocol::reason::{Exit, Reason};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hosts::Hosts;
use super::local::{Bound, LocalAddress};
use super::pool::Pool;
use super::serve::{Ends, Server};
use crate::limits::Limits;
use crate::proxy::connect::Stream;

/// Time for a program to say where it wants to go.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound proxy.
pub struct Socks(Bound);

/// What a local program hears before the first byte of a service.
#[derive(Debug, Clone, Copy)]
pub(super) enum Greeting {
    /// Nothing.
    None,
    /// A reply (RFC 1928 §6).
    Reply,
}

impl Socks {
    /// Binds; nothing is served yet.
    ///
    /// # Errors
    /// The system's.
    pub async fn bind(address: &LocalAddress, limits: Limits) -> io::Result<Self> {
        Bound::bind(address, limits).await.map(Self)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &LocalAddress {
        self.0.address()
    }

    /// Serves the cluster's services over sessions of the pool, until cancelled; then lets requests under way
    /// end, within a little time.
    pub async fn run(self, cluster: ClusterName, pool: Arc<Pool>, cancel: CancellationToken) {
        let (tasks, ends) = (TaskTracker::new(), Ends::by(cancel));
        let owned = (tasks.clone(), ends.clone());
        let idle_timeout = self.0.limits.idle_timeout;
        self.0
            .run((tasks, ends), |stream| {
                let (cluster, pool, owned) = (cluster.clone(), pool.clone(), owned.clone());
                async move { serve(stream, &cluster, &pool, owned, idle_timeout).await }
            })
            .await;
    }
}

async fn serve(
    mut stream: Stream,
    cluster: &ClusterName,
    pool: &Pool,
    (tasks, ends): (TaskTracker, Ends),
    idle_timeout: Option<Duration>,
) {
    let asked = tokio::time::timeout(REQUEST_TIMEOUT, request(&mut stream));
    let asked = tokio::select! {
        asked = asked => asked,
        () = ends.cancel.cancelled() => return,
    };
    let name = match asked {
        Ok(Ok(name)) => name,
        Ok(Err(error)) => return tracing::debug!(%error, "not understood as SOCKS5"),
        Err(_elapsed) => return tracing::debug!("a program does not say where it wants to go"),
    };
    let found = service(&name, cluster).ok_or(Reason::ServiceUnknown);
    match found.and_then(|service| Ok((pool.current(&service)?, service))) {
        Ok((current, service)) => {
            let (hosts, owned) = (Hosts::only(&name), (tasks, ends));
            let server = Server::new(service, current, hosts, owned, idle_timeout);
            server.serve(stream, Greeting::Reply).await;
        }
        Err(reason) => {
            tracing::warn!(%cluster, %reason, "a program wants to go elsewhere than to a service of the cluster");
            if let Err(error) = Greeting::Reply.refused(&mut stream, reason).await {
                tracing::debug!(%error, "a local program has gone");
            }
        }
    }
}

/// The host that a program wants to connect to. The reply is still due.
async fn request(stream: &mut Stream) -> Result<String, SocksServerError> {
    let greeted = Socks5ServerProtocol::accept_no_auth(stream).await?;
    let (protocol, command, target) = greeted.read_command().await?;
    match command {
        Socks5Command::TCPConnect => {}
        Socks5Command::TCPBind | Socks5Command::UDPAssociate => {
            protocol
                .reply_error(&ReplyError::CommandNotSupported)
                .await?;
            return Err(SocksServerError::Bug("only connections are made"));
        }
    }
    Ok(match target {
        TargetAddr::Domain(name, _port) => name,
        TargetAddr::Ip(address) => address.ip().to_string(),
    })
}

/// The service that a name stands for: `{service}.{cluster}`.
fn service(name: &str, cluster: &ClusterName) -> Option<ServiceName> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let (service, of) = name.split_once('.')?;
    let service: ServiceName = service.parse().ok()?;
    (of == cluster.as_str() && !service.is_internal()).then_some(service)
}

impl Greeting {
    /// Whether a program hears that there is no connection, in whatever language it speaks.
    pub(super) const fn can_refuse(self) -> bool {
        match self {
            Self::None => false,
            Self::Reply => true,
        }
    }

    /// The service is there.
    pub(super) async fn opened(self, write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        self.say(&ReplyError::Succeeded, write).await
    }

    /// There is no connection to it.
    pub(super) async fn refused(
        self,
        write: &mut (impl AsyncWrite + Unpin),
        reason: Reason,
    ) -> io::Result<()> {
        self.say(&reply(reason), write).await
    }

    async fn say(
        self,
        reply: &ReplyError,
        write: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Reply => {
                // Version, reply, reserved, and 0.0.0.0:0 for an address that means nothing here.
                let message = [5, reply.as_u8(), 0, 1, 0, 0, 0, 0, 0, 0];
                write.write_all(&message).await?;
                write.flush().await
            }
        }
    }
}

/// The reply that comes closest to a reason.
fn reply(reason: Reason) -> ReplyError {
    let is_one_of = |reasons: &[Reason]| reasons.contains(&reason);
    if reason == Reason::UpstreamRefused {
        ReplyError::ConnectionRefused
    } else if is_one_of(&[Reason::UpstreamConnectTimeout, Reason::SessionTimeout]) {
        ReplyError::TtlExpired
    } else if is_one_of(&[Reason::ServiceUnknown, Reason::NodeOffline]) {
        ReplyError::HostUnreachable
    } else if is_one_of(&[Reason::SignalingUnreachable, Reason::IceFailed]) {
        ReplyError::NetworkUnreachable
    } else if reason.exit() == Exit::Denied {
        ReplyError::ConnectionNotAllowed
    } else {
        ReplyError::GeneralFailure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_service_of_the_cluster_or_nothing() {
        let home = "home".parse().unwrap();
        for good in ["ssh.home", "SSH.Home", "ssh.home."] {
            assert_eq!(service(good, &home), Some("ssh".parse().unwrap()), "{good}");
        }
        for bad in [
            "",
            "ssh",
            "ssh.work",
            "ssh.home.example.org",
            "a.ssh.home",
            ".home",
            "127.0.0.1",
            "::1",
            "enrol.home",
            "conn.home",
        ] {
            assert_eq!(service(bad, &home), None, "{bad}");
        }
    }

    #[test]
    fn a_program_hears_why_there_is_no_connection() {
        for (reason, expected) in [
            (Reason::UpstreamRefused, 5),
            (Reason::GrantUnknown, 2),
            (Reason::NodeOffline, 4),
            (Reason::SignalingUnreachable, 3),
            (Reason::Internal, 1),
        ] {
            assert_eq!(reply(reason).as_u8(), expected, "{reason}");
        }
    }
}
