//! Who is in which group: base lists, the classes of addresses, and what both mean for the groups of a ruleset.
//!
//! A *base list* is a list of prefixes somebody wrote down or a feed delivered: a group's own members, what it excepts, the
//! prefix of a static translation. A *class* stands for the set of base lists that contain an address. Which groups an
//! address is in, nested ones and exceptions included, follows from its class alone ([`nesting`]), so the kernel need not
//! know of either. Everything here is pure; `deploy/docs/decisions/0007-address-classes.md` says why it is as it is.

pub mod book;
pub mod meaning;
pub mod nesting;
pub mod sets;
pub mod side;
pub mod writes;
