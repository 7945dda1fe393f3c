//! `[[account]]` of the fleet file: who sends, how much, with which keys; and what the store keeps of it.

use super::{
    fleet::{Fleet, FleetError, Item},
    key_file::read_key,
    pools::{PlanItem, PoolItem, plan_of},
};
use crate::{
    config::{Source, is_domain},
    credentials::Credentials,
};
use aws_lc_rs::digest;
use mailrail_queue::{
    admit::{quota::Limits, suppress::Reasons},
    policy::{Account, DEFAULT_ACCOUNT, Pool, PoolKind},
    warmup::day::{BadDayStart, DayStart},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};
use toml::Spanned;

/// Keys of an account: two, to replace one by the other, and some for parts of a company.
const KEYS_MAX: usize = 20;

/// Instead of a plan or a time of its own: that of the wider thing.
pub(crate) const INHERIT: &str = "inherit";

/// As it stands in the file. What is left out stays as the store has it, or as a new account has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileAccount {
    pub(super) name: Spanned<String>,
    pub(super) pool: Option<Spanned<String>>,
    max_24_hour_send: Option<Spanned<i64>>,
    max_send_rate: Option<Spanned<i64>>,
    quota_last_message: Option<Spanned<String>>,
    sandbox: Option<bool>,
    #[serde(default)]
    verified: Vec<Spanned<String>>,
    sending_enabled: Option<bool>,
    pause_holds_queue: Option<bool>,
    suppressed_reasons: Option<Vec<Spanned<String>>>,
    plan: Option<Spanned<toml::Value>>,
    day_starts: Option<Spanned<String>>,
    #[serde(default)]
    key: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    id: Spanned<String>,
    secret_file: Option<Spanned<PathBuf>>,
    secret: Option<Spanned<String>>,
}

/// As the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccountItem {
    pub(crate) pool: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) sandbox: bool,
    #[serde(default)]
    pub(crate) verified: Vec<String>,
    pub(crate) sending_enabled: bool,
    /// While it is paused, what is queued is held.
    #[serde(default = "yes")]
    pub(crate) pause_holds_queue: bool,
    pub(crate) reasons: Reasons,
    /// False for the built-in account only, until somebody sets its reasons.
    pub(crate) lists_bounces: bool,
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, Key>,
    /// Of its IPs that have no plan of their own or of their pool.
    #[serde(default)]
    pub(crate) plan: Option<PlanItem>,
    /// When the days of its IPs begin.
    #[serde(default)]
    pub(crate) day_starts: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    secret_file: Option<PathBuf>,
    secret: Secret,
}

fn yes() -> bool {
    true
}

/// Never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.fingerprint())
    }
}

impl Secret {
    /// Tells two secrets apart, and nothing else.
    fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, self.0.as_bytes());
        hash.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// When days begin, `HH:MM±hh:mm`.
///
/// # Errors
/// It is no such time.
pub(crate) fn day_starts(text: &str) -> Result<DayStart, String> {
    text.parse().map_err(|error: BadDayStart| error.to_string())
}

/// A limit in words: -1 means none.
pub(crate) fn limit_of(limit: Option<u32>) -> i64 {
    limit.map_or(-1, i64::from)
}

/// A limit as it is given.
///
/// # Errors
/// Neither -1 nor a number of recipients.
pub(crate) fn limit_from(value: i64) -> Result<Option<u32>, String> {
    match value {
        -1 => Ok(None),
        _ => u32::try_from(value)
            .map(Some)
            .map_err(|_| format!("{value} is no limit: -1 for none, or 0 to {}", u32::MAX)),
    }
}

/// For the reasons that these words name.
///
/// # Errors
/// The word that is none.
pub(crate) fn reasons_from<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Reasons, String> {
    let mut reasons = Reasons::NONE;
    for word in words {
        match word {
            "BOUNCE" => reasons.bounce = true,
            "COMPLAINT" => reasons.complaint = true,
            _ => return Err(format!("\"{word}\" is no reason: BOUNCE or COMPLAINT")),
        }
    }
    Ok(reasons)
}

/// In the words of SES.
pub(crate) fn words_of(reasons: Reasons) -> Vec<&'static str> {
    let each = [(reasons.bounce, "BOUNCE"), (reasons.complaint, "COMPLAINT")];
    each.into_iter().filter(|(has, _)| *has).map(|(_, word)| word).collect()
}

impl FileAccount {
    /// Reads none of its keys.
    pub(super) fn forget_keys(&mut self) {
        self.key.clear();
    }

