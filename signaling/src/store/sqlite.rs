//! The store in one SQLite file (WAL).

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use portway_protocol::id::NodeId;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::event::{Hash, chain};
use super::{Entry, Event, KnownNode, MAX_EVENTS, MAX_KNOWN_NODES, Store, StoreError};

/// Format of the tables, in SQLite's `user_version`.
const FORMAT: u32 = 1;

/// Wait for another process that has the file, e.g. a backup.
const BUSY: Duration = Duration::from_secs(2);

/// Events between two looks at how many there are.
const PRUNE_EVERY: u64 = 1024;

const TABLES: &str = "
CREATE TABLE node (
    name TEXT PRIMARY KEY,
    announced TEXT NOT NULL,
    seen INTEGER NOT NULL
) STRICT;
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
";

/// An open database.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    /// Position and hash of the last event.
    last: (u64, Hash),
}

impl Sqlite {
    /// Opens a file, makes it (for its owner only) if it is missing.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        Self::with(connection)
    }

    /// A store that lives as long as the process.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::with(Connection::open_in_memory()?)
    }

    fn with(mut connection: Connection) -> Result<Self, StoreError> {
        connection.busy_timeout(BUSY)?;
        let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > FORMAT {
            return Err(StoreError::Newer {
                found,
                known: FORMAT,
            });
        }
        if found == 0 {
            let change = connection.transaction()?;
            change.execute_batch(TABLES)?;
            change.pragma_update(None, "user_version", FORMAT)?;
            change.commit()?;
        }
        let last = connection
            .query_row(
                "SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?
            .unwrap_or_default();
        Ok(Self { connection, last })
    }

    fn prune(&self) -> Result<(), StoreError> {
        let oldest = self.last.0.saturating_sub(MAX_EVENTS);
        self.connection
            .execute("DELETE FROM event WHERE seq <= ?1", [oldest])?;
        Ok(())
    }
}

impl Store for Sqlite {
    fn nodes(&mut self) -> Result<Vec<KnownNode>, StoreError> {
        let mut query = self
            .connection
            .prepare("SELECT name, announced, seen FROM node ORDER BY seen DESC LIMIT ?1")?;
        let rows = query.query_map([MAX_KNOWN_NODES], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        rows.map(|row| {
            let (name, announced, seen): (String, String, u64) = row?;
            Ok(KnownNode {
                node: name.parse().map_err(|_| StoreError::Damaged("a node"))?,
                announced: serde_json::from_str(&announced)
                    .map_err(|_| StoreError::Damaged("a node's announcement"))?,
                seen,
            })
        })
        .collect()
    }

    fn save_node(&mut self, node: &KnownNode) -> Result<(), StoreError> {
        let announced = serde_json::to_string(&node.announced)
            .map_err(|_| StoreError::Damaged("an announcement"))?;
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO node (name, announced, seen) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![node.node.as_str(), announced, node.seen])?;
        Ok(())
    }

    fn forget_node(&mut self, node: &NodeId) -> Result<(), StoreError> {
        self.connection
            .execute("DELETE FROM node WHERE name = ?1", [node.as_str()])?;
        Ok(())
    }

