//! The content of a message, and its delivery: the books and the reply to the final dot.

use std::time::Duration;

use super::{Context, End, Phase, Session};
use crate::model::{FaultKind, Stage};
use crate::sink::Delivery;
use crate::sink::data::unstuff;

impl Session {
    /// Takes a piece of the content, dots still stuffed.
    pub(super) fn content(&mut self, piece: &[u8], cx: &mut Context<'_>) {
        let is_first = self.content_len == 0;
        self.content_len += piece.len() as u64;
        let shared = cx.shared;
        let number = self.transaction_model();
        let model = &shared.table.models[number];
        if is_first && !model.faults.is_empty() {
            for (index, fault) in model.faults.iter().enumerate() {
                if fault.kind == FaultKind::DropMidData && self.shows(number, index, cx) {
                    self.end = End::AfterFlush;
                    self.phase = Phase::Deaf;
                    return;
                }
            }
        }
        if !shared.keeps_content {
            self.head.feed(piece);
        } else if self.content_len <= shared.content_max {
            self.content.extend_from_slice(piece);
        }
    }

    /// The content is complete: takes the message or does not.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>) {
        let shared = cx.shared;
        let number = self.transaction_model();
        let model = &shared.table.models[number];
        let limit = model.extensions.size;
        if limit > 0 && self.content_len > limit {
            self.refuse(cx, number, "552 5.3.4 Message size exceeds fixed limit");
        } else if !model.faults.is_empty() && self.misbehave_at_dot(number, cx) {
            self.counts(number, cx.books).in_doubt += 1;
        } else if !self.fail(Stage::Dot, number, cx) {
            self.deliver(number, cx);
            self.reply_after(Duration::from_millis(model.latency.dot_ms), "250 2.0.0 Ok: taken", number, cx);
            self.full |= model.close_after.is_some_and(|max| self.messages >= max);
        }
        self.reset();
    }

    fn misbehave_at_dot(&mut self, model: usize, cx: &mut Context<'_>) -> bool {
        let shared = cx.shared;
        for (index, fault) in shared.table.models[model].faults.iter().enumerate() {
            if fault.at == Stage::Dot && fault.kind != FaultKind::DropMidData && self.shows(model, index, cx) {
                if fault.kind == FaultKind::TakeAndDrop {
                    self.deliver(model, cx);
                }
                return self.show(fault.kind, model, cx);
            }
        }
        false
    }

    fn deliver(&mut self, model: usize, cx: &mut Context<'_>) {
        self.messages += 1;
        let shared = cx.shared;
        if shared.keeps_content {
            let raw = std::mem::take(&mut self.content);
            let content = if self.chunking { raw } else { unstuff(&raw) };
            self.head.feed(&content);
            self.content = content;
        }
        let messages = u64::from(self.messages);
        let recipients = self.recipients.len() as u64;
        let bytes = self.content_len - if self.chunking { 0 } else { 3 };
        let listener = cx.books.cells.at(self.cell);
        listener.max_messages_on_connection = listener.max_messages_on_connection.max(messages);
        let counts = self.counts(model, cx.books);
        counts.messages += 1;
        counts.bytes += bytes;
        counts.max_recipients_in_transaction = counts.max_recipients_in_transaction.max(recipients);
        let sent_us = self.head.sent_us();
        let mut start = 0;
        for recipient in &self.recipients {
            let place =
                if recipient.model == self.model { self.cell } else { cx.books.cells.place(recipient.model, self.ip) };
            cx.books.cells.at(place).recipients += 1;
            cx.books.ledger_add(self.head.id(), &self.addresses[start..recipient.end], cx.wall_us);
            start = recipient.end;
        }
        if let Some(sent_us) = sent_us {
            cx.books.end_to_end.record(Duration::from_micros(cx.wall_us.saturating_sub(sent_us)));
        }
        if shared.keeps_content {
            self.keep(model, cx);
        }
    }

    /// Keeps the copy and has its signatures checked, as the sink was told.
    fn keep(&mut self, model: usize, cx: &mut Context<'_>) {
        let shared = cx.shared;
        let content = std::mem::take(&mut self.content);
        let observer = shared.observer.as_ref().filter(|observer| observer.model == shared.table.models[model].name);
        let in_memory = cx.books.keeps() && cx.books.has_room(content.len());
        if in_memory || shared.maildir.is_some() || observer.is_some() {
            let mut delivery = self.delivery(&shared.table.models[model].name, cx.wall_us);
            delivery.content = content.clone();
            if let Some(maildir) = &shared.maildir
                && maildir.deliver(&delivery).is_err()
            {
                cx.books.not_kept += 1;
            }
            if let Some(observer) = observer {
                (observer.tell)(&delivery);
            }
            if in_memory {
                cx.books.keep(delivery);
            }
        }
        if let Some(workers) = &shared.workers {
            workers.submit(content);
        }
    }

    /// The transaction, without the content.
    fn delivery(&self, model: &str, at_us: u64) -> Delivery {
        let mut start = 0;
        let recipients = self.recipients.iter().map(|recipient| {
            let address = String::from_utf8_lossy(&self.addresses[start..recipient.end]).into_owned();
            start = recipient.end;
            address
        });
        Delivery {
            model: model.to_owned(),
            source: self.ip,
            helo: self.helo.clone(),
            tls: self.tls.map(str::to_owned),
            chunked: self.chunking,
            sender: String::from_utf8_lossy(self.sender.as_deref().unwrap_or_default()).into_owned(),
            recipients: recipients.collect(),
            at_us,
            content: Vec::new(),
        }
    }
}
