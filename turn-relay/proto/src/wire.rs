//! Messages on the hot path, without copies: [`channel_data`], and the Send and Data indications.

pub mod channel_data;
pub mod indication;
