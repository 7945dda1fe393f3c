//! The receive buffer of a server session: one block that holds content and, behind it, input not yet looked at.
//!
//! ```text
//! | used up | content | gap | unread input | room |
//!           ^content  ^end  ^scan          ^filled
//! ```
//! The gap is what unstuffed dots and BDAT commands between chunks left behind. Content never moves while nothing of it
//! was left out. One per connection; it must never be larger than [`MAX`], and is [`START`] until a client needs more.

/// First size, octets: a batch of commands and a 4 KiB message fit.
pub(crate) const START: usize = 8 * 1024;
/// Largest size, octets.
pub(crate) const MAX: usize = 64 * 1024;
/// A read is never offered less room, octets.
pub(crate) const ROOM: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    content: usize,
    content_end: usize,
    scan: usize,
    filled: usize,
}

impl Buffer {
    /// Room to read into, at least [`ROOM`] unless the buffer is [`Self::full`].
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.filled < ROOM {
            self.compact();
            let room = self.bytes.len() - self.filled;
            if room < ROOM && self.bytes.len() < MAX {
                self.bytes.resize((self.bytes.len() * 2).clamp(START, MAX), 0);
            }
        }
        &mut self.bytes[self.filled..]
    }

    /// `n` octets were read into [`Self::space`].
    pub(crate) fn filled(&mut self, n: usize) {
        self.filled = (self.filled + n).min(self.bytes.len());
    }

    /// Input not yet looked at.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.scan..self.filled]
    }

    /// Content kept so far.
    pub(crate) fn content(&self) -> &[u8] {
        &self.bytes[self.content..self.content_end]
    }

    /// Content and unread input leave no room for a read.
    pub(crate) fn full(&self) -> bool {
        MAX - self.content().len() - self.unread().len() < ROOM
    }

    /// The next `n` octets of input are content.
    pub(crate) fn keep(&mut self, n: usize) {
        if self.content == self.content_end {
            self.content = self.scan;
        } else if self.content_end != self.scan {
            self.bytes.copy_within(self.scan..self.scan + n, self.content_end);
            self.content_end += n;
            self.scan += n;
            return;
        }
        self.scan += n;
        self.content_end = self.scan;
    }

    /// The next `n` octets of input are not content.
    pub(crate) fn skip(&mut self, n: usize) {
        self.scan += n;
        self.reset_if_empty();
    }

    /// Forgets the content.
    pub(crate) fn drop_content(&mut self) {
        self.content = self.scan;
        self.content_end = self.scan;
        self.reset_if_empty();
    }

    /// Forgets input not yet looked at.
    pub(crate) fn drop_unread(&mut self) {
        self.filled = self.scan;
        self.reset_if_empty();
    }

    /// Octets of memory that it holds.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives memory beyond [`START`] back if nothing is buffered.
    pub(crate) fn trim(&mut self) {
        self.reset_if_empty();
        if self.filled == 0 && self.bytes.len() > START {
            self.bytes.truncate(START);
            self.bytes.shrink_to_fit();
        }
    }

    #[inline]
    fn reset_if_empty(&mut self) {
        if self.scan == self.filled && self.content == self.content_end {
            (self.content, self.content_end, self.scan, self.filled) = (0, 0, 0, 0);
        }
    }

    fn compact(&mut self) {
        let (content, unread) = (self.content().len(), self.unread().len());
        self.bytes.copy_within(self.content..self.content_end, 0);
        self.bytes.copy_within(self.scan..self.filled, content);
        (self.content, self.content_end, self.scan, self.filled) = (0, content, content, content + unread);
    }
}
