//! The direction of dependencies between our crates.
//!
//! Invariants: each crate names only those below it in [`LAYERS`]; job manager and task manager never meet except in
//! the SDK's local mode and in programs that test or measure everything.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::workspace::{Dependency, DependencyKind, Package};

/// What one of our crates may depend on.
struct Layer {
    name: &'static str,
    always: &'static [&'static str],
    /// Only behind a feature.
    optionally: &'static [&'static str],
}

const fn layer(name: &'static str, always: &'static [&'static str]) -> Layer {
    Layer { name, always, optionally: &[] }
}

const DERIVE: &str = "thalweg-derive";
const COMMON: &str = "thalweg-common";
const PROTO: &str = "thalweg-proto";
const SAVEPOINT: &str = "thalweg-savepoint";
const STATE: &str = "thalweg-state";
const RUNTIME: &str = "thalweg-runtime";
const CEP: &str = "thalweg-cep";
const METRICS: &str = "thalweg-metrics";
const TASKMANAGER: &str = "thalweg-taskmanager";
const JOBMANAGER: &str = "thalweg-jobmanager";
const SDK: &str = "thalweg";
const CONNECTORS: &str = "thalweg-connectors";
const CLI: &str = "thalweg-cli";
const EXAMPLES: &str = "thalweg-examples";
const EXAMPLES_AWS: &str = "thalweg-examples-aws";
const CHAOS_TESTS: &str = "thalweg-chaos-tests";
const TEST_SUPPORT: &str = "thalweg-test-support";
/// What programs may use that test or measure the whole.
const EVERYTHING: &[&str] = &[
    COMMON,
    PROTO,
    SAVEPOINT,
    STATE,
    RUNTIME,
    CEP,
    METRICS,
    TASKMANAGER,
    JOBMANAGER,
    SDK,
    CONNECTORS,
    CLI,
    EXAMPLES,
    EXAMPLES_AWS,
    CHAOS_TESTS,
    TEST_SUPPORT,
];

/// From the bottom to the top; ARCHITECTURE.md draws the same table.
const LAYERS: [Layer; 19] = [
    layer(DERIVE, &[]),
    layer(COMMON, &[DERIVE]),
    layer(PROTO, &[COMMON]),
    layer(SAVEPOINT, &[COMMON]),
    layer(STATE, &[COMMON, DERIVE]),
    layer(RUNTIME, &[STATE, SAVEPOINT, PROTO, COMMON]),
    layer(CEP, &[COMMON]),
    layer(METRICS, &[PROTO, COMMON]),
    layer(TASKMANAGER, &[METRICS, PROTO, COMMON]),
    layer(JOBMANAGER, &[METRICS, SAVEPOINT, PROTO, COMMON]),
    Layer {
        name: SDK,
        always: &[CEP, RUNTIME, STATE, SAVEPOINT, PROTO, COMMON],
        optionally: &[JOBMANAGER, TASKMANAGER],
    },
    layer(CONNECTORS, &[RUNTIME, COMMON]),
    layer(CLI, &[RUNTIME, SAVEPOINT, PROTO, COMMON]),
    layer(EXAMPLES, &[SDK, CONNECTORS]),
    layer(EXAMPLES_AWS, &[SDK, CONNECTORS]),
    layer(TEST_SUPPORT, &[COMMON]),
    layer("thalweg-benches", EVERYTHING),
    layer(CHAOS_TESTS, EVERYTHING),
    layer("xtask", &[]),
];

/// Checks all crates. `read` yields a manifest's text, to find the line.
pub fn check(packages: &[Package], read: impl Fn(&Path) -> Option<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let manifest = || read(&package.manifest).unwrap_or_default();
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == package.name) else {
            findings.push(Finding::error(
                &package.manifest,
                line_of(&manifest(), &format!("name = \"{}\"", package.name)),
                format!("the crate {} has no place in the order of dependencies", package.name),
                format!("give it one in {}", this_file().display()),
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| is_ours(packages, dependency)) {
            if let Some((what, cure)) = judge(layer, dependency) {
                findings.push(Finding::error(
                    &package.manifest,
                    line_of(&manifest(), &dependency.name),
                    what,
                    cure,
                ));
            }
        }
    }
    findings
}

fn judge(layer: &Layer, dependency: &Dependency) -> Option<(String, String)> {
    let name = dependency.name.as_str();
    let rivals = [JOBMANAGER, TASKMANAGER];
    if dependency.kind == DependencyKind::Development {
        // Tests may reach upwards (the SDK's tests use connectors), but not across.
        let across = rivals.contains(&layer.name) && rivals.contains(&name) && layer.name != name;
        return across.then(|| {
            let what = format!("{} depends on {name}, even if only in its tests", layer.name);
            (what, "test both together in chaos-tests".into())
        });
    }
    if layer.always.contains(&name) {
        return None;
    }
    if layer.optionally.contains(&name) {
        let what = format!("{} depends on {name} without a feature that leaves it out", layer.name);
        return (!dependency.optional).then(|| (what, "make it `optional = true` behind a feature".into()));
    }
    let allowed: Vec<_> = layer.always.iter().chain(layer.optionally).copied().collect();
    let cure = match allowed.as_slice() {
        [] => "it may depend on none of our crates: move what both need downwards".to_owned(),
        allowed => format!("it may depend on {}: move what both need downwards", allowed.join(", ")),
    };
    Some((format!("{} depends on {name}", layer.name), cure))
}

fn is_ours(packages: &[Package], dependency: &Dependency) -> bool {
    packages.iter().any(|package| package.name == dependency.name)
}

/// The first line that begins with the text; 1 when there is none (a renamed dependency).
fn line_of(manifest: &str, text: &str) -> usize {
    let is_it = |line: &str| {
        line.strip_prefix(text)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '-'))
    };
    manifest.lines().position(is_it).map_or(1, |index| index + 1)
}

