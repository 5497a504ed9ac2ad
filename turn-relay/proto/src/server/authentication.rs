//! Who sends a request (RFC 8489 §9.2.4), and what strangers are told.

use stun_types::attribute::{
    Attribute as _, AttributeStaticType as _, AttributeType, MessageIntegrity,
    MessageIntegritySha256, Nonce, PasswordAlgorithmValue, PasswordAlgorithms, Realm, Userhash,
    Username,
};
use stun_types::message::Message;

use super::Server;
use crate::Now;
use crate::auth::Identity;
use crate::five_tuple::FiveTuple;
use crate::request::Refusal;
use crate::response::Response;

impl Server {
    /// Whether a client that has proved nothing is answered once more.
    pub(super) fn may_hear(&mut self, client: &FiveTuple, now: Now) -> bool {
        let limit = self.quota.strangers_per_second;
        self.strangers
            .may_hear(client.client.ip(), limit, now.monotonic)
    }

    /// RFC 8489 §9.2.4.
    pub(super) fn authenticate(
        &self,
        client: &FiveTuple,
        message: &Message<'_>,
        now: Now,
    ) -> Result<Identity, Refusal> {
        let is_signed = message
            .iter_attributes()
            .any(|(_, attribute)| is_integrity(attribute.get_type()));
        if !is_signed {
            return Err(Refusal::Unauthorized);
        }
        let (Ok(nonce), Ok(_realm)) = (message.attribute::<Nonce>(), message.attribute::<Realm>())
        else {
            return Err(Refusal::BadRequest);
        };
        let username = match (
            message.attribute::<Username>(),
            message.attribute::<Userhash>(),
        ) {
            (Ok(name), _) => name.username().to_owned(),
            (Err(_), Ok(hash)) => self
                .users
                .name_of(hash.hash())
                .ok_or(Refusal::Unauthorized)?
                .to_owned(),
            (Err(_), Err(_)) => return Err(Refusal::BadRequest),
        };
        if !self.nonces.is_valid(nonce.nonce(), client, now.unix) {
            return Err(Refusal::StaleNonce);
        }
        let prolonged = self
            .of(client)
            .filter(|(_, allocation)| *allocation.identity.username == *username)
            .and_then(|(_, allocation)| allocation.identity.expires);
        self.users
            .verify(message, &username, prolonged, now.unix)
            .filter(|identity| !self.revocations.refuses(identity))
            .ok_or(Refusal::Unauthorized)
    }

    /// The error that asks for a proof, or says why a message proves nothing.
    pub(super) fn challenge(
        &self,
        client: &FiveTuple,
        message: &Message<'_>,
        refusal: &Refusal,
        now: Now,
    ) -> Response {
        let mut response = Response::error(message, refusal);
        if matches!(refusal, Refusal::Unauthorized | Refusal::StaleNonce) {
            let nonce = self.nonces.issue(client, now.unix);
            let realm = Realm::new(self.users.realm()).expect("a realm is short");
            let nonce = Nonce::new(&nonce).expect("a nonce is short");
            response = response.with(&realm).with(&nonce);
            if self.announce_sha256 {
                response = response.with(&PasswordAlgorithms::new(&[
                    PasswordAlgorithmValue::SHA256,
                    PasswordAlgorithmValue::MD5,
                ]));
            }
        }
        response
    }
}

fn is_integrity(kind: AttributeType) -> bool {
    kind == MessageIntegrity::TYPE || kind == MessageIntegritySha256::TYPE
}
