//! The control store: what was decided, durable before it is answered, and who decided it. SQLite. *Control thread, in
//! blocking tasks.*

use super::{
    api::types::Change,
    fleet::{Fleet, Item},
};
use rusqlite::{Connection, params};
use std::{
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// Newest schema this code knows.
const SCHEMA: i64 = 1;

/// The store cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// SQLite or the disk.
    #[error("control store {path}: {source}", path = path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// The file cannot be made.
    #[error("control store {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Made by a newer version.
    #[error("control store {path}: its schema {found} is newer than this version knows ({SCHEMA}); run the newer mailrail", path = path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    db: Connection,
}

impl Store {
    /// Opens or makes the store; readable by its owner only, because it holds private keys.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.into(), source };
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io)?;
        let sqlite = |source| StoreError::Sqlite { path: path.into(), source };
        let db = Connection::open(path).map_err(sqlite)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
        // A change that was answered survives a power cut.
        db.pragma_update(None, "synchronous", "FULL").map_err(sqlite)?;
        let found: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(sqlite)?;
        if found > SCHEMA {
            return Err(StoreError::Newer { path: path.into(), found });
        }
        db.execute_batch(
            "BEGIN;
             CREATE TABLE IF NOT EXISTS fleet (
                 kind TEXT NOT NULL, name TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (kind, name)
             ) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS version (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), version INTEGER NOT NULL);
             INSERT OR IGNORE INTO version VALUES (1, 0);
             CREATE TABLE IF NOT EXISTS audit (
                 id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL, kind TEXT NOT NULL,
                 name TEXT NOT NULL, before TEXT, after TEXT
             );
             PRAGMA user_version = 1;
             COMMIT;",
        )
        .map_err(sqlite)?;
        Ok(Self { path: path.into(), db })
    }

    /// The fleet and its version.
    pub(crate) fn fleet(&self) -> Result<(u64, Fleet), StoreError> {
        self.read().map_err(|source| self.error(source))
    }

    fn read(&self) -> rusqlite::Result<(u64, Fleet)> {
        let version: i64 = self.db.query_row("SELECT version FROM version", [], |row| row.get(0))?;
        let mut fleet = Fleet::default();
        let mut rows = self.db.prepare("SELECT kind, name, item FROM fleet")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let text: String = row.get(2)?;
            let item: Item = serde_json::from_str(&text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
            })?;
            fleet.0.insert((row.get(0)?, row.get(1)?), item);
        }
        Ok((version.unsigned_abs(), fleet))
    }

    /// Puts `fleet` in place of what was there, with an audit row for each change; returns the new version. All or nothing.
    pub(crate) fn replace(
        &mut self,
        fleet: &Fleet,
        changes: &[Change],
        who: &str,
        at_ms: u64,
    ) -> Result<u64, StoreError> {
        match self.write(fleet, changes, who, at_ms) {
            Ok(version) => Ok(version),
            Err(source) => Err(self.error(source)),
        }
    }

    fn write(&mut self, fleet: &Fleet, changes: &[Change], who: &str, at_ms: u64) -> rusqlite::Result<u64> {
        let transaction = self.db.transaction()?;
        transaction.execute("DELETE FROM fleet", [])?;
        for ((kind, name), item) in &fleet.0 {
            let text = serde_json::to_string(item).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            transaction.execute("INSERT INTO fleet VALUES (?1, ?2, ?3)", params![kind, name, text])?;
        }
        for change in changes {
            let Change { action, kind, name, before, after } = change;
            transaction.execute(
                "INSERT INTO audit (at_ms, who, action, kind, name, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![at_ms as i64, who, action.as_str(), kind.as_str(), name, before, after],
            )?;
        }
        transaction.execute("UPDATE version SET version = version + 1", [])?;
        let version: i64 = transaction.query_row("SELECT version FROM version", [], |row| row.get(0))?;
        transaction.commit()?;
        Ok(version.unsigned_abs())
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_after_opening_again_with_its_audit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.db");
        let mut fleet = Fleet::default();
        fleet.0.insert(("pool".into(), "main".into()), Item::Pool);
        let changes = Fleet::default().changes(&fleet);
        {
            let mut store = Store::open(&path).unwrap();
            assert_eq!(store.fleet().unwrap(), (0, Fleet::default()));
            assert_eq!(store.replace(&fleet, &changes, "ops", 5).unwrap(), 1);
        }
        let store = Store::open(&path).unwrap();
        assert_eq!(store.fleet().unwrap(), (1, fleet));
        let audit: (i64, String, String) = store
            .db
            .query_row("SELECT at_ms, who, name FROM audit", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .unwrap();
        assert_eq!(audit, (5, "ops".into(), "main".into()));
    }

    #[test]
    fn a_store_of_a_newer_version_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, .. })));
    }
}
