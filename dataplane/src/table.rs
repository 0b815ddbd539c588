//! Typed access to BPF maps through `bpf(2)`.
//!
//! Raw calls (those about links are in [`crate::link`]): the loader library has no batch operations and asks for
//! an `unsafe` marker on every key and value type, where zerocopy's derives prove the same at compile time.
//! Batches are as good as single calls one after the other, without the calls.
//! Everything here is synchronous and returns the kernel's error with the map's name.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A failed map operation.
#[derive(Debug, thiserror::Error)]
#[error("map {map}: {operation}: {source}")]
pub struct TableError {
    /// The map's name in the BPF object.
    pub map: &'static str,
    /// What was tried.
    pub operation: &'static str,
    /// The kernel's answer.
    pub source: io::Error,
}

impl TableError {
    /// Whether the table had no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(
            self.source.raw_os_error(),
            Some(libc::E2BIG | libc::ENOSPC | libc::ENOMEM)
        )
    }
}

/// A map with keys `K` and values `V` (not per-CPU).
#[derive(Debug)]
pub struct TypedMap<K, V> {
    fd: OwnedFd,
    name: &'static str,
    types: PhantomData<fn(K) -> V>,
}

/// Commands and flags of `bpf(2)` (include/uapi/linux/bpf.h).
mod uapi {
    pub const MAP_LOOKUP_ELEM: libc::c_long = 1;
    pub const MAP_UPDATE_ELEM: libc::c_long = 2;
    pub const MAP_DELETE_ELEM: libc::c_long = 3;
    pub const MAP_GET_NEXT_KEY: libc::c_long = 4;
    pub const MAP_LOOKUP_BATCH: libc::c_long = 24;
    pub const MAP_UPDATE_BATCH: libc::c_long = 26;
    pub const MAP_DELETE_BATCH: libc::c_long = 27;
    pub const ANY: u64 = 0;
    pub const NOEXIST: u64 = 1;

    /// The part of `union bpf_attr` that element operations use.
    #[repr(C)]
    #[derive(Default)]
    pub struct Element {
        pub map_fd: u32,
        pub pad: u32,
        pub key: u64,
        pub value_or_next_key: u64,
        pub flags: u64,
    }

    /// The part that batch operations use.
    #[repr(C)]
    #[derive(Default)]
    pub struct Batch {
        pub in_batch: u64,
        pub out_batch: u64,
        pub keys: u64,
        pub values: u64,
        pub count: u32,
        pub map_fd: u32,
        pub elem_flags: u64,
        pub flags: u64,
    }
}

/// Calls `bpf(command, attr, size_of(attr))`.
fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<()> {
    // SAFETY: `attr` is a prefix of `union bpf_attr` and its size is passed along; every pointer in it points to a
    // buffer of the map's key or value size, as the callers below construct them from `K` and `V`, whose sizes are
    // compared with the map's when the map is opened.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Calls `bpf` for something that changes one entry of a map.
fn change(command: libc::c_long, attr: &mut uapi::Element) -> io::Result<()> {
    #[cfg(test)]
    crate::faults::point()?;
    bpf(command, attr)
}

/// Calls `bpf` for something that changes a batch of entries.
fn change_batch(command: libc::c_long, attr: &mut uapi::Batch) -> io::Result<()> {
    #[cfg(test)]
    if let Err(error) = crate::faults::point() {
        // As the kernel fails: in the middle.
        attr.count /= 2;
        if attr.count != 0 {
            bpf(command, attr)?;
        }
        return Err(error);
    }
    bpf(command, attr)
}

/// The number of keys in a map with keys of any type, at most `most`: keys that go while they are counted may begin the
/// count anew.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn count(map: BorrowedFd<'_>, key_bytes: usize, most: u32) -> io::Result<u64> {
    let (mut last, mut next) = (vec![0u8; key_bytes], vec![0u8; key_bytes]);
    let mut found = 0;
    while found < u64::from(most) {
        let mut attr = uapi::Element {
            map_fd: map.as_raw_fd() as u32,
            pad: 0,
            key: if found == 0 { 0 } else { last.as_ptr() as u64 },
            value_or_next_key: next.as_mut_ptr() as u64,
            flags: 0,
        };
        match bpf(uapi::MAP_GET_NEXT_KEY, &mut attr) {
            Ok(()) => found += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut last, &mut next);
    }
    Ok(found)
}

