//! Hard bounces, found in the event lines on their way to the log: an address that bounced for good is listed before its
//! event counts as kept, so no crash forgets one.

use mailrail_queue::{policy::Policy, time::Wall};
use serde::Deserialize;

/// Begins every line of a bounce.
const BOUNCE: &[u8] = b"{\"eventType\":\"Bounce\"";
/// Codes that say that the address is bad; anything else may be policy, content or the host's own doing.
const OF_THE_ADDRESS: [&str; 6] = ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"];

/// An address that bounced for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HardBounce {
    /// On whose list it goes; none: the host's.
    pub(crate) account: Option<String>,
    pub(crate) recipient: String,
    pub(crate) message_id: String,
    pub(crate) at: Wall,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    message_id: String,
    account: String,
    source: String,
    recipient: String,
    bounce_type: Option<String>,
    bounce_sub_type: Option<String>,
    status: Option<String>,
}

/// Of these lines, the bounces that put their address on a list.
pub(crate) fn find(lines: &[u8], policy: &Policy, now: Wall) -> Vec<HardBounce> {
    let bounces = lines.split(|byte| *byte == b'\n').filter(|line| line.starts_with(BOUNCE));
    bounces.filter_map(|line| of_line(serde_json::from_slice(line).ok()?, policy, now)).collect()
}

fn of_line(line: Line, policy: &Policy, now: Wall) -> Option<HardBounce> {
    let account = policy.account(&line.account).filter(|account| account.lists_bounces)?;
    let general = matches!(line.bounce_sub_type.as_deref(), Some("General" | "NoEmail"));
    let hard = line.bounce_type.as_deref() == Some("Permanent") && general;
    let of_the_address = line.status.as_deref().is_some_and(|status| OF_THE_ADDRESS.contains(&status));
    // A notification of the host's own that bounces says nothing about mail of the account.
    (hard && of_the_address && !line.source.is_empty()).then(|| HardBounce {
        account: account.reasons.bounce.then_some(line.account),
        recipient: line.recipient,
        message_id: line.message_id,
        at: now,
    })
}
