//! The page in the repository is what the code says, and leaves nothing out.

use std::collections::BTreeSet;

use super::{BUILTIN_SCREEN, anchor, meaning_and_default, reference};
use crate::config::Screen;

#[test]
fn the_page_in_the_repository_is_this_one() {
    let kept = include_str!("../../../../deploy/docs/configuration.md");
    let page = reference();
    for (number, (kept, now)) in kept.lines().zip(page.lines()).enumerate() {
        assert_eq!(
            kept,
            now,
            "deploy/docs/configuration.md:{}: run `cargo run -p bulkhead-config --example reference > \
             deploy/docs/configuration.md` and review what changes",
            number + 1
        );
    }
    assert_eq!(
        kept.len(),
        page.len(),
        "deploy/docs/configuration.md has another end"
    );
}

#[test]
fn every_definition_is_on_the_page_and_every_link_leads_somewhere() {
    let page = reference();
    let headings: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let anchors: BTreeSet<_> = headings.iter().map(|heading| anchor(heading)).collect();
    assert_eq!(
        anchors.len(),
        headings.len(),
        "two headings have one anchor: {headings:?}"
    );
    let links: BTreeSet<_> = page
        .split("](#")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link.to_owned())
        .collect();
    assert!(links.is_subset(&anchors), "{:?}", links.difference(&anchors));
    let schema = crate::json_schema();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for field in definition["properties"].as_object().into_iter().flatten() {
            assert!(
                page.contains(&format!("\n| `{}` | ", field.0)),
                "{name}.{}",
                field.0
            );
        }
    }
    assert!(headings.len() > 30, "{headings:?}");
    assert!(!page.contains("Default: "), "a default that was not found");
}

#[test]
fn the_builtin_screen_is_as_it_is_written_here() {
    let screen = BUILTIN_SCREEN.trim_end().replace('\n', ", ");
    let text = format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: edge }}\nspec:\n  \
         zones: [{{ name: a, screen: written }}]\n  screens: [{{ name: written, {screen} }}]\n"
    );
    let config = crate::parse("f", &text)
        .unwrap_or_else(|refused| panic!("{refused}"))
        .config;
    let written = config.screen(config.zones[0].screen.unwrap()).clone();
    let builtin = Screen::builtin();
    let written = Screen {
        name: builtin.name.clone(),
        builtin: true,
        line: builtin.line,
        ..written
    };
    assert_eq!(written, builtin);
}

#[test]
fn a_default_is_the_rest_of_its_sentence() {
    for (comment, meaning, default) in [
        ("How often. Default: 5m.", "How often.", "5m"),
        ("The hook. Default: `spec.hook`.", "The hook.", "`spec.hook`"),
        (
            "A file. Default: Mozilla's list, built in. With https only.",
            "A file. With https only.",
            "Mozilla's list, built in",
        ),
        ("Its name.", "Its name.", ""),
    ] {
        assert_eq!(
            meaning_and_default(comment),
            (meaning.to_owned(), default.to_owned())
        );
    }
}
