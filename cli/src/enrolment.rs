//! Who becomes a node of the cluster whose key is here.
//!
//! ```text
//! issuer ── ledger        (enrolled.json, enrol.sock)
//!    ▲ an ordinary session to the service `enrol`
//! on a node               portway_gateway::enrolment
//! ```
//! - [`issuer`]: invites and certifies. [`ledger`]: whom it has. [`revocation`]: who is none any more.
//! - [`maker`]: who makes the certificates of this machine's own node.
//!
//! What passes is in `portway_protocol::enrolment`.

pub(crate) mod issuer;
pub(crate) mod ledger;
pub(crate) mod maker;
pub(crate) mod revocation;
