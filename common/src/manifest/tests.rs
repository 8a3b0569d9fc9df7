//! Every row of the table of changes: what a report says and whether the job can be restored.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::graph::StateKind;
use crate::record::Record;
use crate::schema::Field;
use crate::ttl::StateTtl;

fn state(name: &str, kind: StateKind, schema: Schema) -> StateDescriptor {
    StateDescriptor::new(name, kind, schema)
}

fn total(fields: &[Field]) -> StateDescriptor {
    state("total", StateKind::Value, Schema::Struct { name: "Total".into(), fields: fields.to_vec() })
}

/// The same with values that expire.
fn expiring(state: &StateDescriptor) -> StateDescriptor {
    let fields = vec![Field::new("since_ms", i64::schema()), Field::new("value", state.schema.clone())];
    let schema = Schema::Struct { name: "Expiring".into(), fields };
    let ttl = Some(StateTtl::new(std::time::Duration::from_secs(1)));
    StateDescriptor { ttl, ..StateDescriptor::new(&state.name, state.kind, schema) }
}

fn field(name: &str, type_name: &str) -> Field {
    Field::new(name, Schema::primitive(type_name))
}

fn count() -> OperatorManifest {
    OperatorManifest {
        id: OperatorId(7),
        uid: Some("c1".into()),
        name: "count".into(),
        parallelism: 4,
        max_parallelism: 128,
        key_schema: Some(String::schema()),
        states: vec![total(&[field("records", "u32")])],
    }
}

fn source() -> OperatorManifest {
    OperatorManifest {
        id: OperatorId(1),
        uid: None,
        name: "lines".into(),
        parallelism: 2,
        max_parallelism: 128,
        key_schema: None,
        states: vec![state("position", StateKind::Source, Schema::primitive("bytes"))],
    }
}

fn manifest(operators: &[OperatorManifest]) -> StateManifest {
    StateManifest { job_name: "job".into(), operators: operators.to_vec() }
}

/// The count after a change.
fn changed(change: impl FnOnce(&mut OperatorManifest)) -> StateManifest {
    let mut operator = count();
    change(&mut operator);
    manifest(&[source(), operator])
}

