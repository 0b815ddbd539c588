//! The roles of the chart beside the list of the code.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use bulkhead_kube::rbac::{Need, permissions};
use bulkhead_kube_env::{
    Parts,
    chart::{self, NAMESPACE},
};
use serde_json::Value;

use crate::common::{objects, root};

/// A right as a role has it: where, the API group, the resource, the verbs, and whether it is about one object alone.
type Right = (String, String, String, BTreeSet<String>, bool);

/// What the roles among these objects grant; `*` is the cluster.
fn granted(objects: &[Value]) -> Result<BTreeSet<Right>> {
    let texts = |value: &Value| -> BTreeSet<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let mut rights = BTreeSet::new();
    for object in objects {
        let place = match object["kind"].as_str() {
            Some("Role") => object["metadata"]["namespace"].as_str().context("no namespace")?,
            Some("ClusterRole") => "*",
            _ => continue,
        };
        for rule in object["rules"].as_array().context("no rules")? {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let verbs = texts(&rule["verbs"]);
                    let names = texts(&rule["resourceNames"]);
                    ensure!(names.len() <= 1, "more than one object: {rule}");
                    ensure!(
                        rights.insert((
                            place.to_owned(),
                            group.clone(),
                            resource,
                            verbs,
                            !names.is_empty()
                        )),
                        "granted twice: {rule}"
                    );
                }
            }
        }
    }
    Ok(rights)
}

/// The chart and the code say the same of what is asked of the API, whatever the configuration's source is and whatever its
/// groups follow: nothing is missing, and nothing is granted that nobody asks for.
#[test]
fn kube_chart_grants_what_the_code_asks_for_and_nothing_else() -> Result<()> {
    let root = root();
    let parts = Parts::cached()?;
    let minimal = root.join("deploy/helm/variations/minimal.yaml");
    let rendered = |set: &str| {
        let show = ["--show-only", "templates/rbac.yaml", "--set", set];
        chart::template(&parts, &root, &minimal, &show)
    };
    let sources = [
        ("mounted", &[Need::Mounted, Need::MountedStatus][..]),
        ("configMap", &[Need::ConfigMap]),
        ("firewall", &[Need::Firewall]),
    ];
    let groups: [(&str, &[Need], &[&str]); 9] = [
        ("rbac.podGroups=false", &[], &[]),
        ("rbac.events=false", &[], &[]),
        ("rbac.status=false", &[], &[]),
        ("rbac.status=false,rbac.events=false", &[], &[]),
        (
            "rbac.podGroups=true",
            &[Need::Pods, Need::NamespaceSelector],
            &["*"],
        ),
        (
            "rbac.addressGroupNamespaces={shop,payments}",
            &[Need::AddressGroups],
            &["shop", "payments"],
        ),
        // Their names are in the configuration, so namespaces are not asked for.
        (
            "rbac.podGroups=true,rbac.podGroupNamespaces={shop,payments}",
            &[Need::Pods],
            &["shop", "payments"],
        ),
        ("multiNetworkPolicies=true", &[Need::NetworkPolicies], &["*"]),
        // They take more than the groups do.
        (
            "multiNetworkPolicies=true,rbac.podGroups=true,rbac.podGroupNamespaces={shop}",
            &[Need::NetworkPolicies],
            &["*"],
        ),
    ];
    for (source, of_source) in sources {
        for (set, of_groups, places) in groups {
            let set = format!("configuration.source={source},{set}");
            let right = |place: &str, permission: &bulkhead_kube::rbac::Permission| -> Right {
                let verbs = permission.verbs.iter().map(|verb| (*verb).to_owned()).collect();
                (
                    place.to_owned(),
                    permission.group.to_owned(),
                    permission.resource.to_owned(),
                    verbs,
                    permission.one_object,
                )
            };
            // Whoever follows an object has a status and events; of a mounted file either is a matter of choice.
            let unsaid = |value: &str, need: Need, of: &Need| set.contains(value) && *of == need;
            let said = |of: &&Need| {
                !unsaid("rbac.events=false", Need::Mounted, of)
                    && !unsaid("rbac.status=false", Need::MountedStatus, of)
            };
            let of_source: Vec<Need> = of_source.iter().filter(said).copied().collect();
            let mut asked: BTreeSet<Right> = permissions(&of_source)
                .map(|permission| right(NAMESPACE, permission))
                .collect();
            for place in places {
                asked.extend(permissions(of_groups).map(|permission| right(place, permission)));
            }
            if asked.is_empty() {
                // helm's way to say that nothing is rendered.
                let Err(error) = rendered(&set) else {
                    panic!("{set}: rights that nobody asks for");
                };
                let said = format!("{error:#}");
                ensure!(said.contains("could not find template"), "{said}");
                continue;
            }
            let objects = objects(&parts, &rendered(&set)?)?;
            assert_eq!(granted(&objects)?, asked, "{set}");
            let bindings = objects.iter().filter(|object| {
                object["kind"]
                    .as_str()
                    .is_some_and(|kind| kind.ends_with("Binding"))
            });
            assert_eq!(bindings.count() * 2, objects.len(), "{set}: each role is bound");
        }
    }
    Ok(())
}
