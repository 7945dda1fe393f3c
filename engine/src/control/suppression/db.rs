//! What is on the suppression lists, durable: SQLite, a file of its own, so that an import of millions holds up nothing
//! else. *Control thread, in blocking tasks.*
//!
//! Addresses stand as they compare ([`Norm`]), and as they were given where that differs.

use super::{HOST, Put};
use crate::control::store::{StoreError, open_private};
use mailrail_queue::{
    admit::suppress::{HostEntry, Reason},
    time::Wall,
};
use rusqlite::{Connection, OptionalExtension, params, types::Value};
use std::path::{Path, PathBuf};

/// Octets of an address (RFC 5321: 64 of the local part, an `@`, 255 of the domain).
const ADDRESS_MAX: usize = 320;

/// An address as it compares: the domain in lower-case A-labels, the local part without regard to case, a quoted local part
/// as what it quotes. `+` and dots are left alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Norm {
    norm: String,
    given: String,
}

impl Norm {
    /// Of an address as it was given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn of(given: &str) -> Result<Self, String> {
        let wrong = |text: &str| Err(format!("<{}> {text}", given.chars().take(ADDRESS_MAX).collect::<String>()));
        if given.len() > ADDRESS_MAX {
            return wrong("is longer than 320 octets");
        }
        if given.chars().any(char::is_control) {
            return wrong("has a control character in it");
        }
        let Some((local, domain)) = given.rsplit_once('@').filter(|(local, _)| !local.is_empty()) else {
            return wrong("is no address: it needs a local part, an @ and a domain");
        };
        let is_quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
        if !is_quoted && local.contains(['"', '@', ' ', '<', '>', '(', ')', ',', ';', ':', '\\']) {
            return wrong("has a character in its local part that must be quoted");
        }
        let literal = domain.is_ascii() && domain.starts_with('[') && domain.ends_with(']');
        let domain = match idna::domain_to_ascii(domain) {
            _ if literal => domain.to_ascii_lowercase(),
            Ok(domain) if crate::config::is_domain(&domain) => domain,
            _ => return wrong("has no valid domain"),
        };
        let local = if is_quoted { unquoted(&local[1..local.len() - 1]) } else { Some(local.to_owned()) };
        let Some(local) = local.filter(|local| !local.is_empty()) else {
            return wrong("has a quoted local part that is empty, or does not end where its quote does");
        };
        Ok(Self { norm: format!("{}@{domain}", local.to_lowercase()), given: given.to_owned() })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.norm
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn given(&self) -> &str {
        &self.given
    }

    /// As it was given, where that is something else.
    fn other(&self) -> Option<&str> {
        (self.norm != self.given).then_some(&self.given)
    }
}

/// What stands between quotes; none where a quote stands there, too, or nothing behind a backslash.
fn unquoted(inner: &str) -> Option<String> {
    let (mut plain, mut letters) = (String::with_capacity(inner.len()), inner.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return None,
            '\\' => plain.push(letters.next()?),
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// One listed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As it was given.
    pub(crate) address: String,
    pub(crate) norm: String,
    pub(crate) reason: Reason,
    pub(crate) at: Wall,
    pub(crate) message_id: Option<String>,
}

/// Which entries of a list, the newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    pub(crate) bounce: bool,
    pub(crate) complaint: bool,
    pub(crate) from: Option<Wall>,
    pub(crate) until: Option<Wall>,
    /// Only what comes behind this one.
    pub(crate) after: Option<(Wall, String)>,
}

/// See the module.
pub(crate) struct Db {
    path: PathBuf,
    db: Connection,
}

fn number(reason: Reason) -> i64 {
    match reason {
        Reason::Bounce => 0,
        Reason::Complaint => 1,
        Reason::Manual => 2,
    }
}

fn reason(number: i64) -> Reason {
    match number {
        1 => Reason::Complaint,
        2 => Reason::Manual,
        _ => Reason::Bounce,
    }
}