#[test]
fn every_row_of_the_table() {
    let old = || manifest(&[source(), count()]);
    let compatible = "compatible\noperator `lines`: compatible\noperator `count` (uid `c1`): compatible\n";
    let count_is = |verdict: &str, lines: &str| {
        format!(
            "{verdict}\noperator `lines`: compatible\noperator `count` (uid `c1`): {}\n{lines}",
            verdict.split(',').next().unwrap()
        )
    };
    let with_default = field("venue", "u8").with_default(vec![0]);
    let sum = OperatorManifest { id: OperatorId(9), uid: Some("s".into()), name: "sum".into(), ..count() };
    let table = [
        ("nothing", old(), compatible.to_string()),
        ("the parallelism", changed(|operator| operator.parallelism = 128), compatible.to_string()),
        (
            "a field with a default",
            changed(|operator| operator.states = vec![total(&[field("records", "u64"), with_default.clone()])]),
            count_is(
                "compatible after migration",
                "    state `total`: `records` is widened from u32 to u64\n    state `total`: field `venue` is added with its default\n",
            ),
        ),
        (
            "a time to live",
            changed(|operator| operator.states = vec![expiring(&total(&[field("records", "u64")]))]),
            count_is(
                "compatible after migration",
                "    state `total`: `records` is widened from u32 to u64\n    state `total`: values expire now; their life begins with the restore\n",
            ),
        ),
        (
            "a field without a default",
            changed(|operator| operator.states = vec![total(&[field("records", "u32"), field("venue", "u8")])]),
            count_is(
                "incompatible, for one reason",
                "    state `total`: field `venue` is new and has no default; put #[record(default)] above it, or #[record(rename_from = \"...\")] if it only had another name\n",
            ),
        ),
        (
            "a value that became a map",
            changed(|operator| operator.states = vec![state("total", StateKind::Map, <std::collections::BTreeMap<u8, u8>>::schema())]),
            count_is(
                "incompatible, for one reason",
                "    state `total` was a value state and is a map state now; declare it as before, or give the new one another name\n",
            ),
        ),
        (
            "another key",
            changed(|operator| operator.key_schema = Some(u64::schema())),
            count_is(
                "incompatible, for one reason",
                "    its keys were string and are u64 now: the value was string and is u64 now, which cannot be converted; keep its type, or give the new one another name with #[record(default)]; a key's encoding decides where its state lives: key the stream as before, or give the operator a new uid to start it empty\n",
            ),
        ),
        (
            "more subtasks than key groups",
            changed(|operator| (operator.parallelism, operator.max_parallelism) = (200, 512)),
            count_is(
                "incompatible, for one reason",
                "    it has parallelism 200, but its state was created with max parallelism 128; lower the parallelism to 128, or give the operator a new uid to start it empty\n",
            ),
        ),
        (
            "another max parallelism",
            changed(|operator| (operator.parallelism, operator.max_parallelism) = (100, 256)),
            count_is("compatible", "    it keeps max parallelism 128 of its state; 256 has no effect\n"),
        ),
        (
            "a max parallelism below the parallelism that is wanted is no matter of state",
            changed(|operator| (operator.parallelism, operator.max_parallelism) = (4, 4)),
            count_is("compatible", "    it keeps max parallelism 128 of its state; 4 has no effect\n"),
        ),
        (
            "an operator more",
            manifest(&[source(), count(), sum.clone()]),
            format!("{compatible}operator `sum` (uid `s`): added, begins empty\n"),
        ),
        (
            "another operator in its place",
            manifest(&[source(), sum.clone()]),
            "incompatible, for one reason\noperator `lines`: compatible\noperator `sum` (uid `s`): added, begins empty\noperator `count` (uid `c1`): removed\n    operator `count` (uid `c1`) is not in the job any more; give the one that continues it (`sum` (uid `s`), perhaps) .uid(\"c1\"), or drop its state with --allow-non-restored-state\n".to_string(),
        ),
        (
            "no source",
            manifest(&[count()]),
            "incompatible, for one reason\noperator `count` (uid `c1`): compatible\noperator `lines`: removed\n    operator `lines` is not in the job any more; it has no uid and was found by its place in the job: put the one that continues it there, or drop its state with --allow-non-restored-state\n".to_string(),
        ),
        (
            "another state",
            changed(|operator| operator.states[0].name = "sum".into()),
            count_is(
                "incompatible, for one reason",
                "    state `sum` is added, begins empty\n    state `total` is not declared any more; declare it again, or drop it with --allow-non-restored-state\n",
            )
            .replace("(uid `c1`): incompatible", "(uid `c1`): compatible"),
        ),
    ];
    for (what, new, expected) in table {
        let report = check(&old(), &new, false);
        assert_eq!(report.to_string(), expected, "{what}");
        assert_eq!(report.is_accepted(), expected.starts_with("compatible"), "{what}");
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report, "{what}");
    }
}

#[test]
fn non_restored_state_may_be_allowed_and_nothing_else() {
    let old = manifest(&[source(), count()]);
    let gone = check(&old, &manifest(&[source()]), true);
    assert!(gone.is_accepted());
    assert!(
        gone.to_string().ends_with("operator `count` (uid `c1`): removed, its state is dropped\n"),
        "{gone}"
    );
    let renamed = check(&old, &changed(|operator| operator.states[0].name = "sum".into()), true);
    assert!(renamed.is_accepted());
    assert!(renamed.to_string().ends_with("state `total` is removed, it is dropped\n"), "{renamed}");
    assert!(!check(&old, &changed(|operator| operator.key_schema = Some(u64::schema())), true).is_accepted());
}

#[test]
fn a_refusal_names_operator_state_and_field_in_one_sentence() {
    let old = manifest(&[source(), count()]);
    let new = changed(|operator| {
        operator.states = vec![total(&[field("records", "u32"), field("venue", "u8")])];
    });
    assert_eq!(
        check(&old, &new, false).refusals(),
        [
            "state `total` of `count` (uid `c1`): field `venue` is new and has no default; put #[record(default)] above it, or \
          #[record(rename_from = \"...\")] if it only had another name"
        ]
    );
}