    fn append(&mut self, at_ms: u64, event: &Event) -> Result<(), StoreError> {
        let body = serde_json::to_string(event).map_err(|_| StoreError::Damaged("an event"))?;
        let seq = self.last.0 + 1;
        let hash = chain(&self.last.1, seq, at_ms, &body);
        self.connection
            .prepare_cached("INSERT INTO event (seq, at_ms, body, hash) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![seq, at_ms, body, hash])?;
        self.last = (seq, hash);
        if seq.is_multiple_of(PRUNE_EVERY) {
            self.prune()?;
        }
        Ok(())
    }

    fn events(&mut self, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let mut query = self.connection.prepare(
            "SELECT seq, at_ms, body, hash FROM \
               (SELECT * FROM event ORDER BY seq DESC LIMIT ?1) ORDER BY seq",
        )?;
        let rows = query.query_map([limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
        let mut before: Option<(u64, Hash)> = None;
        rows.map(|row| {
            let (seq, at_ms, body, hash): (u64, u64, String, Hash) = row?;
            let follows = match before.replace((seq, hash)) {
                Some((last, previous)) => {
                    seq == last + 1 && hash == chain(&previous, seq, at_ms, &body)
                }
                // The entry before the first that is shown may have been pruned.
                None => seq > 1 || hash == chain(&Hash::default(), seq, at_ms, &body),
            };
            if !follows {
                return Err(StoreError::Damaged("the event log"));
            }
            Ok(Entry {
                seq,
                at_ms,
                event: serde_json::from_str(&body)
                    .map_err(|_| StoreError::Damaged("the event log"))?,
            })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use portway_protocol::signal::news::NodeEvent;
    use portway_protocol::signal::{Announce, NodeStatus};

    use super::*;

    fn node(name: &str, seen: u64) -> KnownNode {
        KnownNode {
            node: name.parse().unwrap(),
            announced: Announce {
                epoch: 1,
                status: NodeStatus::Online,
                version: "1".into(),
                commit: "c".into(),
                services: Vec::new(),
                grants: Vec::new(),
                revocations: None,
                pairing: Vec::new(),
            },
            seen,
        }
    }

    fn offline(name: &str) -> Event {
        Event::Node(NodeEvent::NodeOffline {
            node: name.parse().unwrap(),
        })
    }

    #[test]
    fn nodes_and_events_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.db");
        let mut store = Sqlite::open(&path).unwrap();
        store.save_node(&node("nas", 5)).unwrap();
        store.save_node(&node("pi", 6)).unwrap();
        store.save_node(&node("nas", 7)).unwrap();
        store.append(100, &offline("nas")).unwrap();
        drop(store);

        let mut store = Sqlite::open(&path).unwrap();
        assert_eq!(store.nodes().unwrap(), [node("nas", 7), node("pi", 6)]);
        store.forget_node(&"nas".parse().unwrap()).unwrap();
        assert_eq!(store.nodes().unwrap(), [node("pi", 6)]);
        store.append(101, &offline("pi")).unwrap();
        let seqs = |entries: Vec<Entry>| entries.iter().map(|e| e.seq).collect::<Vec<_>>();
        assert_eq!(seqs(store.events(10).unwrap()), [1, 2]);
        assert_eq!(seqs(store.events(1).unwrap()), [2]);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_changed_or_missing_event_is_noticed() {
        for harm in [
            "UPDATE event SET body = replace(body, 'nas', 'pi') WHERE seq = 2",
            "UPDATE event SET at_ms = 0 WHERE seq = 3",
            "DELETE FROM event WHERE seq = 2",
        ] {
            let mut store = Sqlite::in_memory().unwrap();
            for at_ms in 1..=3 {
                store.append(at_ms, &offline("nas")).unwrap();
            }
            assert_eq!(store.events(10).unwrap().len(), 3);
            store.connection.execute(harm, []).unwrap();
            assert!(
                matches!(store.events(10), Err(StoreError::Damaged(_))),
                "{harm}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.db");
        let store = Sqlite::open(&path).unwrap();
        store
            .connection
            .pragma_update(None, "user_version", FORMAT + 1)
            .unwrap();
        drop(store);
        assert!(matches!(
            Sqlite::open(&path),
            Err(StoreError::Newer { found: 2, .. })
        ));
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.db");
        let text = "this is not a database, but long enough to be looked at".repeat(40);
        std::fs::write(&path, &text).unwrap();
        assert!(matches!(Sqlite::open(&path), Err(StoreError::Database(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn old_events_go() {
        let mut store = Sqlite::in_memory().unwrap();
        for at_ms in 1..=4 {
            store.append(at_ms, &offline("nas")).unwrap();
        }
        store.last.0 = MAX_EVENTS + 2;
        store.prune().unwrap();
        let kept = store.events(10).unwrap();
        assert_eq!(kept.iter().map(|e| e.seq).collect::<Vec<_>>(), [3, 4]);
    }
}
