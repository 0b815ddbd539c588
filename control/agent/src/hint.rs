//! What would change a verdict: one sentence for a person, from the reason of an explanation.

use bulkhead_abi::Reason;

use crate::report::Explanation;
use crate::words;

/// The hint; `None` where the policy itself says all there is.
pub fn hint(reason: Reason, explained: &Explanation) -> Option<String> {
    let question = &explained.question;
    let egress = explained.egress.as_deref().unwrap_or("the way out");
    Some(match reason {
        Reason::DefaultDeny => format!(
            "no policy from {} to {} matches; if it is meant to pass, add one: {}",
            explained.from_zone,
            explained.to_zone,
            policy_for(explained)
        ),
        Reason::HostInboundDeny => format!(
            "this is for the firewall itself; if zone {} may use it, name the service in the zone's hostInbound",
            explained.from_zone
        ),
        Reason::PolicyDeny if explained.policy.as_deref() == Some(crate::live::UNKNOWN) => {
            "nobody knows yet which MultiNetworkPolicies there are; the log and `/readyz` say why".to_owned()
        }
        // No policy of the document is called so, and none comes before it.
        Reason::PolicyDeny if is_isolation(explained.policy.as_deref()) => {
            "an end is isolated by MultiNetworkPolicies: a rule of one of those that the name lists must permit it, no policy of \
             the document can"
                .to_owned()
        }
        Reason::PolicyDeny | Reason::PolicyReject => {
            "a policy further up would be asked first: the order is the order of the file".to_owned()
        }
        Reason::NoRoute => format!(
            "the firewall has no route to {0}; `ip route get {0}` shows what the kernel thinks",
            question.destination
        ),
        Reason::EgressNotGuarded => format!(
            "the route leads out of {egress}, which is not among spec.interfaces; list it there, or give what is forwarded \
             a route of its own in spec.routes"
        ),
        Reason::NatNoAddress => {
            let family = if question.source.is_ipv4() { "IPv4" } else { "IPv6" };
            format!("{egress} has no {family} address to translate to; give it one, or translate: off")
        }
        Reason::NotConfigured => {
            format!(
                "{} is in no zone of the configuration in force",
                explained.ingress
            )
        }
        _ => return None,
    })
}

/// Why answers would be dropped, and what to do.
pub fn way_back(reason: Reason, explained: &Explanation) -> Option<String> {
    let source = explained.question.source;
    let why = match reason {
        Reason::NoRoute => "there is no route to it".to_owned(),
        Reason::EgressNotGuarded => {
            "the route to it leads out of an interface that is not among spec.interfaces".to_owned()
        }
        Reason::PolicyChanged => format!(
            "the route to it leads into another zone than {}",
            explained.from_zone
        ),
        _ => return None,
    };
    Some(format!(
        "{source} would get no answer: {why}; give it one over {} in spec.routes",
        explained.ingress
    ))
}

fn is_isolation(policy: Option<&str>) -> bool {
    policy.is_some_and(|name| name.starts_with("mnp/"))
}

/// The narrowest policy that would permit the conversation.
fn policy_for(explained: &Explanation) -> String {
    let question = &explained.question;
    let service = match explained.services.first() {
        Some(service) => format!(", service: {service}"),
        None if words::has_ports(question.protocol_number) => format!(
            ", service: <one with {}: {}>",
            words::protocol(question.protocol_number),
            question.destination_port
        ),
        None => String::new(),
    };
    format!(
        "{{ name: <name>, from: {}, to: {}, source: \"{}\", destination: \"{}\"{service}, action: permit }}",
        explained.from_zone, explained.to_zone, question.source, question.destination
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::report::Question;

    fn explained() -> Explanation {
        fixture::explanation(&Question {
            from: "web".into(),
            source: "10.10.3.20".parse().expect("an address"),
            destination: "203.0.113.80".parse().expect("an address"),
            protocol_number: 6,
            source_port: 0,
            destination_port: 8_443,
            icmp_type: None,
            icmp_code: None,
        })
    }

    #[test]
    fn a_default_denial_shows_the_policy_that_is_missing() {
        assert_eq!(
            hint(Reason::DefaultDeny, &explained()).as_deref(),
            Some(
                "no policy from web to internet matches; if it is meant to pass, add one: { name: <name>, from: web, \
                 to: internet, source: \"10.10.3.20\", destination: \"203.0.113.80\", service: https, action: permit }"
            )
        );
        let nameless = Explanation {
            services: vec![],
            ..explained()
        };
        let shown = hint(Reason::DefaultDeny, &nameless).expect("a hint");
        assert!(shown.contains("service: <one with tcp: 8443>"), "{shown}");
    }

    #[test]
    fn the_missing_policy_is_one_that_the_configuration_takes() {
        let shown = hint(Reason::DefaultDeny, &explained()).expect("a hint");
        let policy = &shown[shown.find('{').expect("a policy")..].replace("<name>", "new");
        let document = format!(
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: x }}\nspec:\n  zones: [{{ name: web }}, \
             {{ name: internet }}]\n  interfaces: [{{ name: net1, zone: web }}, {{ name: net2, zone: internet }}]\n  \
             policies:\n    - {policy}\n"
        );
        bulkhead_config::parse("hint.yaml", document).expect("a sound configuration");
    }

    #[test]
    fn other_reasons_name_what_to_change() {
        for (reason, part) in [
            (Reason::HostInboundDeny, "hostInbound"),
            (Reason::PolicyDeny, "order of the file"),
            (Reason::NoRoute, "ip route get 203.0.113.80"),
            (Reason::EgressNotGuarded, "out of net5"),
            (Reason::NatNoAddress, "net5 has no IPv4 address"),
            (Reason::NotConfigured, "net3 is in no zone"),
        ] {
            let shown = hint(reason, &explained()).expect("a hint");
            assert!(shown.contains(part), "{shown}");
        }
        assert_eq!(hint(Reason::SessionCreated, &explained()), None);
        let isolated = Explanation {
            policy: Some("mnp/shop/db/ingress/isolation".to_owned()),
            ..explained()
        };
        let shown = hint(Reason::PolicyDeny, &isolated).expect("a hint");
        assert!(shown.contains("isolated by MultiNetworkPolicies"), "{shown}");
        let unknown = Explanation {
            policy: Some(crate::live::UNKNOWN.to_owned()),
            ..explained()
        };
        let shown = hint(Reason::PolicyDeny, &unknown).expect("a hint");
        assert!(shown.contains("nobody knows yet"), "{shown}");
    }
}
