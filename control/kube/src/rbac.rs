//! What this crate asks of the API, and therefore what a role must allow. Nothing else is asked.

/// One permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// The API group; empty: core.
    pub group: &'static str,
    /// The resource, with its subresource.
    pub resource: &'static str,
    /// What is done with it.
    pub verbs: &'static [&'static str],
    /// Whether the role may name the one object: `resourceNames`.
    pub one_object: bool,
    /// For which of these it is needed.
    pub needs: &'static [Need],
}

/// What somebody uses this crate for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// `--config-map`
    ConfigMap,
    /// `--firewall-resource`
    Firewall,
    /// A mounted file: events about the pod.
    Mounted,
    /// `--mounted-config-map`
    MountedStatus,
    /// Address groups with `pods`.
    Pods,
    /// Address groups with `namespaceSelector`.
    NamespaceSelector,
    /// `--network-policies`
    NetworkPolicies,
    /// Address groups with `addressGroup`.
    AddressGroups,
}

/// The permissions that some uses take together.
pub fn permissions(needs: &[Need]) -> impl Iterator<Item = &'static Permission> {
    PERMISSIONS
        .iter()
        .filter(|permission| permission.needs.iter().any(|need| needs.contains(need)))
}

/// All permissions.
pub const PERMISSIONS: &[Permission] = &[
    Permission {
        group: "",
        resource: "configmaps",
        // A status is annotations of the object itself.
        verbs: &["list", "watch", "patch"],
        one_object: true,
        needs: &[Need::ConfigMap],
    },
    Permission {
        group: "",
        resource: "configmaps",
        // Nothing is followed: the document comes with the mount.
        verbs: &["get", "patch"],
        one_object: true,
        needs: &[Need::MountedStatus],
    },
    Permission {
        group: "bulkhead.dev",
        resource: "firewalls",
        verbs: &["list", "watch"],
        one_object: true,
        needs: &[Need::Firewall],
    },
    Permission {
        group: "bulkhead.dev",
        resource: "firewalls/status",
        verbs: &["patch"],
        one_object: true,
        needs: &[Need::Firewall],
    },
    Permission {
        group: "",
        resource: "pods",
        verbs: &["list", "watch"],
        one_object: false,
        needs: &[Need::Pods, Need::NetworkPolicies],
    },
    Permission {
        group: "",
        resource: "namespaces",
        verbs: &["list", "watch"],
        one_object: false,
        needs: &[Need::NamespaceSelector, Need::NetworkPolicies],
    },
    Permission {
        group: "k8s.cni.cncf.io",
        resource: "multi-networkpolicies",
        verbs: &["list", "watch"],
        one_object: false,
        needs: &[Need::NetworkPolicies],
    },
    Permission {
        group: "bulkhead.dev",
        resource: "addressgroups",
        verbs: &["list", "watch"],
        one_object: false,
        needs: &[Need::AddressGroups],
    },
    Permission {
        group: "bulkhead.dev",
        resource: "addressgroups/status",
        verbs: &["patch"],
        one_object: false,
        needs: &[Need::AddressGroups],
    },
    Permission {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create"],
        one_object: false,
        // Of network policies: in the namespaces they are in.
        needs: &[
            Need::ConfigMap,
            Need::Firewall,
            Need::Mounted,
            Need::NetworkPolicies,
        ],
    },
];
