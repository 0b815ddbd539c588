//! Writes one generation's entries beside the live ones, and removes those of a generation that is over.

use crate::{
    bpf::KernelMaps,
    compile::CompiledRuleset,
    table::{TableError, TypedMap},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

fn write<K, V>(map: &TypedMap<K, V>, entries: &[(K, V)]) -> Result<(), TableError>
where
    K: IntoBytes + FromBytes + Immutable + Copy,
    V: IntoBytes + FromBytes + Immutable + Copy,
{
    entries.iter().try_for_each(|(key, value)| map.set(key, value))
}

fn erase<K, V>(map: &TypedMap<K, V>, entries: &[(K, V)]) -> Result<(), TableError>
where
    K: IntoBytes + FromBytes + Immutable + Copy,
    V: IntoBytes + FromBytes + Immutable + Copy,
{
    entries
        .iter()
        .try_for_each(|(key, _)| map.remove(key).map(|_| ()))
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
    write(&maps.hosts4, &compiled.hosts4)?;
    write(&maps.hosts6, &compiled.hosts6)?;
    write(&maps.prefixes4, &compiled.prefixes4)?;
    write(&maps.prefixes6, &compiled.prefixes6)?;
    write(&maps.services, &compiled.services)?;
    write(&maps.vector_tops, &compiled.vector_tops)?;
    write(&maps.vector_pages, &compiled.vector_pages)?;
    write(&maps.rules, &compiled.rules)?;
    write(&maps.nat_rules, &compiled.nat_rules)?;
    write(&maps.pools, &compiled.pools)?;
    write(&maps.nat_addresses4, &compiled.nat_addresses4)?;
    write(&maps.nat_addresses6, &compiled.nat_addresses6)?;
    // As the settings: two slots.
    write(&maps.screens, &compiled.screens)?;
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
    erase(&maps.hosts4, &compiled.hosts4)?;
    erase(&maps.hosts6, &compiled.hosts6)?;
    erase(&maps.prefixes4, &compiled.prefixes4)?;
    erase(&maps.prefixes6, &compiled.prefixes6)?;
    erase(&maps.services, &compiled.services)?;
    erase(&maps.vector_tops, &compiled.vector_tops)?;
    erase(&maps.vector_pages, &compiled.vector_pages)?;
    erase(&maps.nat_rules, &compiled.nat_rules)?;
    erase(&maps.pools, &compiled.pools)?;
    erase(&maps.nat_addresses4, &compiled.nat_addresses4)?;
    erase(&maps.nat_addresses6, &compiled.nat_addresses6)?;
    // Ageing and limits.
    erase(&maps.service_timeouts, &compiled.service_timeouts)?;
    erase(&maps.limit_rules, &compiled.limit_rules)
}
