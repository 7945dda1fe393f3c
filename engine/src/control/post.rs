//! The way of commands from the control thread to the shards. *One per host, control thread.*
//!
//! What a shard must hear goes through a queue of its own and a task that waits for room: in order, and a shard that takes
//! nothing holds up neither the sender nor another shard. These queues are short by nature: acknowledgements are bounded by
//! the batches, answers by the questions that a shard has open, and the rest is what people do. Questions to a shard are
//! never queued: who asks would be gone before an answer comes.

use crate::link::Command;
use tokio::sync::mpsc;

/// See the module.
pub(crate) struct Post {
    shards: Vec<Letterbox>,
}

struct Letterbox {
    direct: mpsc::Sender<Command>,
    queue: mpsc::UnboundedSender<Command>,
}

impl Post {
    /// For the shards with these channels, by number. Called inside the runtime, where the tasks that carry live.
    pub(crate) fn new(shards: Vec<mpsc::Sender<Command>>) -> Self {
        let letterbox = |direct: mpsc::Sender<Command>| {
            let (queue, waiting) = mpsc::unbounded_channel();
            tokio::spawn(carry(waiting, direct.clone()));
            Letterbox { direct, queue }
        };
        Self { shards: shards.into_iter().map(letterbox).collect() }
    }

    /// The shards there are.
    pub(crate) fn shards(&self) -> impl Iterator<Item = u16> + use<> {
        (0..u16::MAX).take(self.shards.len())
    }

    /// Tells a shard, after what it was told before. A shard that has stopped hears nothing, and needs nothing.
    pub(crate) fn tell(&self, shard: u16, command: Command) {
        if let Some(letterbox) = self.shards.get(usize::from(shard)) {
            let _ = letterbox.queue.send(command);
        }
    }

    /// Tells every shard.
    pub(crate) fn tell_all(&self, command: impl Fn() -> Command) {
        self.shards().for_each(|shard| self.tell(shard, command()));
    }

    /// Asks a shard; false if it has no room for a question.
    pub(crate) fn ask(&self, shard: u16, question: Command) -> bool {
        self.shards.get(usize::from(shard)).is_some_and(|letterbox| letterbox.direct.try_send(question).is_ok())
    }
}

async fn carry(mut waiting: mpsc::UnboundedReceiver<Command>, to: mpsc::Sender<Command>) {
    while let Some(command) = waiting.recv().await {
        if to.send(command).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(command: Option<Command>) -> Option<u64> {
        match command {
            Some(Command::EventsKept { cursor }) => Some(cursor),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_shard_that_takes_nothing_holds_up_no_other_and_hears_all_in_order_later() {
        let ((stuck, mut stuck_end), (free, mut free_end)) = (mpsc::channel(1), mpsc::channel(1));
        let post = Post::new(vec![stuck, free]);
        for n in 0..100 {
            post.tell_all(|| Command::EventsKept { cursor: n });
        }
        for n in 0..100 {
            assert_eq!(cursor(free_end.recv().await), Some(n));
        }
        let (reply, _answer) = tokio::sync::oneshot::channel();
        assert!(!post.ask(0, Command::Status(reply)), "there is no room");
        for n in 0..100 {
            assert_eq!(cursor(stuck_end.recv().await), Some(n));
        }
    }

    #[tokio::test]
    async fn a_shard_that_has_ended_is_told_in_vain() {
        let (ended, end) = mpsc::channel(1);
        drop(end);
        let post = Post::new(vec![ended]);
        post.tell(0, Command::EventsKept { cursor: 1 });
        post.tell(7, Command::EventsKept { cursor: 1 });
        let (reply, _answer) = tokio::sync::oneshot::channel();
        assert!(!post.ask(0, Command::Status(reply)));
    }
}
