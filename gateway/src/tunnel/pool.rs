//! Sessions by service, each opened when it is first asked for and kept from then on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::http::{Request, Response};
use hyper::body::Incoming;
use portway_protocol::id::ServiceName;
use portway_protocol::limits::MAX_SERVICES;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::Connection;
use super::way::Way;
use crate::client::keeper::{Current, Event, Keeper};
use crate::client::session::RequestBody;
use crate::client::{ClientError, Target};
use crate::flows::counters::Counters;

/// What opens a service, or why nothing does.
pub type Open = dyn Fn(&ServiceName) -> Result<Target, Reason> + Send + Sync;

/// Sessions to the services of a cluster.
pub struct Pool {
    open: Box<Open>,
    current: Arc<Mutex<HashMap<ServiceName, watch::Receiver<Current>>>>,
    news: mpsc::Sender<News>,
    datagrams: Arc<Counters>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// What there is to tell of a service's session.
#[derive(Debug)]
pub enum News {
    /// It came, changed or was lost.
    Session(ServiceName, Event),
    /// There will be none: trying again does not mend it.
    Refused(ServiceName, ClientError),
}

impl Pool {
    /// Nothing is connected yet. Whoever gets the news must take them.
    pub fn new(
        open: impl Fn(&ServiceName) -> Result<Target, Reason> + Send + Sync + 'static,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            open: Box::new(open),
            current: Arc::default(),
            news,
            datagrams: Arc::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// The session to a service: begins to connect if nobody has asked for it before.
    ///
    /// # Errors
    /// Why nothing opens it; [`Reason::RateLimited`] if there are too many already.
    pub fn current(&self, service: &ServiceName) -> Result<watch::Receiver<Current>, Reason> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = current.get(service) {
            return Ok(known.clone());
        }
        if self.closing.is_cancelled() {
            return Err(Reason::Draining);
        }
        if current.len() >= MAX_SERVICES {
            return Err(Reason::RateLimited);
        }
        let target = (self.open)(service)?;
        let (events, told) = mpsc::channel(1);
        let keeper = Keeper::new(target, events).counting(self.datagrams.clone());
        let watched = keeper.watch();
        current.insert(service.clone(), watched.clone());
        let (kept, news) = (self.current.clone(), self.news.clone());
        let (service, closing) = (service.clone(), self.closing.clone());
        drop(self.tasks.spawn(async move {
            let passing = pass_on(&service, told, &news);
            let (ended, ()) = tokio::join!(keeper.run(closing), passing);
            if let Err(error) = ended {
                // Who asks again gets another try.
                kept.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&service);
                tell(&news, News::Refused(service, error)).await;
            }
        }));
        Ok(watched)
    }

    /// Opens a connection to a service that speaks something else than HTTP; waits for a session, if there is none,
    /// for half a minute.
    ///
    /// # Errors
    /// As [`Pool::current`]; why there is no session; the gateway's reason; [`Reason::ServiceIsHttp`].
    pub async fn connect(&self, service: &ServiceName) -> Result<Connection, Reason> {
        let way = Way::new(service.clone(), self.current(service)?);
        Connection::open(&way, ServiceKind::Tcp).await
    }

    /// Sends a request to a service that speaks HTTP; waits for a session, if there is none, for half a minute. What
    /// the request's `Host` says means nothing.
    ///
    /// # Errors
    /// As [`Pool::current`]; why there is no session; [`Reason::SessionLost`] if the request may have been sent.
    pub async fn request(
        &self,
        service: &ServiceName,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Reason> {
        let way = Way::new(service.clone(), self.current(service)?);
        let response = way.send(request).await;
        response.map_err(|failure| failure.reason())
    }

    /// What becomes of datagrams, over all its sessions.
    #[must_use]
    pub const fn datagrams(&self) -> &Arc<Counters> {
        &self.datagrams
    }

    /// Ends all sessions in order.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn pass_on(
    service: &ServiceName,
    mut told: mpsc::Receiver<Event>,
    news: &mpsc::Sender<News>,
) {
    while let Some(event) = told.recv().await {
        tell(news, News::Session(service.clone(), event)).await;
    }
}

/// Whoever listened may have gone; the sessions are still for those who ask.
async fn tell(news: &mpsc::Sender<News>, what: News) {
    if let Err(unheard) = news.send(what).await {
        tracing::debug!(news = ?unheard.0, "nobody listens");
    }
}
