//! State as lines of JSON, one for each entry or item: what is exported, and what a savepoint is built from.
//!
//! `{"operator":"count","state":"total","group":17,"key":"a","value":3}`, with `map_key` for a map state;
//! `{"operator":"lines","item":"00ff"}` for a source or sink, whose items only their connector understands. A value of a state with a
//! time to live is `{"since_ms":1700000000000,"value":3}`, with the time from which it lives. When lines are read,
//! `group` may be missing, because the key tells it, and `"delete":true` in place of `value` takes an entry away.

use serde::Serialize;
use serde_json::{Map, Value};
use thalweg_common::entries::Entry;
use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::KeyGroup;
use thalweg_common::manifest::OperatorManifest;
use thalweg_common::schema::json::{JsonError, to_json};
use thalweg_common::schema::{Encoded, Schema};

use crate::error::SavepointError;

/// A line of an export.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// An entry of keyed state.
    Entry(EntryLine),
    /// An item of a source or sink.
    Item(ItemLine),
}

/// An entry of keyed state.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntryLine {
    /// The operator's uid, or its id if it has none.
    pub operator: String,
    /// The state's name.
    pub state: String,
    /// The key group.
    pub group: KeyGroup,
    /// The key.
    pub key: Value,
    /// In a map state the key in the map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_key: Option<Value>,
    /// The value.
    pub value: Value,
}

/// An item of a source or sink.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ItemLine {
    /// The operator's uid, or its id if it has none.
    pub operator: String,
    /// Its bytes.
    pub item: Encoded,
}

/// How a line calls the operator.
pub(crate) fn reference(operator: &OperatorManifest) -> String {
    operator.uid.clone().unwrap_or_else(|| operator.id.to_string())
}

/// Shows an entry.
pub(crate) fn show(
    operator: &OperatorManifest,
    state: &StateDescriptor,
    group: KeyGroup,
    entry: Entry<'_>,
) -> Result<EntryLine, SavepointError> {
    let not_shown = |reason: JsonError| SavepointError::NotShown {
        operator: operator.label(),
        state: state.name.clone(),
        reason,
    };
    let shown = |schema: &Schema, mut bytes: &[u8]| to_json(schema, &mut bytes).map_err(not_shown);
    let unit = Schema::Tuple(Vec::new());
    let (map_key, value) = match (state.kind, &state.schema) {
        (kind, Schema::Map(key, value)) if kind.is_map() => (Some(key.as_ref()), value.as_ref()),
        (_, schema) => (None, schema),
    };
    Ok(EntryLine {
        operator: reference(operator),
        state: state.name.clone(),
        group,
        key: shown(operator.key_schema.as_ref().unwrap_or(&unit), entry.key)?,
        map_key: map_key.zip(entry.map_key).map(|(schema, bytes)| shown(schema, bytes)).transpose()?,
        value: shown(value, entry.value)?,
    })
}

/// A line that is read, in its parts.
pub(crate) enum Read {
    Entry { operator: String, state: String, key: Value, map_key: Option<Value>, value: Option<Value> },
    Item { operator: String, item: Vec<u8> },
}

/// Reads a line. The error says what should stand there.
pub(crate) fn read(text: &str) -> Result<Read, String> {
    const EXAMPLE: &str = r#"write {"operator":"uid","state":"name","key":...,"value":...}"#;
    let mut line: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON object ({error}); {EXAMPLE}"))?;
    let mut text_of = |name: &str| match line.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("`{name}` must be a text; {EXAMPLE}")),
        None => Err(format!("it has no `{name}`; {EXAMPLE}")),
    };
    let operator = text_of("operator")?;
    if line.contains_key("item") {
        let item = line.remove("item").unwrap_or_default();
        only_known(&line, EXAMPLE)?;
        let item: Encoded = serde_json::from_value(item).map_err(|error| format!("`item`: {error}"))?;
        return Ok(Read::Item { operator, item: item.0 });
    }
    let mut text_of = |name: &str| match line.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(format!("it has no text `{name}`; {EXAMPLE}")),
    };
    let state = text_of("state")?;
    let key = line.remove("key").ok_or_else(|| format!("it has no `key`; {EXAMPLE}"))?;
    let map_key = line.remove("map_key");
    let value = match (line.remove("value"), line.remove("delete")) {
        (value @ Some(_), None | Some(Value::Bool(false))) => value,
        (None, Some(Value::Bool(true))) => None,
        (Some(_), _) => return Err("it has a `value` and `delete`; leave one of them out".into()),
        (None, _) => {
            return Err(format!("it has no `value`; {EXAMPLE}, or \"delete\":true in place of the value"));
        }
    };
    line.remove("group");
    only_known(&line, EXAMPLE)?;
    Ok(Read::Entry { operator, state, key, map_key, value })
}

fn only_known(line: &Map<String, Value>, example: &str) -> Result<(), String> {
    match line.keys().next() {
        Some(unknown) => Err(format!("nobody knows what `{unknown}` means; {example}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn lines_say_what_is_wrong_with_them() {
        let table = [
            ("x", "it is no JSON object"),
            ("{}", "it has no `operator`"),
            (r#"{"operator":7}"#, "`operator` must be a text"),
            (r#"{"operator":"a"}"#, "it has no text `state`"),
            (r#"{"operator":"a","state":"s"}"#, "it has no `key`"),
            (r#"{"operator":"a","state":"s","key":1}"#, "it has no `value`"),
            (r#"{"operator":"a","state":"s","key":1,"value":2,"delete":true}"#, "leave one of them out"),
            (
                r#"{"operator":"a","state":"s","key":1,"value":2,"vlaue":3}"#,
                "nobody knows what `vlaue` means",
            ),
            (r#"{"operator":"a","item":"0"}"#, "`item`: an even number of hexadecimal digits"),
        ];
        for (text, expected) in table {
            let error = read(text).err().unwrap();
            assert!(error.contains(expected), "{error} should contain {expected}");
        }
        let null = read(r#"{"operator":"a","state":"s","key":1,"group":3,"value":null}"#).ok().unwrap();
        assert!(matches!(null, Read::Entry { value: Some(Value::Null), .. }));
        let delete = read(r#"{"operator":"a","state":"s","key":1,"delete":true}"#).ok().unwrap();
        assert!(matches!(delete, Read::Entry { value: None, .. }));
    }
}
