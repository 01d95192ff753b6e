//! Which addresses belong to the public internet: the pure half of the guard against requests to places inside.
//!
//! A customer names hosts (sources, callbacks), and a name may lead anywhere. What is not certainly public is not: the
//! tables are the special-purpose registries of IANA (RFC 6890, RFC 8190), and of IPv6 only 2000::/3 is public at all.
//! Ranges in which an IPv4 address is embedded are refused whole, so no private address comes in by that door.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `(network, length of its prefix, what it is)`.
const V4: [(Ipv4Addr, u32, &str); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this host or this network (RFC 1122 3.2.1.3)"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private (RFC 1918)"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by customers of a carrier (RFC 6598)"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback (RFC 1122 3.2.1.3)"),
    // Routable in form, but it is the host's own helper in a cloud, with the secrets of the machine.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "the platform address of Azure's virtual machines"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local (RFC 3927)"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private (RFC 1918)"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "protocol assignments (RFC 6890)"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation (RFC 5737)"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relays (RFC 7526)"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private (RFC 1918)"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarking (RFC 2544)"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation (RFC 5737)"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation (RFC 5737)"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast (RFC 5771)"),
    (Ipv4Addr::new(255, 255, 255, 255), 32, "broadcast (RFC 919)"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved (RFC 1112)"),
];

/// As [`V4`]; of two that hold an address the first says why.
const V6: [(Ipv6Addr, u32, &str); 22] = [
    (v6(0, 0, 0), 128, "unspecified (RFC 4291 2.5.2)"),
    (Ipv6Addr::LOCALHOST, 128, "loopback (RFC 4291 2.5.3)"),
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96, "an IPv4 address in IPv6 form (RFC 4291 2.5.5.2)"),
    (v6(0, 0, 0), 96, "an IPv4 address in IPv6 form (RFC 4291 2.5.5.1)"),
    (v6(0x64, 0xff9b, 0), 96, "an IPv4 address behind NAT64 (RFC 6052)"),
    (v6(0x64, 0xff9b, 1), 48, "an IPv4 address behind a local NAT64 (RFC 8215)"),
    (v6(0x100, 0, 0), 64, "discarded (RFC 6666)"),
    (v6(0x2001, 0, 0), 32, "Teredo, which holds an IPv4 address (RFC 4380)"),
    (v6(0x2001, 2, 0), 48, "benchmarking (RFC 5180)"),
    (v6(0x2001, 0x10, 0), 28, "hash identifiers (RFC 4843)"),
    (v6(0x2001, 0x20, 0), 28, "hash identifiers (RFC 7343)"),
    (v6(0x2001, 0, 0), 23, "protocol assignments (RFC 2928)"),
    (v6(0x2001, 0xdb8, 0), 32, "documentation (RFC 3849)"),
    (v6(0x2002, 0, 0), 16, "6to4, which holds an IPv4 address (RFC 3056)"),
    (v6(0x3fff, 0, 0), 20, "documentation (RFC 9637)"),
    (v6(0x5f00, 0, 0), 16, "segment identifiers (RFC 9602)"),
    (v6(0xfc00, 0, 0), 7, "unique local (RFC 4193)"),
    (v6(0xfe80, 0, 0), 10, "link-local (RFC 4291 2.5.6)"),
    (v6(0xfec0, 0, 0), 10, "site-local (RFC 3879)"),
    (v6(0xff00, 0, 0), 8, "multicast (RFC 4291 2.7)"),
    // The two halves of what is not 2000::/3; a list of what is known would be out of date one day.
    (v6(0x4000, 0, 0), 2, NOT_ASSIGNED),
    (v6(0x8000, 0, 0), 1, NOT_ASSIGNED),
];

const NOT_ASSIGNED: &str = "not assigned as global unicast (RFC 4291 2.4)";
/// All of global unicast (RFC 4291 2.4; IANA assigns from nothing else).
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (v6(0x2000, 0, 0), 3);

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

/// May a request that a customer asked for go there?
pub fn is_public(address: IpAddr) -> bool {
    why_not_public(address).is_none()
}

/// What an address is that is not public, and which document says so.
pub fn why_not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => V4.iter().find(|(network, bits, _)| holds_v4(*network, *bits, address)).map(|(_, _, why)| *why),
        IpAddr::V6(address) => {
            let special = V6.iter().find(|(network, bits, _)| holds_v6(*network, *bits, address)).map(|(_, _, why)| *why);
            let global = holds_v6(GLOBAL_UNICAST.0, GLOBAL_UNICAST.1, address);
            special.or((!global).then_some(NOT_ASSIGNED))
        }
    }
}

fn holds_v4(network: Ipv4Addr, bits: u32, address: Ipv4Addr) -> bool {
    let mask = u32::MAX << (32 - bits);
    address.to_bits() & mask == network.to_bits()
}

