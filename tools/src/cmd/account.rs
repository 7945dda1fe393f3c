//! `mailrail account`: who sends, how much, and what an operator grants.

use super::{Failure, Outcome, connect::Connect, plan};
use crate::{
    client::encoded,
    ui::{
        self,
        table::{Left, Right, Table, bad, dim, text, warn},
        units,
    },
};
use mailrail_engine::{
    control::api::types::AccountWarmup,
    control::api::types::account::{
        AccountReport, AccountsReport, Done, LimitsRequest, PutAccountSendingAttributesRequest,
    },
    credentials::smtp_password,
};
use serde_json::Value;
use std::path::PathBuf;

/// Show accounts, grant limits, pause and resume sending
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail account list\n  \
       mailrail account limits acme --max-24-hour-send 500000 --max-send-rate 200\n  \
       mailrail account pause acme\n  \
       mailrail account smtp-password --secret-file acme.secret --region local\n"
))]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// All accounts, with their limits and what they sent in the last 24 hours
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// One account
    Show {
        /// Its name
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Grant other limits; an increase leaves the sandbox
    Limits(Limits),
    /// Change the warm-up of the IPs of an account
    Warmup(Warmup),
    /// Take no new mail from an account
    Pause {
        /// Its name
        name: String,
    },
    /// Take mail from it again
    Resume {
        /// Its name
        name: String,
    },
    /// Print the SMTP password of an access key; asks no server
    SmtpPassword {
        /// File with the key's secret
        #[arg(long, value_name = "PATH")]
        secret_file: PathBuf,
        /// One of the server's `[ses]` regions
        #[arg(long, default_value = "local")]
        region: String,
    },
}

#[derive(Debug, clap::Args)]
struct Limits {
    /// Name of the account
    name: String,
    /// Recipients in any 24 hours; -1: no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_24_hour_send: Option<i64>,
    /// Recipients a second; -1: no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_send_rate: Option<i64>,
    /// Into the sandbox, or out of it
    #[arg(long, value_name = "BOOL")]
    sandbox: Option<bool>,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
struct Warmup {
    /// Name of the account
    name: String,
    /// Plan of its IPs that have none, nor has their pool: 50,100,200 or 50:1.2:50000; inherit: the standard one
    #[arg(long, group = "setting", value_name = "PLAN", value_parser = plan::parse)]
    plan: Option<Value>,
    /// When its days begin, as in 06:00+02:00; inherit: as the host's do
    #[arg(long, group = "setting", value_name = "HH:MM±hh:mm")]
    day_starts: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    match &args.what {
        What::List { json } => list(args, *json),
        What::Show { name, json } => show(args, name, *json),
        What::Limits(limits) => grant(args, limits),
        What::Warmup(wanted) => warmup(args, wanted),
        What::Pause { name } => send(args, name, false),
        What::Resume { name } => send(args, name, true),
        What::SmtpPassword { secret_file, region } => {
            let secret = std::fs::read_to_string(secret_file)
                .map_err(|why| Failure::Usage(format!("{}: {why}", secret_file.display())))?;
            Ok(ui::print(&format!("{}\n", smtp_password(secret.trim(), region)))?)
        }
    }
}

fn limit(value: i64) -> String {
    u64::try_from(value).map_or_else(|_| "none".into(), units::count)
}

fn state(account: &AccountReport) -> comfy_table::Cell {
    match (account.sending_enabled, account.sandbox) {
        (false, _) => bad("paused"),
        (true, true) => warn("sandbox"),
        (true, false) => text("sending"),
    }
}

fn list(args: &Args, json: bool) -> Outcome {
    let report: AccountsReport = args.connect.client()?.get("/mailrail/v1/accounts")?;
    if json {
        return Ok(ui::print_json(&report)?);
    }
    let columns = [
        Left("ACCOUNT"),
        Left("STATE"),
        Left("POOL"),
        Right("SENT 24 H"),
        Right("OF"),
        Right("A SECOND"),
        Left("KEYS"),
    ];
    let mut table = Table::new(&columns);
    for account in &report.accounts {
        let sent = if account.max_24_hour_send < 0 && account.max_send_rate < 0 {
            dim("-")
        } else {
            text(units::count(account.sent_last_24_hours))
        };
        table.row([
            text(&account.name),
            state(account),
            account.pool.as_ref().map_or_else(|| dim("-"), text),
            sent,
            text(limit(account.max_24_hour_send)),
            text(limit(account.max_send_rate)),
            text(account.keys.join(", ")),
        ]);
    }
    Ok(ui::print(&table.to_string())?)
}

fn show(args: &Args, name: &str, json: bool) -> Outcome {
    let account: AccountReport = args.connect.client()?.get(&format!("/mailrail/v1/accounts/{}", encoded(name)))?;
    if json {
        return Ok(ui::print_json(&account)?);
    }
    let words = |words: &[String]| if words.is_empty() { "none".into() } else { words.join(", ") };
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let lines = [
        ("account", account.name.clone()),
        ("pool", account.pool.clone().unwrap_or_else(|| "the host's default".into())),
        ("automatic warm-up", yes(account.auto_warmup).into()),
        ("recipients in 24 hours", limit(account.max_24_hour_send)),
        ("of these sent", units::count(account.sent_last_24_hours)),
        ("recipients a second", limit(account.max_send_rate)),
        ("takes mail", yes(account.sending_enabled).into()),
        ("sandbox", yes(account.sandbox).into()),
        ("verified", words(&account.verified)),
        ("suppressed reasons", words(&account.suppressed_reasons)),
        ("access keys", words(&account.keys)),
    ];
    let text: String = lines.iter().map(|(name, value)| format!("{name:<24}{value}\n")).collect();
    Ok(ui::print(&text)?)
}

fn grant(args: &Args, limits: &Limits) -> Outcome {
    let Limits { name, max_24_hour_send, max_send_rate, sandbox } = limits;
    if max_24_hour_send.is_none() && max_send_rate.is_none() && sandbox.is_none() {
        return Err(Failure::Usage("name a limit: --max-24-hour-send, --max-send-rate or --sandbox".into()));
    }
    let request =
        LimitsRequest { max_24_hour_send: *max_24_hour_send, max_send_rate: *max_send_rate, sandbox: *sandbox };
    let _: Done = args.connect.client()?.put(&format!("/mailrail/v1/accounts/{}/limits", encoded(name)), &request)?;
    show(args, name, false)
}

fn warmup(args: &Args, wanted: &Warmup) -> Outcome {
    let Warmup { name, plan, day_starts } = wanted;
    let request = AccountWarmup { plan: plan.clone(), day_starts: day_starts.clone() };
    let _: Done = args.connect.client()?.put(&format!("/mailrail/v1/accounts/{}/warmup", encoded(name)), &request)?;
    Ok(ui::print(&format!("The warm-up of account {name} is another one from the next day on.\n"))?)
}

fn send(args: &Args, name: &str, sending_enabled: bool) -> Outcome {
    let path = format!("/v2/email/account/sending?account={}", encoded(name));
    let _: Done = args.connect.client()?.put(&path, &PutAccountSendingAttributesRequest { sending_enabled })?;
    let word = if sending_enabled { "takes mail again" } else { "takes no new mail" };
    Ok(ui::print(&format!("account {name} {word}\n"))?)
}
