//! The dashboard and the samples beside the chart: what they name is there.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use bulkhead_kube_env::{
    Parts,
    chart::{self, NAMESPACE},
};
use serde_json::{Value, json};

use crate::{
    common::{objects, root, values},
    openapi::Schemas,
};

/// The dashboard and what the number of replicas follows speak of metrics that there are; and the chart's dashboard is the one that
/// is kept for everybody.
#[test]
fn kube_chart_dashboard_and_samples_name_metrics_that_there_are() -> Result<()> {
    let root = root();
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let metrics = read("deploy/docs/metrics.md")?;
    let mut expressions = Vec::new();
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboards/bulkhead.json")?)?;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_u64(), place["w"].as_u64());
        ensure!(
            x.zip(w).is_some_and(|(x, w)| x + w <= 24),
            "off the grid: {panel}"
        );
        let targets = panel["targets"].as_array().context("a panel without targets")?;
        expressions.extend(
            targets
                .iter()
                .filter_map(|target| target["expr"].as_str().map(str::to_owned)),
        );
    }
    let adapter = read("deploy/helm/samples/prometheus-adapter.yaml")?;
    expressions.extend(
        adapter
            .lines()
            .filter(|line| line.contains("seriesQuery:"))
            .map(str::to_owned),
    );
    ensure!(expressions.len() > 20, "{expressions:?}");
    for expression in &expressions {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: Vec<_> = words.filter(|word| word.starts_with("bulkhead_")).collect();
        ensure!(!names.is_empty(), "no metric in {expression}");
        for name in names {
            ensure!(
                metrics.contains(&format!("| `{name}` |")),
                "{name} is no metric: {expression}"
            );
        }
    }
    let golden = read("deploy/helm/golden/ingress-protection.yaml")?;
    for expression in expressions
        .iter()
        .filter(|expression| !expression.contains("seriesQuery"))
    {
        let quoted = Value::from(expression.as_str()).to_string();
        ensure!(
            golden.contains(&quoted),
            "the chart carries another dashboard: {expression}"
        );
    }
    Ok(())
}

/// What the number of replicas follows is what the adapter serves: same names, made of metrics that there are, of the pods.
#[test]
fn kube_chart_scales_by_metrics_that_the_sample_of_the_adapter_makes() -> Result<()> {
    let (parts, root) = (Parts::cached()?, root());
    let metrics = fs::read_to_string(root.join("deploy/docs/metrics.md"))?;
    let adapter = values(&parts, &root.join("deploy/helm/samples/prometheus-adapter.yaml"))?;
    let mut served = Vec::new();
    for rule in adapter["rules"]["custom"].as_array().context("no rules")? {
        let name = rule["name"]["as"]
            .as_str()
            .with_context(|| format!("no name: {rule}"))?;
        let series = rule["seriesQuery"]
            .as_str()
            .with_context(|| format!("no series: {rule}"))?;
        let (metric, labels) = series
            .split_once('{')
            .with_context(|| format!("no labels: {series}"))?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with(&format!("| `{metric}` |")))
            .with_context(|| format!("{metric} is no metric"))?;
        // A counter only grows: what is aimed at is its rate, and it is called so.
        let query = rule["metricsQuery"]
            .as_str()
            .with_context(|| format!("no query: {rule}"))?;
        let is_rate = query.contains("rate(");
        assert_eq!(line.contains("| counter |"), is_rate, "{query} of {line}");
        assert_eq!(name.ends_with("_per_second"), is_rate, "{name}");
        for label in ["namespace", "pod"] {
            ensure!(labels.contains(&format!("{label}!=\"\"")), "{series}");
            assert_eq!(rule["resources"]["overrides"][label]["resource"], label, "{rule}");
        }
        served.push(name.to_owned());
    }
    let chart = values(&parts, &chart::chart(&root).join("values.yaml"))?;
    let followed = ["sessionsMetric", "throughputMetric"].map(|field| chart["autoscaling"][field].clone());
    assert_eq!(served, followed, "the sample, and the chart's values");

    let golden = fs::read_to_string(root.join("deploy/helm/golden/ingress-protection.yaml"))?;
    let objects = objects(&parts, &golden)?;
    let autoscaler = of_kind(&objects, "HorizontalPodAutoscaler").context("no autoscaler")?;
    let asked = autoscaler["spec"]["metrics"].as_array().context("no metrics")?;
    let asked: Vec<_> = asked
        .iter()
        .map(|metric| &metric["pods"]["metric"]["name"])
        .collect();
    assert_eq!(
        asked,
        followed.each_ref(),
        "the autoscaler, and the chart's values"
    );
    Ok(())
}

