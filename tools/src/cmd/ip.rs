//! `mailrail ip`: leased IPs and their warm-up.

use super::{Failure, Outcome, connect::Connect, plan, pool};
use crate::{
    client::{Client, encoded},
    ui::{
        self,
        colour::{WARN, paint},
        table::{Left, Right, Table, dim, figure, good, text, unless_zero, warn},
        units,
    },
};
use comfy_table::Cell;
use mailrail_engine::control::api::types::{
    AutoWarmup, Done, IpPlan, LeaseRequest, LeaseRow, LeaseState, Leases, WarmupPercentage,
};
use serde_json::Value;
use std::net::IpAddr;

/// Leased IPs: list, lease, move, drain, release, and warm up
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail ip list\n  \
       mailrail ip lease 192.0.2.10 --helo out10.example.net --pool acme-marketing\n  \
       mailrail ip warmup 192.0.2.10 --set 40\n  \
       mailrail ip warmup 192.0.2.10 --plan 50:1.2:50000\n  \
       mailrail ip move 192.0.2.10 acme-news --account acme\n  \
       mailrail ip warmup --account acme --off\n  \
       mailrail ip drain 192.0.2.10 && mailrail ip release 192.0.2.10 --yes\n"
))]
pub(crate) struct Args {
    #[command(subcommand)]
    command: What,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show all leased IPs, with their warm-up
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Lease an address of this host; in a dedicated pool its warm-up begins today
    Lease(LeaseArgs),
    /// Move it to another pool of its account; its warm-up goes along
    Move {
        /// The leased IP
        ip: IpAddr,
        /// The pool
        pool: String,
        /// Whose IP it is
        #[arg(long, value_name = "ACCOUNT", default_value = "default")]
        account: String,
    },
    /// Give it no new mail; what it has goes out
    Drain {
        /// The leased IP
        ip: IpAddr,
    },
    /// End a lease for good; mail that still waits for it gets another IP
    Release {
        /// The leased IP
        ip: IpAddr,
        /// It cannot be undone: yes, do it
        #[arg(long)]
        yes: bool,
    },
    /// Change the warm-up of an IP, or of all IPs of an account
    Warmup(WarmupArgs),
}

#[derive(Debug, clap::Args)]
struct LeaseArgs {
    /// The address
    ip: IpAddr,
    /// Name to say in EHLO
    #[arg(long, value_name = "NAME")]
    helo: String,
    /// Pool to put it in
    #[arg(long, value_name = "POOL")]
    pool: String,
    /// Account, for the pool ses-default-dedicated-pool only
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Shard to own it; without this the one with the fewest
    #[arg(long, value_name = "N")]
    shard: Option<u16>,
    /// It is warm already; say why with --reason
    #[arg(long, requires = "reason")]
    warm: bool,
    /// Why it is said to be warm
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Its plan: caps of its days, as in 50,100,200, or START:FACTOR:TARGET, as in 50:1.2:50000
    #[arg(long, value_name = "PLAN", value_parser = plan::parse)]
    plan: Option<Value>,
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("change").required(true))]
struct WarmupArgs {
    /// The leased IP; not with --on and --off
    #[arg(required_unless_present_any = ["on", "off"], conflicts_with_all = ["on", "off"])]
    ip: Option<IpAddr>,
    /// It is done: no cap any more
    #[arg(long, group = "change")]
    complete: bool,
    /// Back to day 1, today
    #[arg(long, group = "change")]
    reset: bool,
    /// So far through its plan, percent
    #[arg(long, group = "change", value_name = "PERCENT")]
    set: Option<i64>,
    /// The plan stands still at today's cap
    #[arg(long, group = "change")]
    hold: bool,
    /// The plan goes on
    #[arg(long, group = "change")]
    resume: bool,
    /// Another plan, from the next day on: 50,100,200 or 50:1.2:50000; inherit: that of its pool or account
    #[arg(long, group = "change", value_name = "PLAN", value_parser = plan::parse)]
    plan: Option<Value>,
    /// IPs that the account leases from now on warm up
    #[arg(long, group = "change")]
    on: bool,
    /// All IPs of the account are done, and those leased from now on
    #[arg(long, group = "change")]
    off: bool,
    /// Whose IP it is
    #[arg(long, value_name = "ACCOUNT", default_value = "default")]
    account: String,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let client = args.connect.client()?;
    match &args.command {
        What::List { json } => {
            let leases: Leases = client.get("/mailrail/v1/leases")?;
            if *json {
                return Ok(ui::print_json(&leases)?);
            }
            Ok(ui::print(&shown(&leases.leases, units::now_ms()))?)
        }
        What::Lease(args) => {
            let _: Done = client.post("/mailrail/v1/leases", &request(args))?;
            Ok(ui::print(&format!("{} is leased.\n", args.ip))?)
        }
        What::Move { ip, pool, account } => pool::move_ip(&client, account, *ip, pool),
        What::Drain { ip } => {
            let _: Done = client.post(&format!("{}/drain", lease(*ip)), &Done {})?;
            Ok(ui::print(&format!("{ip} takes nothing new.\n"))?)
        }
        What::Release { ip, yes } => {
            if !yes {
                let text = format!("releasing {ip} cannot be undone: its warm-up is lost; say --yes to do it");
                return Err(Failure::Usage(text));
            }
            let _: Done = client.delete(&lease(*ip))?;
            Ok(ui::print(&format!("{ip} is released.\n"))?)
        }
        What::Warmup(args) => warmup(&client, args),
    }
}

fn lease(ip: IpAddr) -> String {
    format!("/mailrail/v1/leases/{}", encoded(&ip.to_string()))
}

