//! The control store: what was decided, durable before it is answered, and who decided it. SQLite. *Control thread, in
//! blocking tasks.*

use super::{
    api::types::{Change, audit::AuditRow},
    fleet::{Fleet, Item},
};
use mailrail_queue::admit::quota::Note;
use rusqlite::{Connection, params};
use serde::{Serialize, de::DeserializeOwned};
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
        let db = open_private(path)?;
        let sqlite = |source| StoreError::Sqlite { path: path.into(), source };
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
             CREATE TABLE IF NOT EXISTS quota (account TEXT PRIMARY KEY, note TEXT NOT NULL) WITHOUT ROWID;
             CREATE TABLE IF NOT EXISTS mail (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, item TEXT NOT NULL);
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
        note_all(&transaction, changes, who, at_ms)?;
        transaction.execute("UPDATE version SET version = version + 1", [])?;
        let version: i64 = transaction.query_row("SELECT version FROM version", [], |row| row.get(0))?;
        transaction.commit()?;
        Ok(version.unsigned_abs())
    }

    /// Audit rows of changes that are no matter of the fleet. All or nothing.
    pub(crate) fn note_changes(&mut self, changes: &[Change], who: &str, at_ms: u64) -> Result<(), StoreError> {
        let write = |db: &mut Connection| {
            let transaction = db.transaction()?;
            note_all(&transaction, changes, who, at_ms)?;
            transaction.commit()
        };
        write(&mut self.db).map_err(|source| self.error(source))
    }

    /// Rows of the audit below this id, the newest first, of this kind and name if they are given.
    pub(crate) fn audit(
        &self,
        before: Option<u64>,
        kind: Option<&str>,
        name: Option<&str>,
        most: usize,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let read = || -> rusqlite::Result<Vec<AuditRow>> {
            let mut rows = self.db.prepare_cached(
                "SELECT id, at_ms, who, action, kind, name, before, after FROM audit
                 WHERE id < ?1 AND (?2 IS NULL OR kind = ?2) AND (?3 IS NULL OR name = ?3) ORDER BY id DESC LIMIT ?4",
            )?;
            let below = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
            let found = rows.query_map(params![below, kind, name, most as i64], |row| {
                let (id, time): (i64, i64) = (row.get(0)?, row.get(1)?);
                Ok(AuditRow {
                    id: id.unsigned_abs(),
                    time: time.unsigned_abs(),
                    who: row.get(2)?,
                    action: row.get(3)?,
                    kind: row.get(4)?,
                    name: row.get(5)?,
                    before: row.get(6)?,
                    after: row.get(7)?,
                })
            })?;
            found.collect()
        };
        read().map_err(|source| self.error(source))
    }

    /// What is durable of the daily quotas.
    pub(crate) fn notes(&self) -> Result<Vec<(String, Note)>, StoreError> {
        self.read_notes().map_err(|source| self.error(source))
    }

    fn read_notes(&self) -> rusqlite::Result<Vec<(String, Note)>> {
        let mut rows = self.db.prepare("SELECT account, note FROM quota")?;
        let notes = rows.query_map([], |row| {
            let text: String = row.get(1)?;
            let note = serde_json::from_str(&text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
            })?;
            Ok((row.get(0)?, note))
        })?;
        notes.collect()
    }

    /// Makes the note of an account durable.
    pub(crate) fn keep_note(&self, account: &str, note: &Note) -> Result<(), StoreError> {
        let text = serde_json::to_string(note).unwrap_or_default();
        let written = self.db.execute("INSERT OR REPLACE INTO quota VALUES (?1, ?2)", params![account, text]);
        written.map(drop).map_err(|source| self.error(source))
    }

    /// What operators ordered of queued mail and is in force or under way: of one kind, in the order in which it was given.
    pub(crate) fn mail<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, StoreError> {
        let read = || {
            let mut rows = self.db.prepare("SELECT item FROM mail WHERE kind = ?1 ORDER BY id")?;
            let items = rows.query_map([kind], |row| {
                let text: String = row.get(0)?;
                serde_json::from_str(&text).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
                })
            })?;
            items.collect::<rusqlite::Result<Vec<T>>>()
        };
        read().map_err(|source| self.error(source))
    }

    /// Keeps what `make` makes for a number that was never used before; `words` says it for the audit.
    pub(crate) fn add_mail<T: Serialize>(
        &mut self,
        kind: &str,
        who: &str,
        at_ms: u64,
        make: impl FnOnce(u64) -> (T, String),
    ) -> Result<T, StoreError> {
        let write = || {
            let transaction = self.db.transaction()?;
            transaction.execute("INSERT INTO mail (kind, item) VALUES (?1, '')", [kind])?;
            let id = transaction.last_insert_rowid();
            let (item, words) = make(id.unsigned_abs());
            let text =
                serde_json::to_string(&item).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
            transaction.execute("UPDATE mail SET item = ?1 WHERE id = ?2", params![text, id])?;
            transaction.execute(
                "INSERT INTO audit (at_ms, who, action, kind, name, after) VALUES (?1, ?2, 'add', ?3, ?4, ?5)",
                params![at_ms as i64, who, kind, id.to_string(), words],
            )?;
            transaction.commit()?;
            Ok(item)
        };
        write().map_err(|source| self.error(source))
    }

    /// Forgets one; `before` and `after` say for the audit what it was and what came of it.
    pub(crate) fn end_mail(
        &mut self,
        (kind, id): (&str, u64),
        who: &str,
        at_ms: u64,
        (before, after): (&str, Option<&str>),
    ) -> Result<(), StoreError> {
        let mut write = || {
            let transaction = self.db.transaction()?;
            transaction.execute("DELETE FROM mail WHERE kind = ?1 AND id = ?2", params![kind, id as i64])?;
            transaction.execute(
                "INSERT INTO audit (at_ms, who, action, kind, name, before, after) VALUES (?1, ?2, 'remove', ?3, ?4, ?5, ?6)",
                params![at_ms as i64, who, kind, id.to_string(), before, after],
            )?;
            transaction.commit()
        };
        write().map_err(|source| self.error(source))
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), source }
    }
}