#[test]
fn a_key_whose_fields_have_other_names_is_the_same() {
    let key = |field: Field| Some(Schema::Struct { name: "Key".into(), fields: vec![field] });
    let old = changed(|operator| operator.key_schema = key(field("user", "u64")));
    let renamed = changed(|operator| {
        operator.key_schema = key(field("account", "u64").with_former_names(&["user"]));
    });
    assert!(check(&old, &renamed, false).is_accepted());
    let widened = changed(|operator| operator.key_schema = key(field("user", "u128")));
    assert!(check(&old, &widened, false).refusals()[0].contains("`user` is widened from u64 to u128"));
}

#[test]
fn operators_are_found_as_people_call_them() {
    let twice = OperatorManifest { id: OperatorId(8), uid: None, ..count() };
    let manifest = manifest(&[source(), count(), twice]);
    assert_eq!(manifest.find("c1").unwrap().id, OperatorId(7));
    assert_eq!(manifest.find("0000000000000008").unwrap().id, OperatorId(8));
    assert_eq!(manifest.find("lines").unwrap().id, OperatorId(1));
    assert!(manifest.find("count").is_none(), "two have this name");
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let table = [
        (manifest(&[count(), count()]), "two operators with the id 0000000000000007"),
        (changed(|operator| operator.max_parallelism = 0), "max parallelism 0"),
        (changed(|operator| operator.key_schema = None), "not of which type its keys are"),
        (changed(|operator| operator.states[0].fingerprint ^= 1), "contradicts itself"),
        (changed(|operator| operator.states[0].kind = StateKind::Map), "contradicts itself"),
        (changed(|operator| operator.states.push(operator.states[0].clone())), "two states `total`"),
    ];
    for (manifest, expected) in table {
        let error = manifest.validate().unwrap_err().to_string();
        assert!(error.contains(expected), "{error} should contain {expected}");
    }
    let good = manifest(&[source(), count()]);
    good.validate().unwrap();
    let text = serde_json::to_string(&good).unwrap();
    assert!(text.contains(r#""id":"0000000000000007""#), "{text}");
    assert_eq!(serde_json::from_str::<StateManifest>(&text).unwrap(), good);
}

#[test]
fn a_source_may_get_splits_and_not_lose_them() {
    let splits = OperatorManifest {
        states: vec![state("position", StateKind::Splits, Schema::primitive("bytes"))],
        ..source()
    };
    assert!(check(&manifest(&[source()]), &manifest(std::slice::from_ref(&splits)), false).is_accepted());
    assert!(!check(&manifest(&[splits]), &manifest(&[source()]), false).is_accepted());
}

#[test]
fn a_checkpoint_wants_every_state_as_it_was_written_and_operators_may_come_and_go() {
    let old = manifest(&[source(), count()]);
    let with_default = field("venue", "u8").with_default(vec![0]);
    let sum = OperatorManifest { id: OperatorId(9), uid: Some("s".into()), ..count() };
    let splits = state("position", StateKind::Splits, Schema::primitive("bytes"));
    let table = [
        (manifest(&[source(), count()]), vec![]),
        (manifest(&[source(), count(), sum.clone()]), vec![]),
        (manifest(&[source()]), vec![]),
        (changed(|operator| operator.parallelism = 8), vec![]),
        (
            changed(|operator| {
                operator.states = vec![total(&[field("records", "u64"), with_default.clone()])]
            }),
            vec!["state `total` of `count` (uid `c1`): `records` is widened", "field `venue` is added"],
        ),
        (
            changed(|operator| operator.states[0].name = "sum".into()),
            vec![
                "state `sum` of `count` (uid `c1`) is new",
                "state `total` of `count` (uid `c1`) is not declared",
            ],
        ),
        (
            changed(|operator| {
                operator.states[0] = state("total", StateKind::List, Schema::primitive("u32"))
            }),
            vec!["was a value state and is a list state now"],
        ),
        (
            changed(|operator| operator.key_schema = Some(u64::schema())),
            vec!["the type of the keys of `count`"],
        ),
        (
            manifest(&[OperatorManifest { states: vec![splits], ..source() }, count()]),
            vec!["state `position` of `lines` is stored in another form now"],
        ),
    ];
    for (new, expected) in table {
        let found = differences(&old, &new);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.contains(expected), "{found} should contain {expected}");
        }
    }
}
