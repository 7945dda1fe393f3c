//! Mail kept as files: a Maildir, which every mail reader opens. *One per sink.*
//!
//! Each message is written under `tmp` and appears under `new` whole. In front of its content stand the envelope and where it
//! came from, as a final delivery adds them (RFC 5321 section 4.4); what was signed is untouched by that.

use super::Delivery;
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Maildir {
    root: PathBuf,
    count: AtomicU64,
}

impl Maildir {
    /// Opens or makes it.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        for directory in ["tmp", "new", "cur"] {
            fs::create_dir_all(root.join(directory))?;
        }
        Ok(Self { root: root.to_owned(), count: AtomicU64::new(0) })
    }

    /// Writes one message.
    pub(super) fn deliver(&self, mail: &Delivery) -> io::Result<()> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let seconds = mail.at_us / 1_000_000;
        let name = format!("{seconds}.M{}P{}Q{number}.sink", mail.at_us % 1_000_000, std::process::id());
        let path = self.root.join("tmp").join(&name);
        let mut text = Vec::with_capacity(mail.content.len() + 256);
        writeln_crlf(&mut text, format_args!("Return-Path: <{}>", mail.sender))?;
        for recipient in &mail.recipients {
            writeln_crlf(&mut text, format_args!("Delivered-To: {recipient}"))?;
        }
        let tls = mail.tls.as_deref().map(|version| format!("; tls={version}")).unwrap_or_default();
        writeln_crlf(
            &mut text,
            format_args!("X-Sink: ip={}; helo={}; model={}{tls}", mail.source, mail.helo, mail.model),
        )?;
        text.extend_from_slice(&mail.content);
        fs::write(&path, &text)?;
        fs::rename(path, self.root.join("new").join(name))
    }
}

fn writeln_crlf(out: &mut Vec<u8>, line: std::fmt::Arguments<'_>) -> io::Result<()> {
    out.write_fmt(line)?;
    out.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_appears_whole_with_its_envelope_in_front() {
        let directory = tempfile::tempdir().unwrap();
        let maildir = Maildir::open(directory.path()).unwrap();
        let mail = Delivery {
            model: "accept".into(),
            source: "127.0.0.1".parse().unwrap(),
            helo: "out.example".into(),
            tls: Some("TLSv1.3".into()),
            chunked: false,
            sender: String::new(),
            recipients: vec!["a@x.test".into(), "b@x.test".into()],
            at_us: 1_700_000_000_000_001,
            content: b"Subject: s\r\n\r\nbody\r\n".to_vec(),
        };
        maildir.deliver(&mail).unwrap();
        maildir.deliver(&mail).unwrap();
        let files: Vec<_> = fs::read_dir(directory.path().join("new")).unwrap().flatten().collect();
        assert_eq!(files.len(), 2);
        assert_eq!(
            fs::read_to_string(files[0].path()).unwrap(),
            "Return-Path: <>\r\nDelivered-To: a@x.test\r\nDelivered-To: b@x.test\r\n\
             X-Sink: ip=127.0.0.1; helo=out.example; model=accept; tls=TLSv1.3\r\nSubject: s\r\n\r\nbody\r\n"
        );
        assert_eq!(fs::read_dir(directory.path().join("tmp")).unwrap().count(), 0);
    }
}
