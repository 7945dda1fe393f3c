//! What is done to the server: mail offered, kills, looks at it over a long run, and the wait for its queue to be empty.

use super::{
    Args,
    books::{Kill, Promises},
    gauge::Sample,
    plan,
    waits::Waits,
};
use crate::{
    cmd::{
        Failure,
        demo::world::{SENDERS, World},
        stop::Stop,
    },
    server::Server,
    ui::{progress::Progress, units},
};
use mailrail_bench::load::{Amount, Load, Pace, RecipientDomain, Running, Sizes};
use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often things are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long the list of what is queued may take, where nobody is waited for any more.
const LIST: Duration = Duration::from_secs(60);
/// Looks at the process in a long run: fewer in a very long one.
const SAMPLE: Duration = Duration::from_secs(2);
const SAMPLES_MAX: u32 = 20_000;
const RECIPIENTS_MAX: usize = 4;
/// One kill in so many comes while the server starts.
const STARTING: u64 = 6;
/// Users that a receiver does not know: few enough to be met again, when they are suppressed, and to need little memory.
const UNKNOWN: u32 = 2_000;

/// What was done, and the server that is left.
pub(super) struct Done {
    pub(super) server: Server,
    pub(super) kills: Vec<Kill>,
    pub(super) samples: Vec<Sample>,
    /// Somebody had enough of it.
    pub(super) cut_short: bool,
}

/// Starts an open loop that goes on until it is stopped.
pub(super) fn offer(
    args: &Args,
    world: &World,
    target: SocketAddr,
    promises: &Arc<Mutex<Promises>>,
) -> Result<Running, Failure> {
    let mut load = Load::new(target);
    load.connections = 20;
    load.pace = Pace::Open(f64::from(args.rate));
    load.amount = Amount::For(Duration::from_secs(365 * 86_400));
    load.seed = args.seed;
    load.run = "torture".into();
    load.sizes = Sizes::LogUniform { min: 1024, max: 32 << 10 };
    load.senders = SENDERS.iter().map(|sender| (*sender).to_owned()).collect();
    let few = |domain: RecipientDomain| RecipientDomain {
        users: if domain.unknown > 0.0 { UNKNOWN } else { domain.users },
        ..domain
    };
    load.domains = world.recipients().into_iter().map(few).collect();
    load.headers = plan::headers();
    load.recipients_per_message = (1, RECIPIENTS_MAX);
    load.attempts_max = 1_000;
    load.patience = Duration::from_secs(60);
    load.ledger = false;
    let book = Arc::clone(promises);
    load.record = Some(Arc::new(move |record| {
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        book.in_doubt += record.in_doubt.len() as u64;
        if !record.accepted.is_empty()
            && let Err(why) = book.add(record.id, record.reply, record.accepted)
        {
            // What is not written down is missing in the sums, which shows as well.
            tracing::error!("book of promises: {why}");
        }
    }));
    load.start().map_err(|why| Failure::Operation(format!("torture: {why}")))
}

/// Kills it at moments of its own choice, and starts it again.
pub(super) fn kill(
    args: &Args,
    config: &Path,
    mut server: Server,
    load: &Running,
    interrupted: &Stop,
) -> Result<Done, Failure> {
    let bar = progress(args, args.kills().into(), "killing");
    let said = || format!("{} messages accepted", units::count(load.progress().accepted));
    let (mut chance, mut kills) = (args.seed, Vec::new());
    while kills.len() < args.kills() as usize && !interrupted.is_asked() {
        thread::sleep(Duration::from_millis(50 + next(&mut chance) % 1450));
        server = crash(config, server, &mut chance, &mut kills, args.kills() as usize)?;
        bar.set(kills.len() as u64, said());
    }
    bar.finish(said());
    let cut_short = kills.len() < args.kills() as usize;
    Ok(Done { server, kills, samples: Vec::new(), cut_short })
}

