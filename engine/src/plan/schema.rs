//! The JSON schema of pipeline files, for editors.

use schemars::{Schema, json_schema};
use serde_json::{Map, Value, json};

use super::compile::PipelineFile;
use crate::kind::Catalog;

/// The JSON schema of a pipeline file with these kinds.
pub fn schema(catalog: &Catalog) -> Schema {
    let mut root = schemars::schema_for!(PipelineFile);
    let sources = catalog.sources.iter();
    let sources = sources.map(|kind| branch("source", kind.name, kind.summary, (kind.schema)()));
    let steps = catalog.steps.iter();
    let steps = steps.map(|kind| branch("step", kind.name, kind.summary, (kind.schema)()));
    let sinks = catalog.sinks.iter();
    let sinks = sinks.map(|kind| branch("sink", kind.name, kind.summary, (kind.schema)()));
    let parts: [(&str, Vec<Value>); 3] = [
        ("sources", sources.collect()),
        ("steps", steps.collect()),
        ("sinks", sinks.collect()),
    ];
    let mut definitions = Map::from_iter([("elsewhere".to_owned(), elsewhere())]);
    for (part, mut branches) in parts {
        for branch in &mut branches {
            if let Some(Value::Object(own)) = branch.as_object_mut().and_then(|b| b.remove("$defs")) {
                definitions.extend(own);
            }
        }
        if let Some(Value::Object(rules)) = root.pointer_mut(&format!("/properties/{part}")) {
            let entry = json_schema!({"oneOf": branches}).to_value();
            rules.insert("additionalProperties".into(), entry);
        }
    }
    let all = root.ensure_object();
    let all = all.entry("$defs").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(all) = all {
        all.extend(definitions);
    }
    root
}

/// A value from the environment or a secret file, which may stand for any scalar.
fn elsewhere() -> Value {
    json!({"oneOf": [
        {"type": "object", "additionalProperties": false, "required": ["env"], "properties": {
            "env": {"type": "string", "description": "Name of an environment variable."},
            "default": {"type": ["string", "number", "boolean"], "description": "Its value when it is not set."}}},
        {"type": "object", "additionalProperties": false, "required": ["file"], "properties": {
            "file": {"type": "string", "description": "A file that holds the value, like a secret."}}},
    ]})
}

fn branch(role: &str, name: &str, summary: &str, schema: Schema) -> Value {
    let mut schema = schema.to_value();
    // Two kinds may have a type of one name.
    let prefix = format!("{role}-{name}-");
    open_up(&mut schema, &prefix);
    let Value::Object(rules) = &mut schema else {
        return schema;
    };
    rules.remove("$schema");
    rules.insert("description".into(), summary.into());
    if let Some(Value::Object(own)) = rules.remove("$defs") {
        let own = own
            .into_iter()
            .map(|(name, schema)| (format!("{prefix}{name}"), schema));
        rules.insert("$defs".into(), Value::Object(own.collect()));
    }
    let properties = rules.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    let mut asked = vec!["kind"];
    if let Value::Object(properties) = properties {
        properties.insert("kind".into(), json!({"const": name}));
        if role != "source" {
            let names = json!({"type": ["string", "array"], "items": {"type": "string"}});
            properties.insert("from".into(), names);
            asked.push("from");
        }
    }
    let required = rules.entry("required").or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(required) = required {
        required.extend(asked.into_iter().map(Value::from));
    }
    schema
}

/// Lets `elsewhere` stand for the scalars among a kind's settings, and makes its references point to `prefix`ed
/// definitions.
fn open_up(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(|item| open_up(item, prefix)),
        Value::Object(rules) => {
            if let Some(Value::String(target)) = rules.get_mut("$ref") {
                *target = target.replace("#/$defs/", &format!("#/$defs/{prefix}"));
            }
            rules.values_mut().for_each(|value| open_up(value, prefix));
            if let Some(Value::Object(properties)) = rules.get_mut("properties") {
                for value in properties.values_mut().filter(|value| is_scalar(value)) {
                    *value = json!({"anyOf": [value.take(), {"$ref": "#/$defs/elsewhere"}]});
                }
            }
        }
        _ => {}
    }
}

fn is_scalar(schema: &Value) -> bool {
    let one = |name: &str| matches!(name, "string" | "number" | "integer" | "boolean");
    match schema.get("type") {
        Some(Value::String(name)) => one(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(one),
        _ => false,
    }
}
