//! The terms on which documents are judged: what the start has decided about every configuration that this daemon takes,
//! from a file, over the socket, or out of its revisions.
//!
//! Refuses a document that names the management interface, one that has not as many interfaces as were asked for, and one
//! whose interfaces do not exist; each as a finding with its place, before anything is touched.

use bulkhead_config::{Config, Diagnostic, Overrides, Severity};
use bulkhead_dataplane::netlink::{Link, LinkKind, Netlink};

use super::values::{Addresses, ManagementInterface};

/// What documents are judged by. The default judges them as they are.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// What wins over the document.
    pub overrides: Overrides,
    /// How many data interfaces it must name.
    pub ports: Option<usize>,
    /// What becomes of its addresses.
    pub addresses: Addresses,
    /// Which interface it must not name.
    pub management: ManagementInterface,
    /// A start waits for interfaces that are missing.
    pub wait: bool,
    /// The interface that probes are served on: not to be named either.
    pub listening_on: Option<String>,
}

impl Terms {
    /// Takes out of a configuration what is not to be done.
    pub fn settle(&self, config: &mut Config) {
        if self.addresses == Addresses::Keep {
            for interface in &mut config.interfaces {
                interface.addresses.clear();
            }
        }
    }

    /// What speaks against a configuration whatever there is on the machine.
    pub fn count(&self, config: &Config) -> Option<Diagnostic> {
        let (asked, named) = (self.ports?, config.interfaces.len());
        (asked != named).then(|| Diagnostic {
            severity: Severity::Error,
            file: config.file.clone(),
            line: config.interfaces.first().map_or(1, |interface| interface.line),
            column: config.interfaces.first().map_or(1, |interface| interface.column),
            path: "spec.interfaces".to_owned(),
            message: format!(
                "{named} data interfaces are named here, but {asked} were asked for at the start"
            ),
            help: Some(
                "name as many in spec.interfaces, or start with another --ports (BULKHEAD_PORTS)".to_owned(),
            ),
        })
    }

    /// Interfaces that are for management and that a configuration names all the same.
    pub fn forbidden(&self, config: &Config, links: &[Link]) -> Vec<Diagnostic> {
        let management = management_interface(&self.management, links);
        let reserved =
            |name: &str| management.as_deref() == Some(name) || self.listening_on.as_deref() == Some(name);
        let interfaces = config.interfaces.iter().enumerate();
        interfaces
            .filter(|(_, interface)| reserved(&interface.name))
            .map(|(index, interface)| Diagnostic {
                severity: Severity::Error,
                file: config.file.clone(),
                line: interface.line,
                column: interface.column,
                path: format!("spec.interfaces[{index}].name"),
                message: format!(
                    "interface \"{}\" is for management and cannot be a data interface",
                    interface.name
                ),
                help: Some(
                    "leave it out, or start with another --management-interface (BULKHEAD_MANAGEMENT_INTERFACE) and \
                     --management (BULKHEAD_MANAGEMENT)"
                        .to_owned(),
                ),
            })
            .collect()
    }
}

/// All interfaces of this thread's network namespace, by index.
///
/// # Errors
/// If the kernel does not say.
pub fn links() -> Result<Vec<Link>, bulkhead_dataplane::netlink::Error> {
    let mut links = Netlink::connect()?.links()?;
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// The interface that is for management, of those that are up: what tunnels leave in every namespace is down.
pub fn management_interface(which: &ManagementInterface, links: &[Link]) -> Option<String> {
    let mut candidates = links
        .iter()
        .filter(|link| link.up && link.kind != LinkKind::Loopback);
    match which {
        ManagementInterface::None => None,
        ManagementInterface::First => candidates.next().map(|link| link.name.clone()),
        ManagementInterface::Last => candidates.next_back().map(|link| link.name.clone()),
        ManagementInterface::Named(name) => Some(name.clone()),
    }
}
