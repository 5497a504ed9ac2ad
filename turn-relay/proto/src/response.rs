//! Typed responses to bytes.

use stun_types::attribute::{
    AttributeStaticType as _, AttributeType, AttributeWrite, ErrorCode, Fingerprint,
    UnknownAttributes,
};
use stun_types::message::{Message, MessageWrite as _, MessageWriteExt as _, MessageWriteVec};

use crate::auth::Key;
use crate::request::Refusal;

/// A response under construction.
pub struct Response(MessageWriteVec);

impl Response {
    /// Yes.
    #[must_use]
    pub fn success(request: &Message<'_>) -> Self {
        Self(Message::builder_success(request, MessageWriteVec::new()))
    }

    /// No. Without words where nobody has proved anything yet: a reflector gains nothing.
    #[must_use]
    pub fn error(request: &Message<'_>, refusal: &Refusal) -> Self {
        let mut builder = Message::builder_error(request, MessageWriteVec::new());
        let words = if matches!(refusal, Refusal::Unauthorized | Refusal::StaleNonce) {
            String::new()
        } else {
            refusal.to_string()
        };
        let code = ErrorCode::new(refusal.code(), &words).expect("code and words are short");
        push(&mut builder, &code);
        if let Refusal::UnknownAttribute(unknown) = refusal {
            let kinds: Vec<AttributeType> = unknown.iter().map(|kind| (*kind).into()).collect();
            push(&mut builder, &UnknownAttributes::new(&kinds));
        }
        Self(builder)
    }

    /// With an attribute more.
    #[must_use]
    pub fn with(mut self, attribute: &dyn AttributeWrite) -> Self {
        push(&mut self.0, attribute);
        self
    }

    /// The bytes, signed if there is a key, with a fingerprint if the request had one.
    #[must_use]
    pub fn finish(mut self, key: Option<&Key>, request: &Message<'_>) -> Vec<u8> {
        if let Some(Key { key, algorithm }) = key {
            self.0
                .add_message_integrity_with_key(key, *algorithm)
                .expect("nothing is signed twice");
        }
        if request.has_attribute(Fingerprint::TYPE) {
            self.0.add_fingerprint().expect("added once");
        }
        self.0.finish()
    }
}

fn push(builder: &mut MessageWriteVec, attribute: &dyn AttributeWrite) {
    builder
        .add_attribute(attribute)
        .expect("attributes come before the signature, and fit");
}
