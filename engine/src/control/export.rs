//! The fleet as it is told to others: as a file that would change nothing, and as DNS records.

use super::fleet::{Fleet, Item, STRICT_RDNS};
use crate::sign::SigningKey;

impl Fleet {
    /// DNS records of the keys.
    pub(crate) fn dns_records(&self) -> Vec<(String, String)> {
        self.of("dkim")
            .filter_map(|(name, item)| {
                let Item::Dkim { key_pem, .. } = item else { return None };
                let (domain, selector) = name.split_once('/')?;
                let key = SigningKey::from_pem(key_pem.as_bytes()).ok()?;
                Some((format!("{selector}._domainkey.{domain}"), key.dns_record()))
            })
            .collect()
    }

    /// A file that changes nothing.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::from("# The fleet, as exported. `mailrail apply` of this file changes nothing.\n");
        let text = |value: &str| toml::Value::String(value.into()).to_string();
        for (name, item) in self.of("setting") {
            match item {
                Item::Default { pool } => out += &format!("\n{name} = {}\n", text(pool)),
                Item::Setting { value } if name == STRICT_RDNS => out += &format!("\n{name} = {value}\n"),
                Item::Setting { value } => out += &format!("\n{name} = {}\n", text(value)),
                _ => {}
            }
        }
        for (name, item) in self.of("pool") {
            let Item::Pool(pool) = item else { continue };
            out += &format!("\n[[pool]]\nname = {}\n{}", text(name), pool.to_toml());
        }
        for (name, account) in self.accounts() {
            out += &account.to_toml(name);
        }
        for (name, item) in self.of("ip") {
            if let Item::Ip { helo, pool, shard, account, warm, reason, plan } = item {
                let (name, helo, pool) = (text(name), text(helo), text(pool));
                out += &format!("\n[[ip]]\naddress = {name}\nhelo = {helo}\npool = {pool}\nshard = {shard}\n");
                if let Some(account) = account {
                    out += &format!("account = {}\n", text(account));
                }
                if *warm {
                    out += &format!("warm = true\nreason = {}\n", text(reason.as_deref().unwrap_or_default()));
                }
                if let Some(plan) = plan {
                    out += &format!("plan = {}\n", plan.to_toml());
                }
            }
        }
        for (name, item) in self.of("dkim") {
            if let (Item::Dkim { key_file, key_pem, .. }, Some((domain, selector))) = (item, name.split_once('/')) {
                out += &format!("\n[[dkim]]\ndomain = {}\nselector = {}\n", text(domain), text(selector));
                match key_file {
                    Some(path) => out += &format!("key_file = {}\n", text(&path.display().to_string())),
                    None => out += &format!("key_pem = '''\n{}'''\n", key_pem.trim_start_matches('\n')),
                }
            }
        }
        for (name, item) in self.of("domain") {
            if let Item::Domain { tls, connections, messages_per_connection } = item {
                out += &format!("\n[[domain]]\nname = {}\n", text(name));
                if let Some(tls) = tls {
                    out += &format!("tls = {}\n", text(tls));
                }
                for (key, limit) in [("connections", connections), ("messages_per_connection", messages_per_connection)]
                {
                    if let Some(limit) = limit {
                        out += &format!("{key} = {limit}\n");
                    }
                }
            }
        }
        out += &self.providers_toml();
        out
    }
}
