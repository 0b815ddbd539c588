//! The settings: one row for each, with its name on the command line and in the environment, the name it had elsewhere, and
//! what it may be.
//!
//! Everything that lists settings reads this table: the precedence, the contract that is printed, the check for names that
//! nobody knows, and the test that compares it with the documentation.

use super::values;

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `--config`
    Config,
    /// `--config-map`
    ConfigMap,
    /// `--firewall-resource`
    FirewallResource,
    /// `--mounted-config-map`
    MountedConfigMap,
    /// `--kubeconfig`
    Kubeconfig,
    /// `--instance`
    Instance,
    /// `--network-policies`
    NetworkPolicies,
    /// `--state`
    State,
    /// `--revisions`
    Revisions,
    /// `--socket`
    Socket,
    /// `--pins`
    Pins,
    /// `--on-exit`
    OnExit,
    /// `--drain`
    Drain,
    /// `--log-format`
    LogFormat,
    /// `--forwarding`
    Forwarding,
    /// `--size`
    Size,
    /// `--ports`
    Ports,
    /// `--on-missing`
    OnMissing,
    /// `--addresses`
    Addresses,
    /// `--management-interface`
    ManagementInterface,
    /// `--management`
    Management,
    /// `--management-server`
    ManagementServer,
    /// `--enrolment-token`
    EnrolmentToken,
    /// `--control-cpus`
    ControlCpus,
    /// `--data-cpus`
    DataCpus,
    /// `--arp-timeout`
    ArpTimeout,
    /// `--ndp-timeout`
    NdpTimeout,
}

/// A name that a setting has elsewhere, whose values may be other words.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// The variable.
    pub variable: &'static str,
    /// What its value is in our words; or what it may be.
    pub translate: fn(&str) -> Result<String, String>,
}

impl Key {
    /// Whether its value is nobody's business: not printed, neither in the contract nor in a fault. That of a file is no secret.
    pub fn is_secret(self, value: &str) -> bool {
        self == Self::EnrolmentToken && !value.starts_with('@')
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which.
    pub key: Key,
    /// On the command line, without the dashes.
    pub name: &'static str,
    /// In the environment.
    pub variable: &'static str,
    /// What it is if nobody says; empty: nothing.
    pub default: &'static str,
    /// Its other name.
    pub alias: Option<Alias>,
}

const fn alias(variable: &'static str, translate: fn(&str) -> Result<String, String>) -> Option<Alias> {
    Some(Alias { variable, translate })
}

macro_rules! settings {
    ($($key:ident $name:literal $variable:literal $default:expr, $alias:expr;)*) => {
        /// All of them, in the order in which they are printed.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            key: Key::$key,
            name: $name,
            variable: $variable,
            default: $default,
            alias: $alias,
        },)*];
    };
}

settings! {
    Config "config" "BULKHEAD_CONFIG" "", None;
    ConfigMap "config-map" "BULKHEAD_CONFIG_MAP" "", None;
    FirewallResource "firewall-resource" "BULKHEAD_FIREWALL_RESOURCE" "", None;
    MountedConfigMap "mounted-config-map" "BULKHEAD_MOUNTED_CONFIG_MAP" "", None;
    Kubeconfig "kubeconfig" "BULKHEAD_KUBECONFIG" "", None;
    Instance "instance" "BULKHEAD_INSTANCE" "", None;
    NetworkPolicies "network-policies" "BULKHEAD_NETWORK_POLICIES" "off", None;
    State "state" "BULKHEAD_STATE" "", None;
    Revisions "revisions" "BULKHEAD_REVISIONS" "50", None;
    Socket "socket" "BULKHEAD_SOCKET" crate::protocol::DEFAULT_SOCKET, None;
    Pins "pins" "BULKHEAD_PINS" "", None;
    OnExit "on-exit" "BULKHEAD_ON_EXIT" "keep", None;
    Drain "drain" "BULKHEAD_DRAIN" "0s", None;
    LogFormat "log-format" "BULKHEAD_LOG_FORMAT" "text", None;
    Forwarding "forwarding" "BULKHEAD_FORWARDING" "", alias("CSRX_FORWARD_MODE", values::forward_mode);
    Size "size" "BULKHEAD_SIZE" "", alias("CSRX_SIZE", values::flavour);
    Ports "ports" "BULKHEAD_PORTS" "", alias("CSRX_PORT_NUM", values::port_number);
    OnMissing "on-missing" "BULKHEAD_ON_MISSING" "stop", None;
    Addresses "addresses" "BULKHEAD_ADDRESSES" "add", alias("CSRX_AUTO_ASSIGN_IP", values::auto_assign);
    ManagementInterface "management-interface" "BULKHEAD_MANAGEMENT_INTERFACE" "none",
        alias("CSRX_MGMT_PORT_REORDER", values::reorder);
    Management "management" "BULKHEAD_MANAGEMENT" "off", None;
    ManagementServer "management-server" "BULKHEAD_MANAGEMENT_SERVER" "", None;
    EnrolmentToken "enrolment-token" "BULKHEAD_ENROLMENT_TOKEN" "", None;
    ControlCpus "control-cpus" "BULKHEAD_CONTROL_CPUS" "", alias("CSRX_CTRL_CPU", values::mask);
    DataCpus "data-cpus" "BULKHEAD_DATA_CPUS" "", alias("CSRX_DATA_CPU", values::mask);
    ArpTimeout "arp-timeout" "BULKHEAD_ARP_TIMEOUT" "", alias("CSRX_ARP_TIMEOUT", values::seconds);
    NdpTimeout "ndp-timeout" "BULKHEAD_NDP_TIMEOUT" "", alias("CSRX_NDP_TIMEOUT", values::seconds);
}

const NO_SECURITY_DIRECTOR: &str = "this version registers with no management server";

/// Variables of the product many users come from that mean nothing here, and why.
pub const MEANINGLESS: &[(&str, &str)] = &[
    (
        "CSRX_TCP_CKSUM_CALC",
        "checksums are right without it, offloads of veths included",
    ),
    (
        "CSRX_JUNOS_CONFIG",
        "that file is in another language; write a firewall.yaml and name it with BULKHEAD_CONFIG",
    ),
    ("CSRX_LICENSE_FILE", "no licence is needed"),
    (
        "CSRX_ROOT_PASSWORD",
        "nobody logs in here; who may use the socket may command",
    ),
    ("CSRX_SD_HOST", NO_SECURITY_DIRECTOR),
    ("CSRX_SD_USER", NO_SECURITY_DIRECTOR),
    ("CSRX_SD_DEVICE_IP", NO_SECURITY_DIRECTOR),
    ("CSRX_SD_DEVICE_PORT", NO_SECURITY_DIRECTOR),
    (
        "CSRX_PACKET_DRIVER",
        "the kernel's own drivers are used; there is no DPDK",
    ),
    ("CSRX_HUGEPAGES", "no huge pages are needed; there is no DPDK"),
    ("CSRX_DPDK_VDEV", "there is no DPDK"),
];

/// Variables of builds and tests, which whoever develops this has set: no settings, and no faults.
const DEVELOPMENT: &[&str] = &[
    "BULKHEAD_EBPF_TOOLCHAIN",
    "BULKHEAD_SEED",
    "BULKHEAD_SKIP_PRIVILEGED",
    "BULKHEAD_SLOWNESS",
];

/// Whether a variable is one of builds and tests.
pub fn is_development(name: &str) -> bool {
    DEVELOPMENT.contains(&name) || name.starts_with("BULKHEAD_TEST_") || name.starts_with("BULKHEAD_E2E_")
}