fn request(args: &LeaseArgs) -> LeaseRequest {
    LeaseRequest {
        address: args.ip,
        helo: args.helo.clone(),
        pool: args.pool.clone(),
        account: args.account.clone(),
        shard: args.shard,
        warm: args.warm,
        reason: args.reason.clone(),
        plan: args.plan.clone(),
    }
}

fn warmup(client: &Client, args: &WarmupArgs) -> Outcome {
    let account = encoded(&args.account);
    let Some(ip) = args.ip else {
        let path = format!("/v2/email/account/dedicated-ips/warmup?account={account}");
        let _: Done = client.put(&path, &AutoWarmup { auto_warmup_enabled: Some(args.on) })?;
        let state = if args.on { "on for IPs leased from now on" } else { "off: its IPs count as warm" };
        return Ok(ui::print(&format!("Automatic warm-up of {} is {state}.\n", args.account))?);
    };
    if let Some(plan) = &args.plan {
        let request = IpPlan { plan: Some(plan.clone()), ..IpPlan::default() };
        let _: Done = client.put(&format!("{}/plan", lease(ip)), &request)?;
        return Ok(ui::print(&format!("The plan of {ip} is another one from its next day on.\n"))?);
    }
    if args.hold || args.resume {
        let _: Done =
            client.put(&format!("{}/plan", lease(ip)), &IpPlan { held: Some(args.hold), ..IpPlan::default() })?;
        let state = if args.hold { "stands still" } else { "goes on" };
        return Ok(ui::print(&format!("The plan of {ip} {state}.\n"))?);
    }
    let percentage = args.set.unwrap_or(if args.complete { 100 } else { 0 });
    let path = format!("/v2/email/dedicated-ips/{}/warmup?account={account}", encoded(&ip.to_string()));
    let _: Done = client.put(&path, &WarmupPercentage { warmup_percentage: Some(percentage.into()) })?;
    Ok(ui::print(&format!("{ip} is at {percentage} % of its plan.\n"))?)
}

fn shown(leases: &[LeaseRow], now: u64) -> String {
    if leases.is_empty() {
        return "No IP is leased.\n".into();
    }
    let mut table = Table::new(&[
        Left("IP"),
        Left("POOL"),
        Left("ACCOUNT"),
        Left("STATE"),
        Right("DAY"),
        Right("%"),
        Right("SENT TODAY"),
        Right("CAP"),
        Right("TOMORROW"),
        Right("WAITING"),
        Left("DONE"),
    ]);
    for lease in leases {
        let warmup = lease.warmup.as_ref();
        let cap = |cap: Option<u32>| cap.map_or_else(|| dim("-"), |cap| figure(cap.into()));
        table.row([
            text(lease.address),
            text(&lease.pool),
            lease.account.as_ref().map_or_else(|| dim("all"), text),
            state(lease),
            warmup.and_then(|warmup| warmup.plan_day).map_or_else(|| dim("-"), text),
            warmup.map_or_else(|| dim("-"), |warmup| text(warmup.percentage)),
            warmup.map_or_else(|| dim("-"), |warmup| figure(warmup.sent.into())),
            cap(warmup.and_then(|warmup| warmup.cap)),
            cap(warmup.and_then(|warmup| warmup.next_cap)),
            unless_zero(warmup.map_or(0, |warmup| warmup.waiting), warn),
            warmup.and_then(|w| w.done_on).map_or_else(|| dim("-"), |at| text(units::relative(at, now))),
        ]);
    }
    let mut shown = table.to_string();
    for (lease, wrong) in leases.iter().filter_map(|lease| Some((lease, lease.rdns.as_ref()?))) {
        shown += &format!("{} {}: {wrong}\n", paint(WARN, "warning:"), lease.address);
    }
    shown
}

fn state(lease: &LeaseRow) -> Cell {
    let held = lease.warmup.as_ref().is_some_and(|warmup| warmup.held && !warmup.done);
    match lease.state {
        LeaseState::Warming if held => warn("held"),
        LeaseState::Warming => text("warming"),
        LeaseState::Warm => good("warm"),
        LeaseState::Draining => warn("draining"),
        LeaseState::Leased => dim("leased"),
        LeaseState::Shared => text("shared"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use mailrail_engine::link::WarmupStanding;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_lease_shows_how_far_it_is() {
        let warmup =
            WarmupStanding { percentage: 40, plan_day: Some(19), cap: Some(840), sent: 12, ..Default::default() };
        let row = LeaseRow {
            address: [192, 0, 2, 1].into(),
            helo: "out".into(),
            pool: "main".into(),
            account: Some("acme".into()),
            shard: 0,
            state: LeaseState::Warming,
            leased: Some(1),
            queued: 0,
            rdns: Some("it has no PTR record".into()),
            warmup: Some(warmup),
        };
        let shown = anstream::adapter::strip_str(&shown(&[row], 0)).to_string();
        for part in ["192.0.2.1", "acme", "warming", "19", "40", "12", "840", "warning: 192.0.2.1: it has no PTR"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn a_warm_up_is_changed_in_one_way_at_a_time() {
        let parse = |args: &[&str]| Line::try_parse_from([&["ip", "warmup"], args].concat()).is_ok();
        assert!(parse(&["192.0.2.1", "--set", "40"]) && parse(&["--account", "acme", "--off"]));
        assert!(
            !parse(&["192.0.2.1"]) && !parse(&["192.0.2.1", "--reset", "--hold"]) && !parse(&["192.0.2.1", "--off"])
        );
        assert!(!parse(&["--set", "40"]));
    }
}
