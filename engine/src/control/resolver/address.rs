//! Which addresses mail must not be sent to, whatever the DNS says: whoever controls a zone would reach what only this
//! host can. Pure but for [`is_own`], which asks the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The address in an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 section 4.1.3).
pub(super) fn literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6:") => address.parse().ok().map(IpAddr::V6),
        _ => inner.parse().ok().map(IpAddr::V4),
    }
}

/// Does it belong to loopback, a private network, or nobody?
pub(super) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || a == 0
        // Shared address space (RFC 6598).
        || (a == 100 && (64..128).contains(&b))
        // Reserved, and broadcast.
        || a >= 240
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, ..] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        // Site-local, of old (RFC 3879).
        || a & 0xffc0 == 0xfec0
        || match address.segments() {
            // An IPv4 address in other clothes: NAT64 (RFC 6052), IPv4-compatible (RFC 4291), 6to4 (RFC 3056).
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => is_private_v4(v4(high, low)),
            _ => a == 0x2002 && is_private_v4(v4(b, c)),
        }
}

/// Is it one of this host's? A datagram socket that is connected, which sends nothing, shows which source address the
/// kernel would take: to an own address, the address itself. Binding would not tell, since `ip_nonlocal_bind` lets every
/// address be bound.
pub(super) fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        // Discard (RFC 863); the port matters to nobody.
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn address_literals_are_those_of_the_rfc() {
        assert_eq!(literal("[192.0.2.1]"), Some(ip("192.0.2.1")));
        assert_eq!(literal("[IPv6:2001:db8::1]"), Some(ip("2001:db8::1")));
        assert_eq!(literal("[ipv6:2001:db8::1]"), Some(ip("2001:db8::1")));
        for wrong in
            ["[2001:db8::1]", "[[192.0.2.1]]", "[192.0.2.1", "[IPv6:192.0.2.1]", "[192.0.2]", "[]", "[x]", "[ÄÖÜ:1]"]
        {
            assert_eq!(literal(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_private_stays_so_in_every_clothing() {
        let private = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:0a00:0001::1",
        ];
        for address in private {
            assert!(is_private(ip(address)), "{address}");
        }
        let public = [
            "9.9.9.9",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.2.1",
            "198.51.100.1",
            "223.255.255.255",
            "2001:db8::1",
            "2a00:1450::1",
            "::ffff:9.9.9.9",
            "64:ff9b::909:909",
            "2002:0909:0909::1",
        ];
        for address in public {
            assert!(!is_private(ip(address)), "{address}");
        }
    }

    #[test]
    fn own_addresses_are_those_the_kernel_would_answer_at() {
        assert!(is_own(ip("127.0.0.1")));
        assert!(!is_own(ip("203.0.113.201")));
        assert!(!is_own(ip("2001:db8:7e57::201")));
    }
}
