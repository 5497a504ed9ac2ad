//! Any body of a request for a certificate, and of the answers to one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portway_protocol::enrolment::{Certificate, CertificateRequest, Invitation, Refusal};
use portway_protocol::id::GrantId;

fuzz_target!(|body: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<CertificateRequest>(body) {
        let cluster = "home".parse().expect("a valid name");
        drop(request.verify(&cluster, &GrantId::from_bytes([1; GrantId::LEN])));
    }
    drop(serde_json::from_slice::<Invitation>(body));
    drop(serde_json::from_slice::<Certificate>(body));
    drop(serde_json::from_slice::<Refusal>(body));
});
