//! One module per command; commands that talk to a running instance share [`client`].

pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod doctor;
pub(crate) mod expose;
pub(crate) mod ping;
pub(crate) mod relay;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod version;
