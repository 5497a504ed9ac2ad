//! The local listener of a service.
//!
//! Security: whoever can connect to the listener has the rights of the link, so it listens on loopback
//! unless told otherwise. A web page can make a browser ask it under a name of its own that leads here
//! (DNS rebinding): HTTP requests for any other host than this machine's own names get 421. Who speaks
//! something else has to know strangers by itself, as on any port of this machine.

use std::io;

use portway_protocol::id::ServiceName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hosts::Hosts;
use super::local::{Bound, LocalAddress};
use super::serve::{Ends, Server};
use super::socks::Greeting;
use crate::client::keeper::Current;
use crate::limits::Limits;

/// A bound listener.
pub struct Listener(Bound);

impl Listener {
    /// Binds; nothing is served yet. A Unix socket is its owner's alone; the one of a process that is gone is
    /// replaced.
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

    /// Serves `service` over whatever session there is, until cancelled; then lets requests under way
    /// end, within a little time.
    pub async fn run(
        self,
        service: ServiceName,
        current: watch::Receiver<Current>,
        cancel: CancellationToken,
    ) {
        let (tasks, ends) = (TaskTracker::new(), Ends::by(cancel));
        let hosts = Hosts::of(self.address());
        let owned = (tasks.clone(), ends.clone());
        let idle_timeout = self.0.limits.idle_timeout;
        let server = Server::new(service, current, hosts, owned, idle_timeout);
        self.0
            .run((tasks, ends), |stream| {
                server.clone().serve(stream, Greeting::None)
            })
            .await;
    }
}
