//! One delivery connection, from the first letter to QUIT. *One per connection.*
//!
//! A line serves one lane of the queue (leased IP, site). It keeps as many letters on the way as the machine has room for,
//! so that a busy connection costs one round trip a message or less, and stays open a little while there is nothing to
//! send.

use crate::{
    clock,
    deliver::{open::Open, outcome},
    message::meta::Meta,
    operate::suspend,
    shard::Shard,
    signal::Signal,
    smtp::{
        client::Act,
        letter::{Letter, To},
        outcome::Why,
        patience::Patience,
    },
};
use mailrail_queue::{
    JobId, LaneId, LaneInfo, Taken,
    time::{Mono, Wall},
    warmup::ledger::NeverSeen,
};
use mailrail_spool::MessageKey;
use smallvec::SmallVec;
use std::{io, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

/// Content is copied to the socket's buffer in pieces of about this size.
const PIECE: usize = 64 << 10;

/// Suspended jobs that a line puts aside before it looks around.
const CAUGHT: usize = 32;

/// A letter on the way.
pub(crate) struct InFlight {
    pub(crate) id: u32,
    pub(crate) job: JobId,
    pub(crate) key: MessageKey,
    pub(crate) recipients: SmallVec<[u16; 2]>,
    pub(crate) attempt: u16,
    pub(crate) accepted: Wall,
    /// From acceptance to now being sent.
    pub(crate) waited: Duration,
    pub(crate) begun: Mono,
    /// DKIM signatures, sent in front of the content.
    pub(crate) signatures: Rc<[u8]>,
    /// Bytes of signatures and content handed to the machine.
    written: u64,
}

/// See the module.
pub(crate) struct Line<'a> {
    pub(crate) shard: &'a Rc<Shard>,
    pub(crate) lane: LaneId,
    pub(crate) lease: IpAddr,
    pub(crate) open: Open,
    patience: Patience,
    pub(crate) in_flight: SmallVec<[InFlight; 8]>,
    /// The first letter's time to connect is told with it; later ones had none.
    connect_told: bool,
    /// Letters that the server has taken on this connection.
    pub(crate) delivered: u32,
    out: Vec<u8>,
    /// Raised when there is mail again while it rests.
    more: Rc<Signal>,
    letters: u32,
    most: u32,
    site: Arc<str>,
    /// [`Sites::changes`](super::sites::Sites::changes) when the host was last known to be one of the site.
    checked: u64,
}

impl<'a> Line<'a> {
    pub(crate) fn new(shard: &'a Rc<Shard>, lane: &LaneInfo, open: Open, most: u32) -> Self {
        let checked = shard.sites.borrow().changes();
        Self {
            shard,
            lane: lane.lane,
            lease: lane.lease,
            open,
            patience: Patience::default(),
            in_flight: SmallVec::new(),
            connect_told: false,
            delivered: 0,
            out: Vec::with_capacity(8 << 10),
            more: Rc::default(),
            letters: 0,
            most: most.max(1),
            site: Arc::clone(&lane.site),
            checked,
        }
    }

    /// Serves the lane until there is nothing more to send, the limit is reached, or the connection ends.
    pub(crate) async fn serve(mut self) {
        let why = loop {
            self.offer();
            let act = self.open.client.step();
            let step = match act {
                Act::Read => self.read().await,
                Act::Write => self.write().await,
                Act::Content { letter } => self.content(letter).await,
                Act::Outcome => {
                    outcome::take(&mut self);
                    Ok(())
                }
                Act::Ready => self.rest().await,
                // Already done when the line was opened; a server that asks again is not one of ours.
                Act::StartTls => Err(io::Error::other("STARTTLS out of turn")),
                Act::Closed(why) => break why,
            };
            if let Err(error) = step {
                match error.kind() {
                    io::ErrorKind::TimedOut => self.open.client.timed_out(),
                    _ => self.open.client.lost(&error.to_string()),
                }
            }
        };
        // The machine has told an outcome for each letter before it closes; whatever is left was never written.
        for left in std::mem::take(&mut self.in_flight) {
            self.shard.queue.borrow_mut().give_back_unseen(left.job, NeverSeen::nothing_written());
        }
        // A receiver that has had enough for one connection is none in trouble.
        let enough = self.delivered > 0 && matches!(why, Why::Shutdown(_));
        if !enough && !matches!(why, Why::Quit | Why::Lost(_)) {
            let host = &self.open.host;
            self.shard.note_error(&format!("{} [{}]: {why}", host.name, host.address));
        }
        self.open.stream.close().await;
    }

    /// Ends the line when the DNS does not name its host any more.
    fn check_host(&mut self) {
        let sites = self.shard.sites.borrow();
        if self.checked != sites.changes() {
            self.checked = sites.changes();
            if !sites.has(&self.site, self.open.host.address) {
                self.most = self.letters;
            }
        }
    }

    /// Offers letters while there is room and mail.
    fn offer(&mut self) {
        self.check_host();
        let mut caught = 0;
        while self.letters < self.most && self.open.client.has_room() && self.shard.may_deliver() {
            let taken = self.shard.queue.borrow_mut().take(self.lane, clock::wall());
            let Some(taken) = taken else {
                // What it could not give for a warm-up plan, the dispatcher sees to.
                if self.shard.queue.borrow().counts(self.lane) {
                    self.shard.work.raise();
                }
                return;
            };
            if suspend::catch(self.shard, &taken) {
                caught += 1;
                if caught == CAUGHT {
                    // There may be many more: the dispatcher sees to them, a few at a time.
                    self.shard.work.raise();
                    return;
                }
                continue;
            }
            self.letters += 1;
            if let Some(flight) = self.offer_one(taken) {
                self.in_flight.push(flight);
            }
        }
    }

