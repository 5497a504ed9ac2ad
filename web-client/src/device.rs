//! This device: its key is the browser's. Scripts of the holder's origin can have it sign, and nobody can
//! read it.

use portway_protocol::key::{PublicKey, Signature};
use portway_protocol::reason::Reason;

use crate::connection::Host;
use crate::error::Failure;

/// Bytes of a signature.
const SIGNATURE: usize = 64;

/// Asks the browser for signatures.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) key: PublicKey,
    pub(crate) host: Host,
}

impl Device {
    pub(crate) async fn sign(&self, message: &[u8]) -> Result<Signature, Failure> {
        let refused = |error| Failure::with(Reason::BrowserUnsupported, format!("{error:?}"));
        let signed = self.host.sign(message.into()).await.map_err(refused)?;
        let bytes = js_sys::Uint8Array::new(&signed).to_vec();
        let bytes = <[u8; SIGNATURE]>::try_from(bytes);
        bytes
            .map(Signature::from_bytes)
            .map_err(|_| Failure::new(Reason::BrowserUnsupported))
    }
}
