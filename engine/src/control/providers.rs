//! `[[provider]]` of the fleet: changes of the providers that ship, and providers of the host's own.

use super::fleet::{Fleet, FleetError, Item};
use mailrail_queue::shape::{entry::Entry, table::Table};
use std::sync::Arc;
use toml::Spanned;

impl Fleet {
    /// # Errors
    /// Where in the file, and what is wrong there.
    pub(super) fn take_providers(
        &mut self,
        providers: &[Spanned<Entry>],
        fail: &impl Fn(usize, String) -> FleetError,
    ) -> Result<(), FleetError> {
        let entries: Vec<Entry> = providers.iter().map(|provider| provider.get_ref().clone()).collect();
        for (provider, entry) in providers.iter().zip(&entries) {
            if !self.put(&entry.name, Item::Provider(Box::new(entry.clone()))) {
                let text = format!("[[provider]] \"{}\" is listed twice", entry.name);
                return Err(fail(provider.span().start, text));
            }
        }
        Table::with(&entries).map(drop).map_err(|error| {
            let at = providers.get(error.index).map_or(0, |provider| provider.span().start);
            fail(at, error.to_string())
        })
    }

    /// All providers: those that ship, with what the fleet says of them.
    pub(crate) fn providers(&self) -> Arc<Table> {
        let own: Vec<Entry> = self.entries().map(|entry| (*entry).clone()).collect();
        match Table::with(&own) {
            Ok(table) => Arc::new(table),
            // It was checked when it was taken; a later version may ship a provider that it is at odds with.
            Err(error) => {
                tracing::error!(
                    "the providers of the fleet do not fit those of this version, and are left out: {error}"
                );
                Arc::new(Table::with(&[]).unwrap_or_default())
            }
        }
    }

    /// As the file has them.
    pub(super) fn providers_toml(&self) -> String {
        let text = |entry: &Entry| toml::to_string(&Whole { provider: [entry] }).unwrap_or_default();
        self.entries().map(|entry| format!("\n{}", text(entry))).collect()
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.of("provider").filter_map(|(_, item)| match item {
            Item::Provider(entry) => Some(&**entry),
            _ => None,
        })
    }
}

#[derive(serde::Serialize)]
struct Whole<'a> {
    provider: [&'a Entry; 1],
}

/// In words.
pub(super) fn words(entry: &Entry) -> String {
    let mut parts = Vec::new();
    if !entry.mx.is_empty() {
        parts.push(format!("mx {}", entry.mx.join(" ")));
    }
    let numbers = [
        (entry.connections, "connections"),
        (entry.messages_per_connection, "messages a connection"),
        (entry.recipients_per_message, "recipients a message"),
        (entry.burst, "at once"),
    ];
    parts.extend(numbers.into_iter().filter_map(|(number, what)| Some(format!("{} {what}", number?))));
    if let Some(rate) = &entry.rate {
        parts.push(format!("rate {rate}"));
    }
    if !entry.reply.is_empty() {
        parts.push(format!("{} replies", entry.reply.len()));
    }
    let others = [(entry.tls.is_some(), "tls"), (entry.retry.is_some(), "retry"), (entry.recover.is_some(), "recover")];
    parts.extend(others.into_iter().filter(|(given, _)| *given).map(|(_, what)| what.to_owned()));
    if entry.ladder.is_some() {
        parts.push("ladder".into());
    }
    parts.join(", ")
}