    fn starts(&self) -> Result<Option<String>, (usize, String)> {
        let Some(text) = &self.day_starts else { return Ok(None) };
        match day_starts(text.get_ref()) {
            Ok(_) => Ok(Some(text.get_ref().clone())),
            Err(why) => Err((text.span().start, format!("[[account]] {}: {why}", self.name.get_ref()))),
        }
    }
}

impl AccountItem {
    /// What the account is that no file names.
    pub(crate) fn built_in() -> Self {
        let Account { limits, sandbox, sending_enabled, pause_holds_queue, reasons, lists_bounces, .. } =
            Account::built_in();
        let (pool, verified, keys) = (None, Vec::new(), BTreeMap::new());
        let (plan, day_starts) = (None, None);
        Self {
            pool,
            limits,
            sandbox,
            verified,
            sending_enabled,
            pause_holds_queue,
            reasons,
            lists_bounces,
            keys,
            plan,
            day_starts,
        }
    }

    /// Reads one of the file; `old` is what the store has.
    ///
    /// # Errors
    /// Where and what.
    pub(super) fn read(file: &FileAccount, source: &Source<'_>, old: Option<&Self>) -> Result<Self, (usize, String)> {
        let name = file.name.get_ref();
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
            let text = format!("[[account]] name \"{name}\": 1 to 64 of letters, digits, -, _ and .");
            return Err((file.name.span().start, text));
        }
        let limits = limits(file)?;
        let start = Limits::SANDBOX;
        // The first granted increase leaves the sandbox.
        let more =
            |limit: Option<u32>, start: Option<u32>| limit.is_none_or(|limit| start.is_some_and(|start| limit > start));
        let granted =
            more(limits.max_24_hour_send, start.max_24_hour_send) || more(limits.max_send_rate, start.max_send_rate);
        let reasons = match &file.suppressed_reasons {
            None => None,
            Some(words) => {
                let at = words.first().map_or(file.name.span().start, |word| word.span().start);
                let words = words.iter().map(|word| word.get_ref().as_str());
                Some(
                    reasons_from(words)
                        .map_err(|text| (at, format!("[[account]] {name}: suppressed_reasons: {text}")))?,
                )
            }
        };
        let mut keys = BTreeMap::new();
        for key in &file.key {
            let (id, read) = read_access_key(key, name, source, old)?;
            if keys.insert(id.clone(), read).is_some() || keys.len() > KEYS_MAX {
                let text = format!("[[account]] {name}: key {id}: listed twice, or more than {KEYS_MAX} keys");
                return Err((key.id.span().start, text));
            }
        }
        Ok(Self {
            pool: file.pool.as_ref().map(|pool| pool.get_ref().clone()),
            limits,
            sandbox: file.sandbox.unwrap_or(!granted),
            verified: verified(file)?,
            sending_enabled: file.sending_enabled.or(old.map(|old| old.sending_enabled)).unwrap_or(true),
            pause_holds_queue: file.pause_holds_queue.or(old.map(|old| old.pause_holds_queue)).unwrap_or(true),
            reasons: reasons.or(old.map(|old| old.reasons)).unwrap_or_default(),
            lists_bounces: true,
            keys,
            plan: plan_of(&format!("[[account]] {name}"), file.plan.as_ref())?,
            day_starts: file.starts()?,
        })
    }

    /// In words; never a secret.
    pub(super) fn words(&self) -> String {
        let Self { pool, limits, sandbox, verified, sending_enabled, reasons, keys, .. } = self;
        let mut words = format!(
            "max_24_hour_send {}, max_send_rate {}, suppressed_reasons {:?}",
            limit_of(limits.max_24_hour_send),
            limit_of(limits.max_send_rate),
            words_of(*reasons)
        );
        if limits.last_message_passes {
            words += ", quota_last_message allow";
        }
        if let Some(pool) = pool {
            words += &format!(", pool {pool}");
        }
        if *sandbox {
            words += &format!(", sandbox, {} verified", verified.len());
        }
        if !sending_enabled {
            words += ", paused";
        }
        if !self.pause_holds_queue {
            words += ", a pause lets the queue go on";
        }
        if let Some(plan) = &self.plan {
            words += &format!(", plan {}", plan.to_toml());
        }
        if let Some(starts) = &self.day_starts {
            words += &format!(", day_starts {starts}");
        }
        for (id, key) in keys {
            words += &format!(", key {id} ({})", key.secret.fingerprint());
        }
        words
    }

    /// As part of a fleet file. A secret that was given inline is left out: a key without one keeps what the store has.
    pub(super) fn to_toml(&self, name: &str) -> String {
        let text = |value: &str| toml::Value::String(value.into()).to_string();
        let list = |words: &[&str]| format!("[{}]", words.iter().map(|word| text(word)).collect::<Vec<_>>().join(", "));
        let mut out = format!("\n[[account]]\nname = {}\n", text(name));
        if let Some(pool) = &self.pool {
            out += &format!("pool = {}\n", text(pool));
        }
        out += &format!("max_24_hour_send = {}\n", limit_of(self.limits.max_24_hour_send));
        out += &format!("max_send_rate = {}\n", limit_of(self.limits.max_send_rate));
        if self.limits.last_message_passes {
            out += "quota_last_message = \"allow\"\n";
        }
        out += &format!("sandbox = {}\n", self.sandbox);
        if !self.verified.is_empty() {
            out += &format!("verified = {}\n", list(&self.verified.iter().map(String::as_str).collect::<Vec<_>>()));
        }
        out += &format!(
            "sending_enabled = {}\nsuppressed_reasons = {}\n",
            self.sending_enabled,
            list(&words_of(self.reasons))
        );
        if !self.pause_holds_queue {
            out += "pause_holds_queue = false\n";
        }
        if let Some(plan) = &self.plan {
            out += &format!("plan = {}\n", plan.to_toml());
        }
        if let Some(starts) = &self.day_starts {
            out += &format!("day_starts = {}\n", text(starts));
        }
        for (id, key) in &self.keys {
            out += &format!("[[account.key]]\nid = {}\n", text(id));
            if let Some(path) = &key.secret_file {
                out += &format!("secret_file = {}\n", text(&path.display().to_string()));
            }
        }
        out
    }

    /// As shards take it; `pool` is the place of its pool.
    pub(super) fn account(&self, name: &str, pool: Option<u32>) -> Account {
        Account {
            name: name.into(),
            pool,
            limits: self.limits,
            sandbox: self.sandbox,
            verified: self.verified.iter().map(|known| known.as_str().into()).collect(),
            sending_enabled: self.sending_enabled,
            pause_holds_queue: self.pause_holds_queue,
            reasons: self.reasons,
            lists_bounces: self.lists_bounces,
        }
    }

    /// Adds its keys.
    pub(super) fn add_keys(&self, name: &str, regions: &[String], to: &mut Credentials) {
        let account = Arc::from(name);
        self.keys.iter().for_each(|(id, key)| to.add(id, &key.secret.0, &account, regions));
    }
}

