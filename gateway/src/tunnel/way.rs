//! To the service, over whatever session there is.
//!
//! A request that comes while there is none waits for one. A request that was not sent goes over the
//! next session; one that may have been is never sent twice.

use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::Incoming;
use portway_protocol::id::ServiceName;
use portway_protocol::reason::Reason;
use portway_protocol::target::ServiceKind;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::ClientError;
use crate::client::keeper::Current;
use crate::client::session::{RequestBody, Requests, Unanswered};

/// How long a request waits for a session.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The way to one service.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) service: ServiceName,
    current: watch::Receiver<Current>,
}

/// Why there is no response of the service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failure {
    /// There is no session.
    NoSession(Reason),
    /// It cannot be forwarded, or was lost on its way.
    Failed(Reason),
}

impl Failure {
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::NoSession(reason) | Self::Failed(reason) => reason,
        }
    }
}

impl Way {
    pub(crate) const fn new(service: ServiceName, current: watch::Receiver<Current>) -> Self {
        Self { service, current }
    }

    /// What the service speaks, as soon as it is known.
    pub(crate) async fn kind(&self) -> Option<ServiceKind> {
        let mut current = self.current.clone();
        let known = current.wait_for(|current| current.kind.is_some());
        match tokio::time::timeout(PATIENCE, known).await {
            Ok(Ok(current)) => current.kind,
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Why there is no session, if there was an attempt that has failed.
    pub(super) fn failure(&self) -> Option<Reason> {
        let current = self.current.borrow();
        current.failure.filter(|_| current.requests.is_none())
    }

    /// Sends a request as soon as there is a session; over the next one if it was not sent.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut requests = self.requests(deadline).await?;
            match requests.send(request).await {
                Ok(response) => return Ok(response),
                Err(Unanswered::NotSent(unsent)) => request = *unsent,
                Err(Unanswered::Lost(error)) => {
                    tracing::debug!(%error, "a request was lost");
                    return Err(Failure::Failed(ClientError::from(error).reason()));
                }
            }
        }
    }

    /// The session's, as soon as there is one.
    async fn requests(&self, deadline: Instant) -> Result<Requests, Failure> {
        let mut current = self.current.clone();
        let is_there = |current: &Current| current.open().is_some();
        let waited = tokio::time::timeout_at(deadline, current.wait_for(is_there)).await;
        let requests = match waited {
            Ok(Ok(current)) => current.requests.clone(),
            // In vain, or there will be none any more.
            Ok(Err(_)) | Err(_) => None,
        };
        requests.ok_or_else(|| {
            let failure = self.current.borrow().failure;
            Failure::NoSession(failure.unwrap_or(Reason::SessionTimeout))
        })
    }
}
