//! The table of keys holds together.

use std::collections::BTreeSet;

use super::kind::memory_text;
use super::*;

#[test]
fn every_default_is_a_value_of_its_kind() {
    for key in all() {
        if let Some(default) = key.default {
            assert_eq!(key.kind.normalize(default).as_deref(), Some(default), "default of {}", key.name);
        }
    }
}

#[test]
fn no_name_is_used_twice_and_every_key_is_explained() {
    let mut seen = BTreeSet::new();
    for key in all() {
        for name in std::iter::once(&key.name).chain(key.aliases) {
            assert!(seen.insert(*name), "`{name}` is used twice");
            assert_eq!(find(name), Some(key));
        }
        assert!(key.help().len() > 10 && key.help().ends_with('.'), "help of {}: {}", key.name, key.help());
        assert!(!key.help().starts_with(' ') && !key.help().contains("  "), "help of {}", key.name);
    }
}

#[test]
fn all_keys_of_s3_are_keys_of_storages() {
    let named: Vec<_> = all().filter(|key| key.name.starts_with("s3.")).collect();
    assert_eq!(named, STORAGE);
}

#[test]
fn the_nearest_key_is_found_for_typical_mistakes() {
    for (wrong, right) in [
        ("taskmanager.numberOfTaskSlot", Some("taskmanager.numberOfTaskSlots")),
        ("taskmanager.numberoftaskslots", Some("taskmanager.numberOfTaskSlots")),
        ("execution.checkpointing.intervall", Some("execution.checkpointing.interval")),
        ("execution.checkpoint.interval", Some("execution.checkpointing.interval")),
        ("state.checkpoint.dir", Some("execution.checkpointing.dir")),
        ("restart-strategy.fixed-delay.attempt", Some("restart-strategy.fixed-delay.attempts")),
        ("colour.of.the.logo", None),
        ("", None),
    ] {
        assert_eq!(nearest(wrong), right, "for {wrong:?}");
    }
}

#[test]
fn memory_sizes_are_shown_in_their_largest_whole_unit() {
    for (bytes, wanted) in
        [(0, "0 b"), (1_000, "1000 b"), (1_024, "1 kb"), (1_536, "1536 b"), (3 << 30, "3 gb")]
    {
        assert_eq!(memory_text(bytes), wanted);
    }
}

#[test]
fn an_expectation_s_example_is_a_valid_value() {
    for key in all() {
        let expectation = key.kind.expectation();
        let examples: Vec<_> = expectation.split('`').skip(1).step_by(2).collect();
        for example in examples {
            assert!(key.kind.normalize(example).is_some(), "{}: `{example}` in: {expectation}", key.name);
        }
    }
}
