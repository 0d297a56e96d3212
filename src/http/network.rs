//! Networks in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3): is an address in one of them?
//!
//! An IPv4-mapped IPv6 address is the IPv4 address it holds, on either side. The two families never meet otherwise:
//! `::/0` has no IPv4 address in it.

use std::net::IpAddr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Canonical; no bit is set behind the prefix.
    first: IpAddr,
    prefix_bits: u8,
}

/// Why an address and a prefix are no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoNetwork {
    /// The address has fewer bits.
    PrefixTooLong,
    /// The address has bits set behind the prefix: a slip in one of the two.
    HostBits,
}

impl Network {
    /// The network of this one address.
    pub fn of(address: IpAddr) -> Self {
        let first = address.to_canonical();
        Self { first, prefix_bits: bits_of(first) }
    }

    /// The network that begins with `first` and has the first `prefix_bits` in common.
    ///
    /// # Errors
    /// When there is no such network.
    pub fn new(first: IpAddr, prefix_bits: u8) -> Result<Self, NoNetwork> {
        let is_too_long = prefix_bits > bits_of(first);
        let has_host_bits = match first {
            IpAddr::V4(v4) => v4.to_bits().checked_shl(prefix_bits.into()).is_some_and(|b| b != 0),
            IpAddr::V6(v6) => v6.to_bits().checked_shl(prefix_bits.into()).is_some_and(|b| b != 0),
        };
        match first.to_canonical() {
            _ if is_too_long => Err(NoNetwork::PrefixTooLong),
            _ if has_host_bits => Err(NoNetwork::HostBits),
            // Without host bits, the prefix of a mapped one reaches to the IPv4 address at least.
            IpAddr::V4(v4) if first.is_ipv6() => {
                Ok(Self { first: v4.into(), prefix_bits: prefix_bits - MAPPED_BITS })
            }
            first => Ok(Self { first, prefix_bits }),
        }
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let common = match (self.first, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros()
            }
            _ => return false,
        };
        common >= u32::from(self.prefix_bits)
    }
}

fn bits_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// What stands before the IPv4 address in a mapped one (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Result<Network, NoNetwork> {
        let (first, prefix_bits) = text.split_once('/').unwrap();
        Network::new(first.parse().unwrap(), prefix_bits.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        for (text, inside, outside) in [
            (
                "10.0.0.0/8",
                "10.0.0.0 10.255.255.255 ::ffff:10.1.2.3",
                "9.255.255.255 11.0.0.0 ::ffff:11.0.0.0",
            ),
            ("192.0.2.128/25", "192.0.2.128 192.0.2.255", "192.0.2.127 192.0.3.128"),
            ("192.0.2.4/31", "192.0.2.4 192.0.2.5", "192.0.2.3 192.0.2.6"),
            ("192.0.2.1/32", "192.0.2.1 ::ffff:192.0.2.1", "192.0.2.0 192.0.2.3"),
            // The families do not meet: ::10.0.0.1 is no mapped address (RFC 4291 §2.5.5.1)
            ("0.0.0.0/0", "0.0.0.0 255.255.255.255 ::ffff:1.2.3.4", "::1 2001:db8:: ::10.0.0.1"),
            ("::/0", ":: ::1 ffff::", "0.0.0.0 10.0.0.1 ::ffff:10.0.0.1"),
            (
                "2001:db8::/32",
                "2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db7:ffff:: 2001:db9::",
            ),
            (
                "2001:db8:0:8000::/49",
                "2001:db8:0:8000::1 2001:db8:0:ffff::",
                "2001:db8:0:7fff:: 2001:db8:1:8000::",
            ),
            ("fe80::1/128", "fe80::1", "fe80:: fe80::3 0.0.0.1"),
            // RFC 4291 §2.5.5.2: the same network in other words
            ("::ffff:10.0.0.0/104", "10.9.9.9 ::ffff:10.0.0.1", "11.0.0.0 ::ffff:11.0.0.0"),
            ("::ffff:0.0.0.0/96", "0.0.0.0 255.255.255.255 ::ffff:1.2.3.4", "::1 ::fffe:1.2.3.4"),
        ] {
            let network = network(text).unwrap();
            for (addresses, is_in) in [(inside, true), (outside, false)] {
                for address in addresses.split(' ') {
                    assert_eq!(
                        network.contains(address.parse().unwrap()),
                        is_in,
                        "{address} {text}"
                    );
                }
            }
        }
        let one = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(Ok(one("::ffff:192.0.2.1")), network("192.0.2.1/32"));
        assert_eq!(Ok(one("::1")), network("::1/128"));
        assert!(!one("::1").contains("::".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network() {
        use NoNetwork::{HostBits, PrefixTooLong};
        for (text, why) in [
            ("10.0.0.0/33", PrefixTooLong),
            ("10.0.0.1/255", PrefixTooLong),
            ("::1/129", PrefixTooLong),
            ("10.0.0.1/8", HostBits),
            ("10.0.0.1/31", HostBits),
            ("0.0.0.1/0", HostBits),
            ("2001:db8::1/32", HostBits),
            ("::1/0", HostBits),
            ("::ffff:10.0.0.0/95", HostBits),
            ("::ffff:10.0.0.1/104", HostBits),
        ] {
            assert_eq!(network(text), Err(why), "{text}");
        }
    }

    /// Against the definition: the address with the bits behind the prefix cleared is the first one.
    #[test]
    fn every_prefix_means_what_it_says() {
        let (v4, v6) = (0xC0A8_55AA_u32, 0x2001_0db8_5555_aaaa_0f0f_3c3c_5a5a_a5a5_u128);
        for bits in 0..=128_u32 {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            let network = Network::new(IpAddr::V6((v6 & mask).into()), bits as u8).unwrap();
            assert!(network.contains(IpAddr::V6(v6.into())));
            assert!(network.contains(IpAddr::V6((v6 | !mask).into())));
            for bit in 0..bits {
                let other = v6 ^ 1 << (127 - bit);
                assert!(!network.contains(IpAddr::V6(other.into())), "/{bits}, bit {bit}");
            }
        }
        for bits in 0..=32_u32 {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            let network = Network::new(IpAddr::V4((v4 & mask).into()), bits as u8).unwrap();
            assert!(network.contains(IpAddr::V4((v4 | !mask).into())));
            for bit in 0..bits {
                let other = v4 ^ 1 << (31 - bit);
                assert!(!network.contains(IpAddr::V4(other.into())), "/{bits}, bit {bit}");
            }
        }
    }
}
