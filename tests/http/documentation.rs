//! What `docs/http.md` says of the layer is so.

use hapax::http::Problem;
use saphyr::{LoadableYamlNode as _, Yaml};
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/http.md");

fn open_api() -> Yaml<'static> {
    let start = PAGE.split("```yaml\n").nth(1).expect("a description");
    let text = start.split("```").next().expect("its end");
    Yaml::load_from_str(text).expect("YAML").remove(0)
}

#[test]
fn the_description_names_every_status_and_each_of_its_references() {
    let description = open_api();
    let responses = &description["paths"]["/charges"]["post"]["responses"];
    let responses = responses.as_mapping().expect("a mapping");
    let stated: BTreeSet<_> = responses.keys().filter_map(Yaml::as_str).collect();
    let statuses: BTreeSet<_> = Problem::ALL.iter().map(|problem| problem.status()).collect();
    for status in statuses {
        assert!(stated.contains(status.as_str()), "{status}");
    }
    for response in responses.values() {
        let reference = response.as_mapping_get("$ref").and_then(Yaml::as_str);
        let Some(name) = reference else { continue };
        let name = name.strip_prefix("#/components/responses/").expect("a response");
        assert!(description["components"]["responses"].as_mapping_get(name).is_some(), "{name}");
    }
}

#[test]
fn the_table_names_every_problem() {
    for problem in Problem::ALL {
        let row = format!("| {} | `{}` |", problem.status().as_u16(), problem.code());
        assert!(PAGE.contains(&row), "{row}");
    }
}