/// The controllers are where the firewall of `variations/ingress-protection.yaml` sends visitors. Only the values are here, not the
/// chart that they are of: what it is known to put into its Deployment is put there by hand, and judged.
#[test]
fn kube_chart_sample_of_controllers_is_what_the_ingress_variation_sends_visitors_to() -> Result<()> {
    let (parts, root) = (Parts::cached()?, root());
    let sample = |name: &str| root.join("deploy/helm/samples").join(name);
    let variation = values(
        &parts,
        &root.join("deploy/helm/variations/ingress-protection.yaml"),
    )?;
    let spec = &variation["configuration"]["spec"];
    let controller = &values(&parts, &sample("ingress-nginx.yaml"))?["controller"];
    let attachment = &objects(&parts, &fs::read_to_string(sample("ingress-controllers.yaml"))?)?[0];
    assert_eq!(attachment["kind"], "NetworkAttachmentDefinition");

    // The network that the pods name, in their own namespace, is a part of the firewall's net2.
    let annotation = "k8s.v1.cni.cncf.io/networks";
    assert_eq!(
        controller["podAnnotations"][annotation],
        attachment["metadata"]["name"]
    );
    let config = attachment["spec"]["config"]
        .as_str()
        .context("no configuration")?;
    let config: Value = serde_json::from_str(config).context("no JSON")?;
    let inner = &variation["networks"][1]["create"];
    for field in ["type", "master", "mode"] {
        assert_eq!(config[field], inner[field], "{field}");
    }
    assert_eq!(config["ipam"]["range"], inner["ipam"]["range"]);

    // It gives out exactly the addresses of the pool, as many as there are controllers.
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("no text: {value}"))
    };
    let (first, last) = (
        text(&config["ipam"]["range_start"])?,
        text(&config["ipam"]["range_end"])?,
    );
    assert_eq!(
        spec["nat"]["pools"][0]["addresses"],
        json!([format!("{first}-{last}")])
    );
    let number = |address: &str| address.parse().map(std::net::Ipv4Addr::to_bits);
    let addresses = number(&last)? - number(&first)? + 1;
    assert_eq!(controller["replicaCount"], addresses);
    // The published address is the one that the firewall translates, and no Service publishes another.
    assert_eq!(
        controller["extraArgs"]["publish-status-address"],
        spec["nat"]["destination"][0]["destination"]
    );
    assert_eq!(controller["service"]["enabled"], false);

    let labels = json!({"app.kubernetes.io/name": "ingress-nginx"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "ingress-nginx-controller"},
        "spec": {
            "replicas": controller["replicaCount"],
            "strategy": controller["updateStrategy"],
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": controller["podAnnotations"]},
                "spec": {"containers": [{"name": "controller", "image": "controller"}]},
            },
        },
    });
    assert_eq!(Schemas::of_kubernetes().faults(&deployment)?, [""; 0]);
    // Every address is taken, so a new pod finds none before an old one is gone.
    let rolling = &controller["updateStrategy"]["rollingUpdate"];
    assert_eq!(
        (&rolling["maxSurge"], &rolling["maxUnavailable"]),
        (&json!(0), &json!(1))
    );
    Ok(())
}

/// As many networks as there may be, all made by the chart; the pod attaches to each, in order.
#[test]
fn kube_chart_makes_fifteen_networks_and_attaches_to_them() -> Result<()> {
    let golden = fs::read_to_string(root().join("deploy/helm/golden/fifteen-networks.yaml"))?;
    let objects = objects(&Parts::cached()?, &golden)?;
    let deployment = of_kind(&objects, "Deployment").context("no Deployment")?;
    let template = &deployment["spec"]["template"];
    let attached = template["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"].as_str();
    let attached: Vec<Value> = serde_json::from_str(attached.context("no attachments")?)?;
    assert_eq!(attached.len(), 15);
    for (index, item) in attached.iter().enumerate() {
        assert_eq!(item["interface"], format!("net{}", index + 1));
        let is_it = |object: &&Value| {
            object["kind"] == "NetworkAttachmentDefinition"
                && object["metadata"]["name"] == item["name"]
                && object["metadata"]["namespace"] == item["namespace"]
        };
        let made = objects
            .iter()
            .find(is_it)
            .with_context(|| format!("nobody makes {item}"))?;
        assert_eq!(made["metadata"]["namespace"], NAMESPACE);
    }
    let made = objects
        .iter()
        .filter(|object| object["kind"] == "NetworkAttachmentDefinition");
    assert_eq!(made.count(), 15);
    let ports = json!({"name": "BULKHEAD_PORTS", "value": "15"});
    let variables = template["spec"]["containers"][0]["env"]
        .as_array()
        .context("no variables")?;
    assert!(variables.contains(&ports), "{variables:?}");
    Ok(())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind)
}
