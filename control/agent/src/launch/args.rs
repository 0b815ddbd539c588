//! The settings as arguments, with their help. Kept as text: what each may be is [`values`](super::values)' matter, whoever
//! says it.

use super::settings::Key;
use crate::output::Format;

/// Arguments of `bulkhead run`. Each setting may be given by a variable of the environment too, and the line beats it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunArgs {
    /// The configuration at the first start, and whenever it has changed since it was last taken; read again on SIGHUP.
    /// Else the last committed revision is used [env: BULKHEAD_CONFIG]
    #[arg(long, short, value_name = "FILE")]
    config: Option<String>,
    /// In place of a file, a key of a ConfigMap, followed over the API: firewall.yaml or the only key unless one is named
    /// [env: BULKHEAD_CONFIG_MAP]
    #[arg(long, value_name = "NAMESPACE/NAME[/KEY]")]
    config_map: Option<String>,
    /// In place of a file, a custom resource of kind Firewall, followed over the API; `bulkhead crds` defines it [env:
    /// BULKHEAD_FIREWALL_RESOURCE]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    firewall_resource: Option<String>,
    /// Beside a file, the ConfigMap that it is mounted from: what became of it is written there. The key is the file's name unless
    /// one is named [env: BULKHEAD_MOUNTED_CONFIG_MAP]
    #[arg(long, value_name = "NAMESPACE/NAME[/KEY]")]
    mounted_config_map: Option<String>,
    /// How to reach the API [env: BULKHEAD_KUBECONFIG] [default: the pod's service account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<String>,
    /// What this instance is called in a status [env: BULKHEAD_INSTANCE] [default: $POD_NAME, else the host's name]
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// MultiNetworkPolicies of the cluster around the configuration's policies: on, or off [env: BULKHEAD_NETWORK_POLICIES]
    /// [default: off]
    #[arg(long, value_name = "WHAT")]
    network_policies: Option<String>,
    /// Where to keep committed revisions and whatever else must outlive a restart [env: BULKHEAD_STATE] [default:
    /// /var/lib/bulkhead]
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<String>,
    /// How many revisions to keep [env: BULKHEAD_REVISIONS] [default: 50]
    #[arg(long, value_name = "NUMBER")]
    revisions: Option<String>,
    /// Where to listen for the command line [env: BULKHEAD_SOCKET] [default: /run/bulkhead/bulkhead.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// A directory in a bpffs in which what is enforced outlives the daemon, or `none` [env: BULKHEAD_PINS] [default:
    /// /sys/fs/bpf/bulkhead if a bpffs is mounted there or can be]
    #[arg(long, value_name = "DIR|none")]
    pins: Option<String>,
    /// What becomes of the programs on SIGTERM, if they are pinned: keep, or detach [env: BULKHEAD_ON_EXIT] [default: keep]
    #[arg(long, value_name = "WHAT")]
    on_exit: Option<String>,
    /// How long to go on after SIGTERM, not ready any more; a second one ends it [env: BULKHEAD_DRAIN] [default: 0s]
    #[arg(long, value_name = "TIME")]
    drain: Option<String>,
    /// How to write the log: text or json [env: BULKHEAD_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// routed or wire, in place of spec.forwarding [env: BULKHEAD_FORWARDING]
    #[arg(long, value_name = "MODE")]
    forwarding: Option<String>,
    /// small, medium, large or xlarge, in place of spec.size [env: BULKHEAD_SIZE]
    #[arg(long, value_name = "SIZE")]
    size: Option<String>,
    /// How many data interfaces a configuration must name [env: BULKHEAD_PORTS] [default: as many as it names]
    #[arg(long, value_name = "NUMBER")]
    ports: Option<String>,
    /// While data interfaces are missing at the start: wait for them, or stop [env: BULKHEAD_ON_MISSING] [default: stop]
    #[arg(long, value_name = "WHAT")]
    on_missing: Option<String>,
    /// Addresses in the configuration: add them to interfaces, or keep those that are there [env: BULKHEAD_ADDRESSES]
    /// [default: add]
    #[arg(long, value_name = "WHAT")]
    addresses: Option<String>,
    /// The interface that no configuration may name: first, last, none or its name [env: BULKHEAD_MANAGEMENT_INTERFACE]
    /// [default: none]
    #[arg(long, value_name = "WHICH")]
    management_interface: Option<String>,
    /// Where to serve probes and metrics: ADDRESS:PORT, :PORT on the management interface, or off [env:
    /// BULKHEAD_MANAGEMENT] [default: off]
    #[arg(long, value_name = "ADDRESS:PORT")]
    management: Option<String>,
    /// The management server that this firewall belongs to; checked and shown, but this version does not register itself yet
    /// [env: BULKHEAD_MANAGEMENT_SERVER]
    #[arg(long, value_name = "URL")]
    management_server: Option<String>,
    /// What it would enrol with: the token, or @FILE; better in a file or a variable than in a list of processes [env:
    /// BULKHEAD_ENROLMENT_TOKEN]
    #[arg(long, value_name = "TOKEN|@FILE")]
    enrolment_token: Option<String>,
    /// The CPUs that the daemon's threads may run on: a mask such as 0x3 or a list such as 0-3,5 [env:
    /// BULKHEAD_CONTROL_CPUS] [default: all]
    #[arg(long, value_name = "CPUS")]
    control_cpus: Option<String>,
    /// The CPUs that handle what data interfaces receive (RPS), where /sys may be written [env: BULKHEAD_DATA_CPUS] [default:
    /// those that receive it]
    #[arg(long, value_name = "CPUS")]
    data_cpus: Option<String>,
    /// How long an IPv4 neighbour of a data interface counts as reachable [env: BULKHEAD_ARP_TIMEOUT] [default: as the
    /// kernel has it]
    #[arg(long, value_name = "TIME")]
    arp_timeout: Option<String>,
    /// The same of IPv6 [env: BULKHEAD_NDP_TIMEOUT]
    #[arg(long, value_name = "TIME")]
    ndp_timeout: Option<String>,
    /// Print every setting, its value and where that came from, and start nothing
    #[arg(long)]
    pub print_contract: bool,
    /// How to print it
    #[arg(
        long,
        short,
        value_name = "FORMAT",
        default_value = "table",
        requires = "print_contract"
    )]
    pub output: Option<Format>,
}