impl Fleet {
    pub(super) fn take_accounts(
        &mut self,
        accounts: &[FileAccount],
        source: &Source<'_>,
        old: &Self,
        fail: &impl Fn(usize, String) -> FleetError,
    ) -> Result<(), FleetError> {
        for account in accounts {
            let (name, at) = (account.name.get_ref(), account.name.span().start);
            let item = AccountItem::read(account, source, old.account(name)).map_err(|(at, text)| fail(at, text))?;
            if let Some(pool) = &account.pool
                && !self.pool(pool.get_ref()).is_some_and(|of| may_use(of, name))
            {
                let text = format!("[[account]] {name}: pool \"{}\" is no [[pool]] that it may use", pool.get_ref());
                return Err(fail(pool.span().start, text));
            }
            if let Some(id) = item.keys.keys().find(|id| self.accounts().any(|(_, other)| other.keys.contains_key(*id)))
            {
                return Err(fail(at, format!("[[account]] {name}: key \"{id}\" is another account's")));
            }
            if !self.put(name, Item::Account(item)) {
                return Err(fail(at, format!("[[account]] \"{name}\" is listed twice")));
            }
        }
        // The built-in account cannot be removed: what was decided of it while the server runs stays.
        if self.account(DEFAULT_ACCOUNT).is_none()
            && let Some(kept) = old.account(DEFAULT_ACCOUNT)
        {
            let mut kept = kept.clone();
            kept.pool = kept.pool.filter(|pool| self.of("pool").any(|(known, _)| known == pool));
            self.put(DEFAULT_ACCOUNT, Item::Account(kept));
        }
        Ok(())
    }

