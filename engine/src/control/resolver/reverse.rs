//! Does the reverse DNS of a leased IP fit its EHLO name? Receivers ask for its PTR record, and for the addresses of the name
//! in it (RFC 8601 section 2.7.3, "iprev"). *Control thread.*

use super::{
    dns::{Dns, Found},
    site::Sites,
};
use std::net::IpAddr;

impl Sites {
    /// What is wrong with it, in words; none: it fits. Of loopback nobody asks.
    pub(super) async fn reverse(&self, address: IpAddr, helo: &str) -> Option<String> {
        if address.is_loopback() {
            return None;
        }
        match pointer(&self.dns, address, helo).await {
            None => forward(&self.dns, address, helo).await,
            wrong => wrong,
        }
    }
}

async fn pointer(dns: &Dns, address: IpAddr, helo: &str) -> Option<String> {
    match dns.ptr(&reverse_name(address)).await {
        Found::Some(names, _) if names.iter().any(|name| name.eq_ignore_ascii_case(helo)) => None,
        Found::Some(names, _) => Some(format!("its PTR record names {}, not {helo}", names.join(", "))),
        Found::Nothing | Found::NoName => Some(format!("it has no PTR record; receivers expect one that names {helo}")),
        Found::Later(why) => Some(format!("its PTR record could not be asked for: {why}")),
    }
}

async fn forward(dns: &Dns, address: IpAddr, helo: &str) -> Option<String> {
    match dns.addresses(helo).await {
        Found::Some(addresses, _) if addresses.contains(&address) => None,
        Found::Some(..) => Some(format!("{helo} has other addresses than this one")),
        Found::Nothing | Found::NoName => Some(format!("{helo} has no address")),
        Found::Later(why) => Some(format!("the addresses of {helo} could not be asked for: {why}")),
    }
}

/// The name under which an address has its PTR record (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            let labels: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            labels + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_those_of_the_rfcs() {
        assert_eq!(reverse_name("192.0.2.10".parse().unwrap()), "10.2.0.192.in-addr.arpa");
        let v6 = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa";
        assert_eq!(reverse_name("4321:0:1:2:3:4:567:89ab".parse().unwrap()), v6);
    }
}
