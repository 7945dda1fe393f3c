//! What all threads of a sink share: what never changes, and the memory of the models.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;

use crate::model::Table;
use crate::sink::Observer;
use crate::sink::books::Books;
use crate::sink::dkim::Workers;
use crate::sink::maildir::Maildir;
use crate::sink::policy::Policy;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) hostname: String,
    pub(super) table: Table,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Whether content must be collected, to keep or to verify it.
    pub(super) keeps_content: bool,
    /// Content bytes collected of one message at most.
    pub(super) content_max: u64,
    pub(super) connections_max: usize,
    pub(super) idle_timeout: Duration,
    pub(super) workers: Option<Workers>,
    pub(super) maildir: Option<Maildir>,
    pub(super) observer: Option<Observer>,
    pub(super) watched: Vec<IpAddr>,
    policy: Mutex<Policy>,
    /// One a reactor thread.
    pub(super) books: Vec<Mutex<Books>>,
    /// Signals a batch of deliveries to who waits for them.
    pub(super) progress: Condvar,
    pub(super) progress_lock: Mutex<()>,
    pub(super) stop: AtomicBool,
}

impl Shared {
    pub(super) fn new(hostname: String, table: Table, books: Vec<Mutex<Books>>) -> Self {
        Self {
            hostname,
            table,
            tls: None,
            keeps_content: false,
            content_max: 0,
            connections_max: usize::MAX,
            idle_timeout: Duration::MAX,
            workers: None,
            maildir: None,
            observer: None,
            watched: Vec::new(),
            policy: Mutex::default(),
            books,
            progress: Condvar::new(),
            progress_lock: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    pub(super) fn policy(&self) -> MutexGuard<'_, Policy> {
        lock(&self.policy)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
