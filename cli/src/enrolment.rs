//! How machines become nodes of a cluster, and stay nodes.
//!
//! ```text
//! where the cluster key is   issuer ── ledger        (enrolled.json, enrol.sock)
//!                              ▲ an ordinary session to the service `enrol`
//! on a node                  request ── enrolled     (enrolment.json, machine.token)
//!                              ▲
//!                            renewal                  while the gateway runs
//! ```
//! - [`issuer`]: invites and certifies. [`ledger`]: whom it has.
//! - [`request`]: asks for a certificate. [`enrolled`]: what comes of it, and stays. [`renewal`]: asks again
//!   in time. [`revocation`]: who is none any more.
//!
//! What passes is in `portway_protocol::enrolment`.

pub(crate) mod enrolled;
pub(crate) mod issuer;
pub(crate) mod ledger;
pub(crate) mod renewal;
pub(crate) mod request;
pub(crate) mod revocation;
