//! One module per command; commands that talk to a running instance share [`client`].

pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod cp;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod expose;
pub(crate) mod gateway;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod key;
pub(crate) mod links;
pub(crate) mod nodes;
pub(crate) mod pair;
pub(crate) mod ping;
pub(crate) mod publish;
pub(crate) mod relay;
pub(crate) mod share;
pub(crate) mod signaling;
pub(crate) mod status;
pub(crate) mod subscribe;
pub(crate) mod token;
pub(crate) mod up;
pub(crate) mod version;
