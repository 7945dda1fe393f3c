//! `mailrail pool`: an account's pools of dedicated IPs.

use super::{Outcome, connect::Connect, plan};
use crate::{
    client::{Client, encoded},
    ui::{
        self,
        table::{Left, Right, Table, figure, text},
    },
};
use mailrail_engine::control::api::types::{
    CreatePool, DedicatedIps, Done, MovePool, PoolAnswer, Pools, PutPool, PutScaling, ScalingMode,
};
use mailrail_queue::policy::Overflow;
use serde_json::Value;
use std::net::IpAddr;

/// Pools of dedicated IPs: list, create, delete, and move IPs between them
#[derive(Debug, clap::Args)]
#[command(after_long_help = super::after_help!(
    "  mailrail pool list --account acme\n  \
       mailrail pool create acme-marketing --account acme\n  \
       mailrail pool set acme-marketing --plan 50:1.2:50000 --overflow defer\n  \
       mailrail pool move 192.0.2.10 acme-marketing --account acme\n"
))]
pub(crate) struct Args {
    #[command(subcommand)]
    command: What,
    /// Whose pools
    #[arg(long, value_name = "ACCOUNT", default_value = "default", global = true)]
    account: String,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Show the pools of an account
    List {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Make a pool
    Create {
        /// Its name
        name: String,
        /// The host decides which IPs it has
        #[arg(long)]
        managed: bool,
    },
    /// Delete a pool; its IPs fall to ses-default-dedicated-pool
    Delete {
        /// Its name
        name: String,
    },
    /// Change its warm-up plan, and where its overflow goes
    Set(Settings),
    /// Let the host decide which IPs it has; it cannot be undone
    Managed {
        /// Its name
        name: String,
    },
    /// Move an IP to another pool; its warm-up goes along
    Move {
        /// The leased IP
        ip: IpAddr,
        /// The pool
        pool: String,
    },
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("setting").required(true).multiple(true))]
struct Settings {
    /// Name of the pool
    name: String,
    /// Warm-up plan of its IPs that have none of their own: 50,100,200 or 50:1.2:50000; inherit: the account's
    #[arg(long, group = "setting", value_name = "PLAN", value_parser = plan::parse)]
    plan: Option<Value>,
    /// Spend a day's allowance in no less than this, as in 6h
    #[arg(long, group = "setting", value_name = "TIME")]
    spread: Option<String>,
    /// Where mail goes that its plans do not let through: auto, pool, shared, dedicated, defer, reject
    #[arg(long, group = "setting", value_name = "WHERE", value_parser = overflow)]
    overflow: Option<Overflow>,
    /// Wait so long for the plan before it overflows, as in 30s
    #[arg(long, group = "setting", value_name = "TIME")]
    overflow_after: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &Args) -> Outcome {
    let client = args.connect.client()?;
    let account = encoded(&args.account);
    let base = "/v2/email/dedicated-ip-pools";
    let pool = |name: &str| format!("{base}/{}?account={account}", encoded(name));
    match &args.command {
        What::List { json } => {
            let pools: Pools = client.get(&format!("{base}?account={account}&PageSize=1000"))?;
            if *json {
                return Ok(ui::print_json(&pools)?);
            }
            let mut table = Table::new(&[Left("POOL"), Left("SCALING"), Right("IPS")]);
            for name in &pools.dedicated_ip_pools {
                let answer: PoolAnswer = client.get(&pool(name))?;
                let path =
                    format!("/v2/email/dedicated-ips?account={account}&PageSize=1000&PoolName={}", encoded(name));
                let ips: DedicatedIps = client.get(&path)?;
                let mode = match answer.dedicated_ip_pool.scaling_mode {
                    ScalingMode::Standard => "standard",
                    ScalingMode::Managed => "managed",
                };
                table.row([text(name), text(mode), figure(ips.dedicated_ips.len() as u64)]);
            }
            Ok(ui::print(&table.to_string())?)
        }
        What::Create { name, managed } => {
            let mode = if *managed { ScalingMode::Managed } else { ScalingMode::Standard };
            let request = CreatePool { pool_name: Some(name.clone()), scaling_mode: Some(mode), tags: None };
            let _: Done = client.post(&format!("{base}?account={account}"), &request)?;
            Ok(ui::print(&format!("Pool {name} is made.\n"))?)
        }
        What::Delete { name } => {
            let _: Done = client.delete(&pool(name))?;
            Ok(ui::print(&format!("Pool {name} is deleted.\n"))?)
        }
        What::Move { ip, pool } => move_ip(&client, &args.account, *ip, pool),
        What::Managed { name } => {
            let path = format!("{base}/{}/scaling?account={account}", encoded(name));
            let _: Done = client.put(&path, &PutScaling { scaling_mode: Some(ScalingMode::Managed) })?;
            Ok(ui::print(&format!("Pool {name} is managed.\n"))?)
        }
        What::Set(wanted) => set(&client, wanted),
    }
}

/// Puts an IP into another pool of its account.
pub(super) fn move_ip(client: &Client, account: &str, ip: IpAddr, pool: &str) -> Outcome {
    let path = format!("/v2/email/dedicated-ips/{}/pool?account={}", encoded(&ip.to_string()), encoded(account));
    let _: Done = client.put(&path, &MovePool { destination_pool_name: Some(pool.to_owned()) })?;
    Ok(ui::print(&format!("{ip} is in pool {pool}.\n"))?)
}

fn set(client: &Client, wanted: &Settings) -> Outcome {
    let Settings { name, plan, spread, overflow, overflow_after } = wanted;
    let request = PutPool {
        plan: plan.clone(),
        spread: spread.clone(),
        overflow: *overflow,
        overflow_after: overflow_after.clone(),
    };
    let _: Done = client.put(&format!("/mailrail/v1/pools/{}", encoded(name)), &request)?;
    Ok(ui::print(&format!("Pool {name} is changed; a plan holds from the next day on.\n"))?)
}

fn overflow(text: &str) -> Result<Overflow, String> {
    serde_json::from_value(text.into()).map_err(|_| "auto, pool, shared, dedicated, defer or reject".into())
}