impl<K, V> TypedMap<K, V>
where
    K: IntoBytes + FromBytes + Immutable + Copy,
    V: IntoBytes + FromBytes + Immutable + Copy,
{
    /// Opens the map behind `fd`, whose key and value sizes the kernel reports as `key_bytes` and `value_bytes`.
    ///
    /// # Errors
    /// If the sizes are not those of `K` and `V`, or the descriptor cannot be duplicated.
    pub fn open(
        name: &'static str,
        fd: BorrowedFd<'_>,
        key_bytes: usize,
        value_bytes: usize,
    ) -> Result<Self, TableError> {
        let fail = |operation, source| TableError {
            map: name,
            operation,
            source,
        };
        if key_bytes != size_of::<K>() || value_bytes != size_of::<V>() {
            let message = format!(
                "key and value are {key_bytes} and {value_bytes} bytes in the kernel, {} and {} here",
                size_of::<K>(),
                size_of::<V>()
            );
            return Err(fail("open", io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        let fd = fd.try_clone_to_owned().map_err(|error| fail("open", error))?;
        Ok(Self {
            fd,
            name,
            types: PhantomData,
        })
    }

    fn element(&self, key: u64, value: u64, flags: u64) -> uapi::Element {
        uapi::Element {
            map_fd: self.fd.as_raw_fd() as u32,
            pad: 0,
            key,
            value_or_next_key: value,
            flags,
        }
    }

    fn fail(&self, operation: &'static str, source: io::Error) -> TableError {
        TableError {
            map: self.name,
            operation,
            source,
        }
    }

    /// The value under `key`.
    ///
    /// # Errors
    /// Whatever the kernel says, but for "no such entry".
    pub fn get(&self, key: &K) -> Result<Option<V>, TableError> {
        let mut value = V::new_zeroed();
        let mut attr = self.element(
            std::ptr::from_ref(key) as u64,
            std::ptr::from_mut(&mut value) as u64,
            uapi::ANY,
        );
        match bpf(uapi::MAP_LOOKUP_ELEM, &mut attr) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(self.fail("lookup", error)),
        }
    }

    /// Sets the value under `key`.
    ///
    /// # Errors
    /// Whatever the kernel says, "table full" (`E2BIG`, `ENOSPC`) included.
    pub fn set(&self, key: &K, value: &V) -> Result<(), TableError> {
        let mut attr = self.element(
            std::ptr::from_ref(key) as u64,
            std::ptr::from_ref(value) as u64,
            uapi::ANY,
        );
        change(uapi::MAP_UPDATE_ELEM, &mut attr).map_err(|error| self.fail("update", error))
    }

    /// Sets the value under `key` unless there is one; whether it did.
    ///
    /// # Errors
    /// Whatever the kernel says, "table full" included.
    pub fn insert(&self, key: &K, value: &V) -> Result<bool, TableError> {
        let mut attr = self.element(
            std::ptr::from_ref(key) as u64,
            std::ptr::from_ref(value) as u64,
            uapi::NOEXIST,
        );
        match change(uapi::MAP_UPDATE_ELEM, &mut attr) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(self.fail("insert", error)),
        }
    }

    /// The map's name in the BPF object.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Removes `key`; whether it was there.
    ///
    /// # Errors
    /// Whatever the kernel says, but for "no such entry".
    pub fn remove(&self, key: &K) -> Result<bool, TableError> {
        let mut attr = self.element(std::ptr::from_ref(key) as u64, 0, 0);
        match change(uapi::MAP_DELETE_ELEM, &mut attr) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(self.fail("delete", error)),
        }
    }

    fn batch(&self, keys: &[K], values: u64) -> uapi::Batch {
        uapi::Batch {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values,
            count: keys.len() as u32,
            map_fd: self.fd.as_raw_fd() as u32,
            elem_flags: uapi::ANY,
            flags: 0,
        }
    }

    /// Sets values in order, thousands per call. For hashes and tries.
    ///
    /// # Errors
    /// Whatever the kernel says, "table full" (`E2BIG`, `ENOSPC`) included; the entries before the refused one are set.
    pub fn set_all(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<(), TableError> {
        let mut entries = entries.into_iter();
        let (mut keys, mut values): (Vec<K>, Vec<V>) = entries.by_ref().take(BATCH).unzip();
        while !keys.is_empty() {
            let mut attr = self.batch(&keys, values.as_ptr() as u64);
            change_batch(uapi::MAP_UPDATE_BATCH, &mut attr)
                .map_err(|error| self.fail("batch update", error))?;
            keys.clear();
            values.clear();
            for (key, value) in entries.by_ref().take(BATCH) {
                keys.push(key);
                values.push(value);
            }
        }
        Ok(())
    }

    /// Removes keys in order, thousands per call; absent is as good as removed. For hashes and tries.
    ///
    /// # Errors
    /// Whatever the kernel says, but for "no such entry".
    pub fn remove_all(&self, keys: impl IntoIterator<Item = K>) -> Result<(), TableError> {
        let mut keys = keys.into_iter();
        loop {
            let some: Vec<K> = keys.by_ref().take(BATCH).collect();
            let mut rest = some.as_slice();
            if rest.is_empty() {
                return Ok(());
            }
            while !rest.is_empty() {
                let mut attr = self.batch(rest, 0);
                match change_batch(uapi::MAP_DELETE_BATCH, &mut attr) {
                    Ok(()) => break,
                    // `count` were removed and the next one was not there.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                        rest = rest.get(attr.count as usize + 1..).unwrap_or_default();
                    }
                    Err(error) => return Err(self.fail("batch delete", error)),
                }
            }
        }
    }

    /// All keys, one call each: for the small tables and tries.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn keys(&self) -> Result<Vec<K>, TableError> {
        let mut keys = Vec::new();
        let mut previous: Option<K> = None;
        loop {
            let mut next = K::new_zeroed();
            let key = previous.as_ref().map_or(0, |key| std::ptr::from_ref(key) as u64);
            let mut attr = self.element(key, std::ptr::from_mut(&mut next) as u64, 0);
            match bpf(uapi::MAP_GET_NEXT_KEY, &mut attr) {
                Ok(()) => {
                    keys.push(next);
                    previous = Some(next);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(self.fail("next key", error)),
            }
        }
    }

    /// Visits all entries of a hash, thousands per call. Entries that come or go meanwhile may be missed or seen twice.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn for_each(&self, mut visit: impl FnMut(&K, &V)) -> Result<(), TableError> {
        let mut capacity = BATCH;
        let mut keys = vec![K::new_zeroed(); capacity];
        let mut values = vec![V::new_zeroed(); capacity];
        // The cursor is a bucket number for hashes; sized generously for every map type.
        let mut cursor = [0u64; 8];
        let mut started = false;
        loop {
            let mut next = cursor;
            let mut attr = uapi::Batch {
                in_batch: if started { cursor.as_ptr() as u64 } else { 0 },
                out_batch: next.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: capacity as u32,
                map_fd: self.fd.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            let result = bpf(uapi::MAP_LOOKUP_BATCH, &mut attr);
            let count = (attr.count as usize).min(capacity);
            let done = match result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // One bucket holds more than the whole batch: more room, same place.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && capacity < 1 << 20 => {
                    capacity *= 2;
                    keys.resize(capacity, K::new_zeroed());
                    values.resize(capacity, V::new_zeroed());
                    continue;
                }
                Err(error) => return Err(self.fail("batch lookup", error)),
            };
            for (key, value) in keys.iter().zip(&values).take(count) {
                visit(key, value);
            }
            if done {
                return Ok(());
            }
            cursor = next;
            started = true;
        }
    }
}