impl RunArgs {
    pub(super) fn given(&self, key: Key) -> Option<&str> {
        let given = match key {
            Key::Config => &self.config,
            Key::ConfigMap => &self.config_map,
            Key::FirewallResource => &self.firewall_resource,
            Key::MountedConfigMap => &self.mounted_config_map,
            Key::Kubeconfig => &self.kubeconfig,
            Key::Instance => &self.instance,
            Key::NetworkPolicies => &self.network_policies,
            Key::State => &self.state,
            Key::Revisions => &self.revisions,
            Key::Socket => &self.socket,
            Key::Pins => &self.pins,
            Key::OnExit => &self.on_exit,
            Key::Drain => &self.drain,
            Key::LogFormat => &self.log_format,
            Key::Forwarding => &self.forwarding,
            Key::Size => &self.size,
            Key::Ports => &self.ports,
            Key::OnMissing => &self.on_missing,
            Key::Addresses => &self.addresses,
            Key::ManagementInterface => &self.management_interface,
            Key::Management => &self.management,
            Key::ManagementServer => &self.management_server,
            Key::EnrolmentToken => &self.enrolment_token,
            Key::ControlCpus => &self.control_cpus,
            Key::DataCpus => &self.data_cpus,
            Key::ArpTimeout => &self.arp_timeout,
            Key::NdpTimeout => &self.ndp_timeout,
        };
        given.as_deref()
    }
}