/// One kill; another one while it starts again, now and then.
fn crash(
    config: &Path,
    server: Server,
    chance: &mut u64,
    kills: &mut Vec<Kill>,
    most: usize,
) -> Result<Server, Failure> {
    let at_us = wall_us();
    server.kill()?;
    kills.push(Kill { at_us, back_us: at_us });
    let mut server = Server::spawn(config)?;
    while kills.len() < most && next(chance).is_multiple_of(STARTING) {
        thread::sleep(Duration::from_millis(next(chance) % 200));
        server.kill()?;
        let at_us = wall_us();
        kills.push(Kill { at_us, back_us: at_us });
        server = Server::spawn(config)?;
    }
    server.serves()?;
    if let Some(last) = kills.last_mut() {
        last.back_us = wall_us();
    }
    Ok(server)
}

/// Looks at it for long; `rotated` is called at every look.
pub(super) fn soak(
    args: &Args,
    config: &Path,
    mut server: Server,
    load: &Running,
    interrupted: &Stop,
    mut rotated: impl FnMut(&Server) -> io::Result<()>,
) -> Result<Done, Failure> {
    let length = args.soak.unwrap_or_default();
    let every = SAMPLE.max(length / SAMPLES_MAX);
    let bar = progress(args, length.as_secs(), "soaking");
    let (mut chance, mut kills, mut samples) = (args.seed, Vec::new(), Vec::new());
    let (begun, most) = (Instant::now(), args.kills() as usize);
    let mut look = begun + every;
    while begun.elapsed() < length && !interrupted.is_asked() && !load.is_finished() {
        thread::sleep(LOOK);
        // The kills divide the time into equal parts.
        if kills.len() < most && begun.elapsed() > length / (args.kills() + 1) * (kills.len() as u32 + 1) {
            server = crash(config, server, &mut chance, &mut kills, most)?;
        }
        if Instant::now() < look {
            continue;
        }
        look += every;
        rotated(&server)?;
        samples.extend(Sample::take(&server));
        bar.set(begun.elapsed().as_secs(), format!("{} messages accepted", units::count(load.progress().accepted)));
    }
    bar.finish(format!("{} messages accepted", units::count(load.progress().accepted)));
    let cut_short = begun.elapsed() < length;
    Ok(Done { server, kills, samples, cut_short })
}

/// Waits until nothing is queued, or patience ends; returns what still is.
pub(super) fn settle(args: &Args, server: &Server, interrupted: &Stop) -> Result<Waits, Failure> {
    let end = Instant::now() + Duration::from_secs(args.patience);
    let bar = progress(args, server.status()?.queued, "settling");
    let most = server.status()?.queued;
    loop {
        let status = server.status()?;
        // A shard that gave no answer in time may have any number.
        let all_answered = status.silent_shards.is_empty() && !status.shards.is_empty();
        bar.set(most.saturating_sub(status.queued), String::new());
        let is_empty = all_answered && status.queued == 0;
        if is_empty || Instant::now() > end || interrupted.is_asked() {
            bar.finish(format!("{} still queued", units::count(status.queued)));
            return if is_empty { Ok(Waits::default()) } else { queued(server) };
        }
        thread::sleep(LOOK);
    }
}

/// All that the server says is waiting.
fn queued(server: &Server) -> Result<Waits, Failure> {
    let end = Instant::now() + LIST;
    let mut report = server.queue()?;
    // A busy machine may keep a shard from answering in time.
    while !report.silent_shards.is_empty() {
        if Instant::now() > end {
            return Err(Failure::Operation("torture: a shard does not say what it has queued".into()));
        }
        thread::sleep(LOOK);
        report = server.queue()?;
    }
    Ok(Waits::new(&report.rows))
}

fn progress(args: &Args, total: u64, what: &'static str) -> Progress {
    if args.json { Progress::hidden() } else { Progress::bar(total, what) }
}

/// SplitMix64: all that the moments of the kills and the choices of the operator need.
pub(super) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