impl Db {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = open_private(path)?;
        let made = db.execute_batch(
            "PRAGMA cache_size = -16384;
             CREATE TABLE IF NOT EXISTS entry (
                 list TEXT NOT NULL, norm TEXT NOT NULL, given TEXT, reason INTEGER NOT NULL, at_ms INTEGER NOT NULL,
                 message_id TEXT, host_entry TEXT, until_ms INTEGER, PRIMARY KEY (list, norm)
             ) WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS newest ON entry (list, at_ms, norm);
             CREATE INDEX IF NOT EXISTS ends ON entry (until_ms) WHERE until_ms IS NOT NULL;",
        );
        let opened = Self { path: path.into(), db };
        made.map_err(|source| opened.error(source))?;
        Ok(opened)
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), source }
    }

    /// Every entry that suppresses at this time.
    pub(crate) fn each(&self, now: Wall, mut take: impl FnMut(&str, &str, Reason)) -> Result<(), StoreError> {
        let mut read = || -> rusqlite::Result<()> {
            let mut rows =
                self.db.prepare("SELECT list, norm, reason FROM entry WHERE until_ms IS NULL OR until_ms > ?1")?;
            let mut rows = rows.query([now.0 as i64])?;
            while let Some(row) = rows.next()? {
                take(row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?, reason(row.get(2)?));
            }
            Ok(())
        };
        read().map_err(|source| self.error(source))
    }

    pub(crate) fn put(&mut self, list: &str, entries: &[Put]) -> Result<(), StoreError> {
        let write = |db: &mut Connection| -> rusqlite::Result<()> {
            let transaction = db.transaction()?;
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO entry (list, norm, given, reason, at_ms, message_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?;
                for Put { address, reason, at, message_id } in entries {
                    insert.execute(params![
                        list,
                        address.norm,
                        address.other(),
                        number(*reason),
                        at.0 as i64,
                        message_id
                    ])?;
                }
            }
            transaction.commit()
        };
        write(&mut self.db).map_err(|source| self.error(source))
    }

    /// One of the host's list, that ends by itself.
    pub(crate) fn put_host(&mut self, put: &Put, entry: HostEntry) -> Result<(), StoreError> {
        let text = serde_json::to_string(&entry).unwrap_or_default();
        let done = self.db.execute(
            "INSERT OR REPLACE INTO entry VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                HOST,
                put.address.norm,
                put.address.other(),
                number(put.reason),
                put.at.0 as i64,
                put.message_id,
                text,
                entry.until().0 as i64
            ],
        );
        done.map(drop).map_err(|source| self.error(source))
    }

    /// The growth of an entry of the host's list, and the message of its last bounce.
    pub(crate) fn host_entry(&self, address: &Norm) -> Result<Option<(HostEntry, Option<String>)>, StoreError> {
        let found = self.db.query_row(
            "SELECT host_entry, message_id FROM entry WHERE list = ?1 AND norm = ?2 AND host_entry IS NOT NULL",
            params![HOST, address.norm],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?)),
        );
        let found = found.optional().map_err(|source| self.error(source))?;
        Ok(found.and_then(|(text, id)| Some((serde_json::from_str(&text).ok()?, id))))
    }

    /// Entries of the host's list whose time was over after `from` and until `now`.
    pub(crate) fn over(&self, from: Wall, now: Wall) -> Result<Vec<String>, StoreError> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut rows = self.db.prepare_cached("SELECT norm FROM entry WHERE until_ms > ?1 AND until_ms <= ?2")?;
            rows.query_map([from.0 as i64, now.0 as i64], |row| row.get(0))?.collect()
        };
        read().map_err(|source| self.error(source))
    }

    /// Forgets entries of the host's list so old that their growth would begin anew.
    pub(crate) fn forget_quiet(&self, now: Wall) -> Result<(), StoreError> {
        const QUIET_MS: u64 = 90 * 86_400_000;
        let before = now.0.saturating_sub(QUIET_MS) as i64;
        let done = self.db.execute("DELETE FROM entry WHERE until_ms IS NOT NULL AND at_ms <= ?1", [before]);
        done.map(drop).map_err(|source| self.error(source))
    }

    pub(crate) fn remove(&mut self, list: &str, addresses: &[Norm]) -> Result<usize, StoreError> {
        let write = |db: &mut Connection| -> rusqlite::Result<usize> {
            let transaction = db.transaction()?;
            let mut found = 0;
            {
                let mut delete = transaction.prepare_cached("DELETE FROM entry WHERE list = ?1 AND norm = ?2")?;
                for address in addresses {
                    found += delete.execute(params![list, address.norm])?;
                }
            }
            transaction.commit()?;
            Ok(found)
        };
        write(&mut self.db).map_err(|source| self.error(source))
    }

    pub(crate) fn get(&self, list: &str, address: &Norm) -> Result<Option<Entry>, StoreError> {
        let found = self.db.query_row(
            "SELECT norm, given, reason, at_ms, message_id FROM entry WHERE list = ?1 AND norm = ?2",
            params![list, address.norm],
            entry,
        );
        found.optional().map_err(|source| self.error(source))
    }

    /// The newest first, at most so many.
    pub(crate) fn search(&self, list: &str, search: &Search, most: usize) -> Result<Vec<Entry>, StoreError> {
        let mut sql = "SELECT norm, given, reason, at_ms, message_id FROM entry WHERE list = ?".to_owned();
        let mut values = vec![Value::from(list.to_owned())];
        match (search.bounce, search.complaint) {
            (true, false) => sql += " AND reason <> 1",
            (false, true) => sql += " AND reason = 1",
            _ => {}
        }
        for (bound, condition) in [(search.from, " AND at_ms >= ?"), (search.until, " AND at_ms <= ?")] {
            if let Some(bound) = bound {
                sql += condition;
                values.push((bound.0 as i64).into());
            }
        }
        if let Some((at, norm)) = &search.after {
            sql += " AND (at_ms, norm) < (?, ?)";
            values.push((at.0 as i64).into());
            values.push(norm.clone().into());
        }
        sql += " ORDER BY at_ms DESC, norm DESC LIMIT ?";
        values.push((most as i64).into());
        let read = move || -> rusqlite::Result<Vec<Entry>> {
            let mut rows = self.db.prepare_cached(&sql)?;
            rows.query_map(rusqlite::params_from_iter(values), entry)?.collect()
        };
        read().map_err(|source| self.error(source))
    }

    /// In order of address, those behind `after`.
    pub(crate) fn page(&self, list: &str, after: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Entry>> {
            let mut rows = self.db.prepare_cached(
                "SELECT norm, given, reason, at_ms, message_id FROM entry WHERE list = ?1 AND norm > ?2 ORDER BY norm LIMIT ?3",
            )?;
            rows.query_map(params![list, after, most as i64], entry)?.collect()
        };
        read().map_err(|source| self.error(source))
    }
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    let norm: String = row.get(0)?;
    let given: Option<String> = row.get(1)?;
    let at: i64 = row.get(3)?;
    Ok(Entry {
        address: given.unwrap_or_else(|| norm.clone()),
        norm,
        reason: reason(row.get(2)?),
        at: Wall(at.unsigned_abs()),
        message_id: row.get(4)?,
    })
}