    /// All accounts that were declared.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = (&str, &AccountItem)> {
        self.of("account").filter_map(|(name, item)| match item {
            Item::Account(account) => Some((name, account)),
            _ => None,
        })
    }

    /// The account of this name, if it was declared.
    pub(crate) fn account(&self, name: &str) -> Option<&AccountItem> {
        self.accounts().find(|(known, _)| *known == name).map(|(_, account)| account)
    }

    /// Puts an account in place of what there was.
    pub(crate) fn set_account(&mut self, name: &str, account: AccountItem) {
        self.put(name, Item::Account(account));
    }

    /// The accounts of the policy that this fleet means, in order of name.
    pub(super) fn policy_accounts(&self, pools: &[Pool]) -> Vec<Account> {
        let place = |pool: &String| pools.iter().position(|of| *of.name == **pool).map(|position| position as u32);
        let account = |(name, item): (&str, &AccountItem)| item.account(name, item.pool.as_ref().and_then(place));
        let mut accounts: Vec<Account> = self.accounts().map(account).collect();
        if self.account(DEFAULT_ACCOUNT).is_none() {
            accounts.push(Account::built_in());
            accounts.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        }
        accounts
    }

    /// Who may submit as whom.
    pub(crate) fn credentials(&self, regions: &[String]) -> Credentials {
        let mut credentials = Credentials::default();
        self.accounts().for_each(|(name, account)| account.add_keys(name, regions, &mut credentials));
        credentials
    }
}

/// Its own pools, and the shared ones.
fn may_use(pool: &PoolItem, account: &str) -> bool {
    pool.kind == PoolKind::Shared || pool.account.as_deref().unwrap_or(DEFAULT_ACCOUNT) == account
}

fn limits(file: &FileAccount) -> Result<Limits, (usize, String)> {
    let name = file.name.get_ref();
    let limit = |value: &Option<Spanned<i64>>, what: &str, start: Option<u32>| match value {
        None => Ok(start),
        Some(value) => limit_from(*value.get_ref())
            .map_err(|text| (value.span().start, format!("[[account]] {name}: {what}: {text}"))),
    };
    let last_message_passes = match &file.quota_last_message {
        None => false,
        Some(word) if word.get_ref() == "allow" => true,
        Some(word) if word.get_ref() == "refuse" => false,
        Some(word) => {
            let text = format!("[[account]] {name}: quota_last_message: \"allow\" or \"refuse\"");
            return Err((word.span().start, text));
        }
    };
    Ok(Limits {
        max_24_hour_send: limit(&file.max_24_hour_send, "max_24_hour_send", Limits::SANDBOX.max_24_hour_send)?,
        max_send_rate: limit(&file.max_send_rate, "max_send_rate", Limits::SANDBOX.max_send_rate)?,
        last_message_passes,
    })
}

fn verified(file: &FileAccount) -> Result<Vec<String>, (usize, String)> {
    let each = file.verified.iter().map(|known| {
        let value = known.get_ref().to_ascii_lowercase();
        let domain = value.rsplit_once('@').map_or(value.as_str(), |(_, domain)| domain);
        if is_domain(domain) && !value.starts_with('@') {
            return Ok(value);
        }
        let text =
            format!("[[account]] {}: verified: \"{value}\" is neither an address nor a domain", file.name.get_ref());
        Err((known.span().start, text))
    });
    each.collect()
}

fn read_access_key(
    key: &FileKey,
    account: &str,
    source: &Source<'_>,
    old: Option<&AccountItem>,
) -> Result<(String, Key), (usize, String)> {
    let (id, at) = (key.id.get_ref(), key.id.span().start);
    let wrong = |at: usize, text: &str| Err((at, format!("[[account]] {account}: key \"{id}\": {text}")));
    if !(4..=128).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b)) {
        return wrong(at, "an id is 4 to 128 of letters, digits, -, _, . and @");
    }
    let (secret_file, secret, at) = match (&key.secret_file, &key.secret) {
        (Some(file), None) => {
            let path = source.absolute(file.get_ref());
            match read_key(&path) {
                Ok(text) => (Some(path), text, file.span().start),
                Err(error) => {
                    return wrong(file.span().start, &format!("secret_file {}: {error}", path.display()));
                }
            }
        }
        (None, Some(secret)) => (None, secret.get_ref().clone(), secret.span().start),
        (None, None) => match old.and_then(|old| old.keys.get(id)) {
            Some(kept) => return Ok((id.clone(), kept.clone())),
            None => return wrong(at, "it is new: give secret_file or secret"),
        },
        (Some(_), Some(_)) => return wrong(at, "give secret_file or secret, one of them"),
    };
    let secret = secret.trim().to_owned();
    if !(16..=256).contains(&secret.len()) || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return wrong(at, "a secret is 16 to 256 printable characters without blanks");
    }
    Ok((id.clone(), Key { secret_file, secret: Secret(secret) }))
}
