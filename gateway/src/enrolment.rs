//! How a machine becomes a node of a cluster, and stays one.
//!
//! ```text
//! issuer, where the cluster key is      `portway up`, or another program that has the key
//!    ▲ an ordinary session to its service `enrol`
//! request ── enrolled                   enrolment.json, machine.token
//!    ▲
//! renewal                               while the gateway runs
//! ```
//! - [`request`]: asks for a certificate. [`certificate`]: what comes of it. [`enrolled`]: and stays.
//!   [`renewal`]: asks again in time.
//!
//! What passes is in `portway_protocol::enrolment`.

pub mod certificate;
pub mod enrolled;
pub mod renewal;
pub mod request;

pub use certificate::Certificate;
pub use enrolled::Enrolled;
