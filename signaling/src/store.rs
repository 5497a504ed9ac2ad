//! What survives a restart: the nodes that were seen, and the event log.
//!
//! [`Recorder`] writes behind: the registry never waits for a disk. Presence itself is not stored,
//! a socket that is gone takes it along; what is stored lets a guest be told that a node is away
//! rather than that a link is unknown.

pub mod event;
pub mod recorder;
pub mod sqlite;

use portway_protocol::id::NodeId;
use portway_protocol::signal::Announce;

pub use event::{ClientEvent, Entry, Event};
pub use recorder::Recorder;
pub use sqlite::Sqlite;

/// Most nodes that are remembered while they are away; one more is served, but not remembered.
pub const MAX_KNOWN_NODES: usize = 4096;

/// Most events that are kept; older ones go.
pub const MAX_EVENTS: u64 = 100_000;

/// A node and what it announced last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownNode {
    /// Its name.
    pub node: NodeId,
    /// Its last announcement.
    pub announced: Announce,
    /// When it was last there, seconds since 1970.
    pub seen: u64,
}

/// Why something cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used.
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
    /// A newer version has written it.
    #[error("the database has format {found}, this version reads up to {known}: update portway")]
    Newer {
        /// What is there.
        found: u32,
        /// What this version knows.
        known: u32,
    },
    /// A row is not what was written.
    #[error("{0} is damaged")]
    Damaged(&'static str),
    /// The file cannot be made.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The writer has ended.
    #[error("the store has been closed")]
    Closed,
}

/// Keeps nodes and events. One thread uses it.
pub trait Store: Send {
    /// All nodes, at most [`MAX_KNOWN_NODES`], those seen last first.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn nodes(&mut self) -> Result<Vec<KnownNode>, StoreError>;

    /// Stores a node in place of what is known of it.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn save_node(&mut self, node: &KnownNode) -> Result<(), StoreError>;

    /// Forgets a node.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn forget_node(&mut self, node: &NodeId) -> Result<(), StoreError>;

    /// Appends to the event log, chained to the last entry. `at_ms`: milliseconds since 1970.
    ///
    /// # Errors
    /// See [`StoreError`].
    fn append(&mut self, at_ms: u64, event: &Event) -> Result<(), StoreError>;

    /// The last `limit` entries, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`]; [`StoreError::Damaged`] if one does not follow from the one before.
    fn events(&mut self, limit: usize) -> Result<Vec<Entry>, StoreError>;
}