fn holds_v6(network: Ipv6Addr, bits: u32, address: Ipv6Addr) -> bool {
    let mask = u128::MAX << (128 - bits);
    address.to_bits() & mask == network.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::{IpNet, Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    /// The tables in another crate's words.
    fn networks() -> Vec<IpNet> {
        let v4 = V4.iter().map(|(a, bits, _)| IpNet::V4(Ipv4Net::new(*a, *bits as u8).unwrap()));
        let v6 = V6.iter().map(|(a, bits, _)| IpNet::V6(Ipv6Net::new(*a, *bits as u8).unwrap()));
        v4.chain(v6).collect()
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_range_is_a_network_and_says_where_it_is_written() {
        for net in networks() {
            assert_eq!(net.addr(), net.network(), "{net} has bits behind its prefix");
        }
        let reasons = V4.iter().map(|r| r.2).chain(V6.iter().map(|r| r.2));
        for reason in reasons.filter(|r| !r.contains("Azure")) {
            assert!(reason.contains("RFC "), "{reason}");
        }
    }

    #[test]
    fn the_first_and_last_address_of_every_range_are_refused() {
        for net in networks() {
            assert!(!is_public(net.network()), "{net}");
            assert!(!is_public(net.broadcast()), "{net}");
        }
    }

    #[test]
    fn what_lies_beside_the_ranges_is_public() {
        let beside = [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.88.100.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "198.51.101.0",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2001:200::",
            "2001:db7:ffff::",
            "2001:db9::",
            "2003::",
            "2a00:1450:4001::8a",
            "2606:4700::1111",
            "3ffe:ffff::1",
            "2000::1",
        ];
        for address in beside {
            assert_eq!(why_not_public(at(address)), None, "{address}");
        }
    }

    #[test]
    fn the_addresses_that_attackers_ask_for_are_named() {
        for (address, why) in [
            ("169.254.169.254", "link-local"),
            ("168.63.129.16", "Azure"),
            ("100.100.100.200", "carrier"),
            ("192.0.0.192", "protocol assignments"),
            ("fd00:ec2::254", "unique local"),
            ("::1", "loopback"),
            ("::", "unspecified"),
            ("::ffff:127.0.0.1", "IPv4 address in IPv6 form"),
            ("::127.0.0.1", "IPv4 address in IPv6 form"),
            ("64:ff9b::7f00:1", "NAT64"),
            ("64:ff9b:1::a00:1", "local NAT64"),
            ("2002:7f00:1::", "6to4"),
            ("2001:0:53aa:64c:0:7bfe:f5ff:fffe", "Teredo"),
            ("255.255.255.255", "broadcast"),
            ("::ffff:0:127.0.0.1", "not assigned"),
            ("4000::1", "not assigned"),
        ] {
            let found = why_not_public(at(address)).unwrap_or("public");
            assert!(found.contains(why), "{address}: {found}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn an_ipv4_address_is_public_when_no_network_holds_it(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let held = networks().iter().any(|net| net.contains(&IpAddr::V4(address)));
            prop_assert_eq!(is_public(IpAddr::V4(address)), !held);
            let known = address.is_private() || address.is_loopback() || address.is_link_local() || address.is_multicast()
                || address.is_broadcast() || address.is_documentation() || address.is_unspecified();
            prop_assert!(!(known && is_public(IpAddr::V4(address))), "{} by the standard library", address);
        }

        #[test]
        fn an_ipv6_address_is_public_when_it_is_global_unicast_and_no_network_holds_it(bits: u128, high in 0_u16..8) {
            // Half of them from 2000::/3: chance alone finds seven of eight outside.
            for address in [Ipv6Addr::from_bits(bits), Ipv6Addr::from_bits(bits >> 3 | 1 << 125), near(bits, high)] {
                let held = networks().iter().any(|net| net.contains(&IpAddr::V6(address)));
                let global = address.segments()[0] >> 13 == 1;
                prop_assert_eq!(is_public(IpAddr::V6(address)), global && !held, "{}", address);
            }
        }

        #[test]
        fn no_embedding_makes_an_ipv4_address_public(bits: u32) {
            let (high, low) = ((bits >> 16) as u16, bits as u16);
            for address in [
                Ipv4Addr::from_bits(bits).to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !high, !low),
            ] {
                prop_assert!(!is_public(IpAddr::V6(address)), "{}", address);
            }
        }

        #[test]
        fn every_address_of_a_refused_range_is_refused(bits: u128, index in 0_usize..39) {
            match networks()[index] {
                IpNet::V4(net) => {
                    let host = (bits as u32) & u32::from(net.hostmask());
                    prop_assert!(!is_public(IpAddr::V4(Ipv4Addr::from_bits(u32::from(net.network()) | host))));
                }
                IpNet::V6(net) => {
                    let host = bits & u128::from(net.hostmask());
                    prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::from_bits(u128::from(net.network()) | host))));
                }
            }
        }
    }

    /// An address near the ranges of 2001::/16 and 3fff::/16, which chance alone would not find.
    fn near(bits: u128, high: u16) -> Ipv6Addr {
        let first: u16 = [0x2001, 0x2002, 0x2003, 0x3fff, 0x3ffe, 0x2001, 0x2001, 0x3fff][usize::from(high)];
        let second = (bits >> 96) as u16 >> (bits as u16 % 16);
        Ipv6Addr::from_bits(u128::from(first) << 112 | u128::from(second) << 96 | bits & (u128::MAX >> 32))
    }
}
