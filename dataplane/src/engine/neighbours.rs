//! What neighbours are told unasked about addresses that translation owns, and what it takes to hear them ask.
//!
//! Questions are answered by the programs. Owned here: announcements of addresses that are new in a configuration (ARP,
//! RFC 5227, 2.3; unsolicited advertisements, RFC 4861, 7.2.6), so that neighbours who knew another station there, an earlier
//! firewall's, learn of this one at once; and the reception of solicitations on devices that filter group addresses.
//! Refuses to announce more than [`MOST_ADDRESSES`], prefixes larger than that, and what the routes do not show to be on
//! the link: those are answered for when somebody asks.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use bulkhead_abi::{NAT_ANSWERED, RouteKind, SLOW_PATH_MARK, ZoneKey, nat_flags};
use etherparse::PacketBuilder;

use super::{Shared, lock};
use crate::{
    address::address,
    compile::CompiledRuleset,
    slow_path::{Sender, packet_socket},
};

/// Addresses that one configuration announces.
const MOST_ADDRESSES: usize = 256;
/// How often each is: RFC 5227's ANNOUNCE_NUM, one pass of the caller's apart.
const TIMES: u32 = 2;

/// An address on an interface's link.
type Place = (u32, IpAddr);

/// What was announced, and what is still to be.
pub(super) struct Announcer {
    sender: Sender,
    generation: u32,
    /// Interfaces and their zones as they were last seen: one may come back under another number.
    zones: Vec<(ZoneKey, u32)>,
    announced: HashSet<Place>,
    /// With how many times are left.
    pending: Vec<(Place, u32)>,
    listeners: Listeners,
}

impl Announcer {
    /// Opens sockets in the calling thread's network namespace.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or without CAP_NET_ADMIN for the mark.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            sender: Sender::open()?,
            generation: 0,
            zones: Vec::new(),
            announced: HashSet::new(),
            pending: Vec::new(),
            listeners: Listeners {
                socket: packet_socket(SLOW_PATH_MARK)?,
                on: HashSet::new(),
            },
        })
    }

    /// Looks whether there is a new configuration, and tells what is to be told. To be called every two seconds.
    pub(super) fn pass(&mut self, shared: &Shared) {
        let owned = {
            let compiled = &lock(&shared.live).compiled;
            let fresh = compiled.generation != self.generation || compiled.zones != self.zones;
            fresh.then(|| {
                self.generation = compiled.generation;
                self.zones.clone_from(&compiled.zones);
                Owned::of(compiled)
            })
        };
        if let Some(owned) = owned {
            self.listeners.follow(&owned.listening);
            let now: HashSet<Place> = {
                let fib = lock(&shared.fib);
                let on_link = |(ifindex, address): &Place| {
                    fib.mirror.route(*address).is_some_and(|route| {
                        route.kind == RouteKind::Unicast as u32
                            && route.ifindex == *ifindex
                            && route.gateway_family == 0
                    })
                };
                owned.places.into_iter().filter(on_link).collect()
            };
            self.pending.retain(|(place, _)| now.contains(place));
            let fresh = now.difference(&self.announced).map(|place| (*place, TIMES));
            self.pending.extend(fresh);
            self.announced = now;
        }
        let pending = std::mem::take(&mut self.pending);
        for (place, times) in pending {
            self.announce(shared, place);
            if times > 1 {
                self.pending.push((place, times - 1));
            }
        }
    }

    fn announce(&self, shared: &Shared, (ifindex, address): Place) {
        let Ok(Some(interface)) = shared.maps.interfaces.get(&ifindex) else {
            return;
        };
        let Some(frame) = announcement(interface.mac, address) else {
            return;
        };
        if let Err(error) = self.sender.send(ifindex, &frame) {
            // Down, or gone: whoever asks later is answered.
            tracing::debug!(%address, %error, "an address could not be announced");
        }
    }
}

/// What of a generation concerns neighbours.
#[derive(Debug, Default, PartialEq, Eq)]
struct Owned {
    /// Addresses that may be announced, on each interface of their zones.
    places: Vec<Place>,
    /// Interfaces on which IPv6 addresses may be asked for.
    listening: HashSet<u32>,
}

impl Owned {
    fn of(compiled: &CompiledRuleset) -> Self {
        let mut owned = Self::default();
        if compiled.settings.nat & nat_flags::ANSWER == 0 {
            return owned;
        }
        let interfaces = |zones: u64| {
            let in_zones = move |zone: u32| zones >> (zone & 63) & 1 != 0;
            compiled
                .zones
                .iter()
                .filter(move |(_, zone)| in_zones(*zone))
                .map(|(key, _)| key.ifindex)
        };
        for (key, zones) in &compiled.nat_addresses4 {
            if key.generation & NAT_ANSWERED == 0 {
                let first = address(4, &[key.address_be, 0, 0, 0]);
                for ifindex in interfaces(*zones) {
                    owned.enter(ifindex, first, 64 - key.bits);
                }
            }
        }
        for (key, zones) in &compiled.nat_addresses6 {
            let first = address(6, &key.address_be);
            for ifindex in interfaces(*zones) {
                owned.listening.insert(ifindex);
                if key.generation & NAT_ANSWERED == 0 {
                    owned.enter(ifindex, first, 160 - key.bits);
                }
            }
        }
        owned
    }

