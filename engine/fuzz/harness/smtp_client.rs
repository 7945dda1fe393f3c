//! Any replies to a client session with letters to send: what must hold. Shared by the fuzz target and the replay test.

use mailrail_engine::smtp::{
    client::{Act, Client, ClientPolicy, Tls},
    envelope::Notify,
    letter::{Letter, To},
    outcome::Verdict,
};

const LETTERS: u32 = 4;
const TEXT: &[u8] = b"From: a@b.test\r\n\r\n.dot\r\n";

/// The first octet: low bits choose the use of TLS, high bits the size of the pieces in which the rest arrives.
pub(crate) fn run(data: &[u8]) {
    let Some((&first, input)) = data.split_first() else { return };
    let tls = [Tls::Never, Tls::Opportunistic, Tls::Required][usize::from(first % 3)];
    let mut client = Client::new(ClientPolicy::new("out.test".into(), tls));
    let mut pieces = input.chunks(usize::from(first / 3) + 1);
    let (mut wire, mut out, mut offered, mut verdicts) = (Vec::new(), Vec::new(), 0, Vec::new());
    loop {
        while offered < LETTERS && client.has_room() {
            offer(&mut client, offered);
            offered += 1;
        }
        match client.step() {
            Act::Write => {
                client.take_out(&mut out);
                wire.append(&mut out);
            }
            Act::StartTls => client.tls_started(),
            Act::Content { .. } => {
                client.content_append(TEXT);
                client.content_done();
            }
            Act::Outcome => {
                let outcome = client.outcome();
                let delivered = outcome.verdict == Verdict::Delivered;
                assert!(!delivered || (outcome.reply.is_positive() && outcome.seen && !outcome.reply.local));
                assert!(outcome.seen || outcome.verdict != Verdict::InDoubt);
                assert!(outcome.reply.text.chars().count() <= 1000);
                verdicts.push(outcome.letter);
            }
            Act::Closed(_) => break,
            Act::Ready if offered == LETTERS => client.quit(),
            Act::Ready | Act::Read => match pieces.next() {
                Some(piece) => {
                    client.space()[..piece.len()].copy_from_slice(piece);
                    client.filled(piece.len());
                }
                None => client.lost("end"),
            },
        }
    }
    verdicts.sort_unstable();
    assert_eq!(verdicts, (0..offered).collect::<Vec<_>>(), "each letter has one outcome");
    let text = String::from_utf8_lossy(&wire).replace("\r\n", "");
    assert!(!text.contains(['\r', '\n']), "a lone CR or LF was sent");
}

fn offer(client: &mut Client, id: u32) {
    let to = ["c@d.test", "e@f.test"].map(|address| To { address, notify: Notify::DEFAULT, orcpt: None });
    client.offer(&Letter {
        id,
        sender: "a@b.test",
        recipients: &to,
        size: TEXT.len() as u64,
        eight_bit: id == 3,
        smtputf8: false,
        ret: None,
        env_id: None,
    });
}
