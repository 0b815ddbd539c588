//! Writes one generation's entries beside the live ones, and removes those of a generation that is over; and follows what
//! moved in the address tables, which belong to no generation.

use std::net::IpAddr;

use bulkhead_abi::{AddressClass, HostKey4, HostKey6, PrefixKey4, PrefixKey6, VectorKey};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    address,
    bpf::KernelMaps,
    compile::{AddressTables, CompiledRuleset},
    membership::writes::Write,
    table::{TableError, TypedMap},
};

fn write<K, V>(map: &TypedMap<K, V>, entries: &[(K, V)]) -> Result<(), TableError>
where
    K: IntoBytes + FromBytes + Immutable + Copy,
    V: IntoBytes + FromBytes + Immutable + Copy,
{
    map.set_all(entries.iter().copied())
}

fn erase<K, V>(map: &TypedMap<K, V>, entries: &[(K, V)]) -> Result<(), TableError>
where
    K: IntoBytes + FromBytes + Immutable + Copy,
    V: IntoBytes + FromBytes + Immutable + Copy,
{
    map.remove_all(entries.iter().map(|(key, _)| *key))
}

/// Writes every entry of `compiled`. No packet sees any of them before the generation is switched to.
///
/// # Errors
/// If a table is full or the kernel refuses otherwise; what was written until then is for [`remove`].
pub fn stage(maps: &KernelMaps, compiled: &CompiledRuleset) -> Result<(), TableError> {
    // The slot's last user was the generation before the live one, whose last packet is long gone.
    maps.settings
        .set(&(compiled.generation & 1), &compiled.settings)?;
    write(&maps.zones, &compiled.zones)?;
    write(&maps.services, &compiled.services)?;
    write(&maps.vectors, &compiled.vectors)?;
    write(&maps.any_vectors, &compiled.any_vectors)?;
    write(&maps.rules, &compiled.rules)?;
    write(&maps.nat_rules, &compiled.nat_rules)?;
    write(&maps.pools, &compiled.pools)?;
    write(&maps.nat_addresses4, &compiled.nat_addresses4)?;
    write(&maps.nat_addresses6, &compiled.nat_addresses6)?;
    // As the settings: two slots.
    for (index, profile) in &compiled.screens {
        maps.screens.set(index, profile)?;
    }
    // Ageing and limits.
    write(&maps.service_timeouts, &compiled.service_timeouts)?;
    write(&maps.limit_rules, &compiled.limit_rules)
}

/// Removes every entry of `compiled`, which must not be live. Remembered decisions of it age out of their cache.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(maps: &KernelMaps, compiled: &CompiledRuleset) -> Result<(), TableError> {
    // Rules first: without them a packet that still holds this generation is denied, not misjudged.
    erase(&maps.rules, &compiled.rules)?;
    erase(&maps.zones, &compiled.zones)?;
    erase(&maps.services, &compiled.services)?;
    erase(&maps.vectors, &compiled.vectors)?;
    erase(&maps.any_vectors, &compiled.any_vectors)?;
    erase(&maps.nat_rules, &compiled.nat_rules)?;
    erase(&maps.pools, &compiled.pools)?;
    erase(&maps.nat_addresses4, &compiled.nat_addresses4)?;
    erase(&maps.nat_addresses6, &compiled.nat_addresses6)?;
    // Ageing and limits.
    erase(&maps.service_timeouts, &compiled.service_timeouts)?;
    erase(&maps.limit_rules, &compiled.limit_rules)
}

/// Writes vectors of classes that came up.
///
/// # Errors
/// If the table is full or the kernel refuses otherwise.
pub fn vectors(maps: &KernelMaps, vectors: &[(VectorKey, u64)]) -> Result<(), TableError> {
    write(&maps.vectors, vectors)
}

/// Fills empty address tables.
///
/// # Errors
/// If a table is full or the kernel refuses otherwise.
pub fn addresses(maps: &KernelMaps, tables: &AddressTables) -> Result<(), TableError> {
    write(&maps.prefixes4, &tables.prefixes4)?;
    write(&maps.prefixes6, &tables.prefixes6)?;
    write(&maps.hosts4, &tables.hosts4)?;
    write(&maps.hosts6, &tables.hosts6)
}

/// Does runs of writes of one sort in one table at once, in order.
fn follow<A, H, P>(
    writes: &[Write<A>],
    (hosts, host): (&TypedMap<H, AddressClass>, impl Fn(A) -> H),
    (prefixes, prefix): (&TypedMap<P, AddressClass>, impl Fn(A, u32) -> P),
    width: u8,
) -> Result<(), TableError>
where
    A: Copy,
    H: IntoBytes + FromBytes + Immutable + Copy,
    P: IntoBytes + FromBytes + Immutable + Copy,
{
    let sort = |write: &Write<A>| (write.key.1 == width, write.value.is_some());
    for run in writes.chunk_by(|a, b| sort(a) == sort(b)) {
        let Some((is_host, is_there)) = run.first().map(sort) else {
            continue;
        };
        let hosts_of = || {
            run.iter()
                .map(|write| (host(write.key.0), write.value.unwrap_or_default()))
        };
        let prefixes_of = || {
            let key = |write: &Write<A>| prefix(write.key.0, u32::from(write.key.1));
            run.iter()
                .map(move |write| (key(write), write.value.unwrap_or_default()))
        };
        match (is_host, is_there) {
            (true, true) => hosts.set_all(hosts_of())?,
            (true, false) => hosts.remove_all(hosts_of().map(|(key, _)| key))?,
            (false, true) => prefixes.set_all(prefixes_of())?,
            (false, false) => prefixes.remove_all(prefixes_of().map(|(key, _)| key))?,
        }
    }
    Ok(())
}

/// Writes IPv4 address entries in order.
///
/// # Errors
/// If a table is full or the kernel refuses otherwise; the writes before the failed one are done.
pub fn follow4(maps: &KernelMaps, writes: &[Write<u32>]) -> Result<(), TableError> {
    let host = |bits: u32| HostKey4 {
        address_be: bits.to_be(),
    };
    let prefix = |address: u32, bits| PrefixKey4 {
        bits,
        address_be: address.to_be(),
    };
    follow(writes, (&maps.hosts4, host), (&maps.prefixes4, prefix), 32)
}

/// Writes IPv6 address entries in order.
///
/// # Errors
/// As [`follow4`].
pub fn follow6(maps: &KernelMaps, writes: &[Write<u128>]) -> Result<(), TableError> {
    let words = |bits: u128| address::words(IpAddr::V6(bits.into()));
    let host = |bits| HostKey6 {
        address_be: words(bits),
    };
    let prefix = |address, bits| PrefixKey6 {
        bits,
        address_be: words(address),
    };
    follow(writes, (&maps.hosts6, host), (&maps.prefixes6, prefix), 128)
}