/// Entries per batch call.
const BATCH: usize = 4096;

fn uncounted(source: io::Error) -> TableError {
    TableError {
        map: "of the object",
        operation: "count",
        source,
    }
}

/// Number of entries of a hash with keys and values of these sizes, thousands per call.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn count_batched(fd: &OwnedFd, key_bytes: usize, value_bytes: usize) -> Result<u64, TableError> {
    let mut capacity = BATCH;
    let mut keys = vec![0_u8; capacity * key_bytes];
    // The kernel copies values in multiples of eight bytes.
    let value_bytes = value_bytes.next_multiple_of(8);
    let mut values = vec![0_u8; capacity * value_bytes];
    let mut cursor = [0_u64; 8];
    let mut started = false;
    let mut total = 0;
    loop {
        let mut next = cursor;
        let mut attr = uapi::Batch {
            in_batch: if started { cursor.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity as u32,
            map_fd: fd.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        match bpf(uapi::MAP_LOOKUP_BATCH, &mut attr) {
            Ok(()) => total += u64::from(attr.count),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                return Ok(total + u64::from(attr.count));
            }
            // One bucket holds more than the whole batch: more room, same place.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && capacity < 1 << 20 => {
                capacity *= 2;
                keys.resize(capacity * key_bytes, 0);
                values.resize(capacity * value_bytes, 0);
                continue;
            }
            Err(error) => return Err(uncounted(error)),
        }
        cursor = next;
        started = true;
    }
}

/// Number of keys of this size, one call each: for tries.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn count_keys(fd: &OwnedFd, key_bytes: usize) -> Result<u64, TableError> {
    let mut previous = vec![0_u8; key_bytes];
    let mut next = vec![0_u8; key_bytes];
    let mut total = 0;
    loop {
        let mut attr = uapi::Element {
            map_fd: fd.as_raw_fd() as u32,
            pad: 0,
            key: if total == 0 { 0 } else { previous.as_ptr() as u64 },
            value_or_next_key: next.as_mut_ptr() as u64,
            flags: uapi::ANY,
        };
        match bpf(uapi::MAP_GET_NEXT_KEY, &mut attr) {
            Ok(()) => total += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(total),
            Err(error) => return Err(uncounted(error)),
        }
        std::mem::swap(&mut previous, &mut next);
    }
}