    fn offer_one(&mut self, taken: Taken<MessageKey>) -> Option<InFlight> {
        let Taken { job, key, recipients, attempts } = taken;
        let attempt = attempts + 1;
        let signatures = self.shard.signatures_of(key);
        let spool = self.shard.spool.borrow();
        let meta = spool.message(key).and_then(|view| Some((Meta::decode(view.meta)?, view)));
        let Some((meta, view)) = meta else {
            // Settled by an operator since; the queue forgets it too.
            self.shard.queue.borrow_mut().done(job);
            return None;
        };
        let to: SmallVec<[To<'_>; 2]> = recipients
            .iter()
            .filter_map(|number| meta.recipients.get(usize::from(*number)))
            .map(|recipient| To { address: recipient.address, notify: recipient.notify, orcpt: recipient.orcpt })
            .collect();
        let id = self.letters;
        let letter = Letter {
            id,
            sender: meta.sender,
            recipients: &to,
            size: view.content_len + signatures.len() as u64,
            eight_bit: meta.flags.eight_bit,
            smtputf8: meta.flags.smtputf8,
            ret: meta.ret,
            env_id: meta.env_id,
        };
        let accepted = Wall(view.accepted_ms);
        let waited = clock::wall().since(accepted);
        if attempt == 1 {
            self.shard.stats.borrow_mut().queue_time.record(waited);
        }
        self.open.client.offer(&letter);
        let begun = clock::mono();
        Some(InFlight { id, job, key, recipients, attempt, accepted, waited, begun, signatures, written: 0 })
    }

    /// Hands the machine the content it asks for, and writes whatever grows too large on the way.
    async fn content(&mut self, letter: u32) -> io::Result<()> {
        loop {
            if !self.append_piece(letter) {
                self.open.client.content_done();
                return Ok(());
            }
            if self.open.client.out().len() >= PIECE {
                self.write().await?;
            }
        }
    }

    /// False once all of it is handed over.
    fn append_piece(&mut self, letter: u32) -> bool {
        let Some(flight) = self.in_flight.iter_mut().find(|flight| flight.id == letter) else { return false };
        let signed = flight.signatures.len() as u64;
        if flight.written < signed {
            self.open.client.content_append(&flight.signatures);
            flight.written = signed;
            return true;
        }
        let spool = self.shard.spool.borrow();
        let Some(view) = spool.message(flight.key) else { return false };
        let piece = view.content_from(flight.written - signed);
        let piece = &piece[..piece.len().min(PIECE)];
        self.open.client.content_append(piece);
        flight.written += piece.len() as u64;
        !piece.is_empty()
    }

    async fn read(&mut self) -> io::Result<()> {
        let client = &self.open.client;
        let left = self.patience.left(client.replies(), clock::mono(), client.timeout());
        self.open.stream.set_read_timeout(left.ok_or(io::ErrorKind::TimedOut)?)?;
        match self.open.stream.read(self.open.client.space()).await? {
            0 => self.open.client.lost("closed by the server"),
            n => self.open.client.filled(n),
        }
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        self.out.clear();
        self.open.client.take_out(&mut self.out);
        self.open.stream.set_write_timeout(self.open.client.timeout())?;
        self.open.stream.write_all(&self.out).await
    }

    /// Nothing is in flight. Waits a little for more mail, then leaves.
    async fn rest(&mut self) -> io::Result<()> {
        if self.shard.rules.any() {
            // There may be mail, and all of it suspended: that is found out a few at a time.
            glommio::executor().yield_now().await;
        }
        let idle = self.shard.limits.idle_line;
        if self.letters >= self.most || !self.shard.may_deliver() || idle.is_zero() {
            self.open.client.quit();
            return Ok(());
        }
        let until = clock::mono().plus(idle);
        let more = Rc::clone(&self.more);
        let rested = self.wait_for_mail(until, &more).await;
        self.shard.rested(self.lane, &more);
        rested
    }

    async fn wait_for_mail(&mut self, until: Mono, more: &Rc<Signal>) -> io::Result<()> {
        loop {
            self.check_host();
            if self.shard.queue.borrow().has_ready(self.lane) && self.letters < self.most {
                return Ok(());
            }
            let left = until.since(clock::mono());
            let crowded = self.shard.queue.borrow().is_crowded(self.lane);
            if left.is_zero() || self.letters >= self.most || self.shard.stopping.get() || crowded {
                self.open.client.quit();
                return Ok(());
            }
            self.shard.rest(self.lane, more);
            self.open.stream.set_read_timeout(left)?;
            let read = async { Woken::Bytes(self.open.stream.read(self.open.client.space()).await) };
            let wake = async {
                more.wait().await;
                Woken::Mail
            };
            match futures_lite::future::or(wake, read).await {
                Woken::Mail => {}
                Woken::Bytes(Ok(0)) => {
                    self.open.client.lost("closed by the server");
                    return Ok(());
                }
                Woken::Bytes(Ok(n)) => {
                    self.open.client.filled(n);
                    return Ok(());
                }
                Woken::Bytes(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {}
                Woken::Bytes(Err(error)) => return Err(error),
            }
        }
    }

    /// The letter of an outcome.
    pub(crate) fn landed(&mut self, letter: u32) -> Option<InFlight> {
        let position = self.in_flight.iter().position(|flight| flight.id == letter)?;
        Some(self.in_flight.remove(position))
    }

    /// Time to connect, for the first letter only.
    pub(crate) fn connect_time(&mut self) -> Duration {
        if std::mem::replace(&mut self.connect_told, true) { Duration::ZERO } else { self.open.took }
    }
}

enum Woken {
    Mail,
    Bytes(io::Result<usize>),
}