fn note_all(db: &Connection, changes: &[Change], who: &str, at_ms: u64) -> rusqlite::Result<()> {
    for Change { action, kind, name, before, after } in changes {
        db.execute(
            "INSERT INTO audit (at_ms, who, action, kind, name, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![at_ms as i64, who, action.as_str(), kind.as_str(), name, before, after],
        )?;
    }
    Ok(())
}

/// A database for its owner only, in which a change that was answered survives a power cut.
pub(crate) fn open_private(path: &Path) -> Result<Connection, StoreError> {
    let io = |source| StoreError::Io { path: path.into(), source };
    std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(io)?;
    let sqlite = |source| StoreError::Sqlite { path: path.into(), source };
    let db = Connection::open(path).map_err(sqlite)?;
    db.pragma_update(None, "journal_mode", "WAL").map_err(sqlite)?;
    // Each commit is synced. Where a file system has no shared memory for the WAL, SQLite stays with its journal, and EXTRA
    // syncs the removal of that too.
    db.pragma_update(None, "synchronous", "EXTRA").map_err(sqlite)?;
    Ok(db)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::pools::PoolItem;

    #[test]
    fn what_was_put_is_there_after_opening_again_with_its_audit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.db");
        let mut fleet = Fleet::default();
        fleet.0.insert(("pool".into(), "main".into()), Item::Pool(PoolItem::default()));
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
    fn every_commit_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("control.db")).unwrap();
        let setting = |name: &str| {
            let value = store.db.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap();
            format!("{value:?}")
        };
        assert_eq!(setting("journal_mode"), "Text(\"wal\")");
        assert_eq!(setting("synchronous"), "Integer(3)");
    }

    #[test]
    fn a_store_of_a_newer_version_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, .. })));
    }
}