    /// Adds a prefix whose last `host_bits` bits are free.
    fn enter(&mut self, ifindex: u32, first: IpAddr, host_bits: u32) {
        let Some(size) = 1_usize
            .checked_shl(host_bits)
            .filter(|size| *size <= MOST_ADDRESSES)
        else {
            return;
        };
        for number in 0..size.min(MOST_ADDRESSES.saturating_sub(self.places.len())) {
            let next = match first {
                IpAddr::V4(first) => IpAddr::V4((u32::from(first) | number as u32).into()),
                IpAddr::V6(first) => IpAddr::V6((u128::from(first) | number as u128).into()),
            };
            self.places.push((ifindex, next));
        }
    }
}

/// The frame that says that `address` is at the station `mac`; `None`: it could not be written.
fn announcement(mac: [u8; 6], address: IpAddr) -> Option<Vec<u8>> {
    match address {
        IpAddr::V4(address) => {
            let own = address.octets();
            // A request that its own sender answers.
            let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
            Some([&[0xff; 6][..], &mac, &head, &mac, &own, &[0; 6], &own].concat())
        }
        IpAddr::V6(address) => {
            let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
            // Router and override; the target and its station.
            let body = [&address.octets()[..], &[2, 1], &mac].concat();
            let builder = PacketBuilder::ethernet2(mac, [0x33, 0x33, 0, 0, 0, 1])
                .ipv6(address.octets(), all_nodes.octets(), 255)
                .icmpv6_raw(136, 0, [0xa0, 0, 0, 0]);
            let mut frame = Vec::with_capacity(builder.size(body.len()));
            builder.write(&mut frame, &body).ok()?;
            Some(frame)
        }
    }
}

/// Reception of all group addresses on some interfaces, for as long as the socket lives.
struct Listeners {
    socket: OwnedFd,
    on: HashSet<u32>,
}

impl Listeners {
    /// Listens on these interfaces and no others.
    fn follow(&mut self, wanted: &HashSet<u32>) {
        for ifindex in wanted.symmetric_difference(&self.on.clone()) {
            let join = wanted.contains(ifindex);
            match self.change(*ifindex, join) {
                Ok(()) if join => {
                    self.on.insert(*ifindex);
                }
                Ok(()) => {
                    self.on.remove(ifindex);
                }
                Err(error) if join => {
                    tracing::warn!(
                        ifindex,
                        %error,
                        "solicitations for addresses of NAT may not be heard on an interface: group addresses cannot be received"
                    );
                }
                // The interface is gone, and the membership with it.
                Err(_) => {
                    self.on.remove(ifindex);
                }
            }
        }
    }

    #[expect(unsafe_code, reason = "nix knows no packet socket options")]
    fn change(&self, ifindex: u32, join: bool) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(ifindex).map_err(io::Error::other)?,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        let option = if join {
            libc::PACKET_ADD_MEMBERSHIP
        } else {
            libc::PACKET_DROP_MEMBERSHIP
        };
        // SAFETY: the descriptor is open as long as `self`, and the option's value is a whole packet_mreq of the size given.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const request).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_abi::{NatAddressKey4, NatAddressKey6};

    use super::*;
    use crate::address::words;

    fn compiled() -> CompiledRuleset {
        let generation = 7;
        let key4 = |text: &str, length: u32, generation| NatAddressKey4 {
            bits: 32 + length,
            generation,
            address_be: words(text.parse().expect("an address"))[0],
        };
        let key6 = |text: &str, length: u32| NatAddressKey6 {
            bits: 32 + length,
            generation,
            address_be: words(text.parse().expect("an address")),
        };
        let mut compiled = CompiledRuleset {
            generation,
            zones: [(3, 1), (4, 2), (5, 2)]
                .map(|(ifindex, zone)| (ZoneKey { generation, ifindex }, zone))
                .to_vec(),
            nat_addresses4: vec![
                (key4("192.0.2.8", 31, generation), 1 << 2),
                (key4("192.0.2.77", 32, generation | NAT_ANSWERED), 1 << 2),
                (key4("198.51.0.0", 16, generation), 1 << 2),
            ],
            nat_addresses6: vec![
                (key6("2001:db8::5", 128), 1 << 1),
                (key6("2001:db8:1::", 64), 1 << 1),
            ],
            ..CompiledRuleset::default()
        };
        compiled.settings.nat = nat_flags::ADDRESSES | nat_flags::ANSWER;
        compiled
    }

    #[test]
    fn what_is_announced_and_where() {
        let owned = Owned::of(&compiled());
        let place = |ifindex, text: &str| (ifindex, text.parse().expect("an address"));
        assert_eq!(
            owned.places,
            [
                place(4, "192.0.2.8"),
                place(4, "192.0.2.9"),
                place(5, "192.0.2.8"),
                place(5, "192.0.2.9"),
                place(3, "2001:db8::5"),
            ]
        );
        assert_eq!(owned.listening, HashSet::from([3]));
        let mut silent = compiled();
        silent.settings.nat &= !nat_flags::ANSWER;
        assert_eq!(Owned::of(&silent), Owned::default());
    }

    #[test]
    fn no_more_than_a_bound_is_announced() {
        let mut owned = Owned::default();
        owned.enter(1, "10.0.0.0".parse().expect("an address"), 7);
        owned.enter(1, "10.0.1.0".parse().expect("an address"), 8);
        assert_eq!(owned.places.len(), MOST_ADDRESSES);
        owned.enter(1, "2001:db8::".parse().expect("an address"), 128);
        assert_eq!(owned.places.len(), MOST_ADDRESSES);
    }
}