fn this_file() -> PathBuf {
    PathBuf::from(file!())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, DependencyKind, bool)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|&(name, kind, optional)| Dependency {
                name: name.into(),
                kind,
                optional,
                default_features: true,
                features: Vec::new(),
            })
            .collect();
        Package { name: name.into(), manifest: format!("{name}/Cargo.toml").into(), dependencies }
    }

    /// The findings about one crate in a workspace that has all of ours.
    fn findings(name: &str, dependencies: &[(&str, DependencyKind, bool)]) -> Vec<Finding> {
        let mut packages: Vec<_> =
            LAYERS.iter().filter(|layer| layer.name != name).map(|layer| package(layer.name, &[])).collect();
        packages.push(package(name, dependencies));
        check(&packages, |_| {
            Some(String::from("[dependencies]\nthalweg-common = 1\nthalweg-taskmanager.workspace = true\n"))
        })
    }

    #[test]
    fn downwards_is_allowed() {
        use DependencyKind::Normal;
        assert_eq!(
            findings(RUNTIME, &[(STATE, Normal, false), (PROTO, Normal, false), ("tokio", Normal, false)]),
            []
        );
        assert_eq!(findings(COMMON, &[(DERIVE, Normal, false)]), []);
        assert_eq!(findings(SDK, &[(JOBMANAGER, Normal, true), (RUNTIME, Normal, false)]), []);
    }

    #[test]
    fn upwards_and_across_are_refused_with_the_line_and_the_cure() {
        use DependencyKind::{Build, Normal};
        for (name, dependency) in [
            (COMMON, PROTO),
            (PROTO, RUNTIME),
            (STATE, PROTO),
            (JOBMANAGER, TASKMANAGER),
            (TASKMANAGER, RUNTIME),
            (CONNECTORS, SDK),
            (CLI, SDK),
            ("xtask", COMMON),
        ] {
            for kind in [Normal, Build] {
                let findings = findings(name, &[(dependency, kind, true)]);
                assert_eq!(findings.len(), 1, "{name} -> {dependency}");
                assert_eq!(findings[0].what, format!("{name} depends on {dependency}"));
            }
        }
        let across = findings(JOBMANAGER, &[(TASKMANAGER, Normal, false)]);
        assert_eq!(across[0].line, 3);
        assert!(
            across[0].cure.contains("thalweg-savepoint, thalweg-proto, thalweg-common"),
            "{}",
            across[0].cure
        );
    }

    #[test]
    fn the_sdk_embeds_a_cluster_only_behind_a_feature() {
        let findings = findings(SDK, &[(TASKMANAGER, DependencyKind::Normal, false)]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].cure.contains("optional = true"));
    }

    #[test]
    fn tests_may_reach_upwards_but_the_managers_never_meet() {
        use DependencyKind::Development;
        assert_eq!(findings(SDK, &[(CONNECTORS, Development, false)]), []);
        assert_eq!(findings(TASKMANAGER, &[(JOBMANAGER, Development, false)]).len(), 1);
    }

    #[test]
    fn a_new_crate_must_be_given_its_place() {
        let findings = findings("thalweg-novelty", &[]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].cure.ends_with("dependencies.rs"), "{}", findings[0].cure);
    }
}
