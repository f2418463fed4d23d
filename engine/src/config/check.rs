//! Checks a section against its kind's JSON schema and finds everything that is wrong at once.
//!
//! The part of JSON schema that `schemars` makes of our configuration types is understood, no more.

use serde_json::{Map, Value};

use super::node::{Node, NodeKind};
use super::problem::{Problem, did_you_mean};
use super::units::{Interval, Percent};

/// All problems of `node` under `schema`, in the order of the file.
pub(crate) fn check(schema: &schemars::Schema, node: &Node) -> Vec<Problem> {
    let mut checker = Checker {
        root: schema.as_value(),
        path: Vec::new(),
        problems: Vec::new(),
    };
    checker.value(schema.as_value(), node);
    checker.problems
}

struct Checker<'a> {
    root: &'a Value,
    path: Vec<String>,
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn value(&mut self, schema: &'a Value, node: &Node) {
        let schema = self.resolve(schema);
        let Value::Object(rules) = schema else { return };
        if let Some(choices) = rules.get("oneOf").or(rules.get("anyOf")).and_then(Value::as_array) {
            return self.choice(choices, node);
        }
        if !allows_type(rules, node) {
            return self.problem(format!("expected {}, found {}", describe(rules), node.sort()), None);
        }
        self.scalar(rules, node);
        match &node.kind {
            NodeKind::Map(_) => self.map(rules, node),
            NodeKind::List(items) => {
                if let Some(schema) = rules.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.within(index.to_string(), |checker| checker.value(schema, item));
                    }
                }
            }
            _ => {}
        }
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let Some(pointer) = schema.get("$ref").and_then(Value::as_str) else {
            return schema;
        };
        self.root.pointer(pointer.trim_start_matches('#')).unwrap_or(schema)
    }

    fn map(&mut self, rules: &'a Map<String, Value>, node: &Node) {
        let empty = Map::new();
        let properties = rules.get("properties").and_then(Value::as_object);
        let others = rules.get("additionalProperties");
        for (key, value) in node.entries() {
            let schema = properties.and_then(|known| known.get(&key.name));
            self.path.push(key.name.clone());
            match (schema, others) {
                (Some(schema), _) => self.value(schema, value),
                (None, Some(Value::Bool(false))) => {
                    let known = properties.unwrap_or(&empty).keys().map(String::as_str);
                    let hint = did_you_mean(&key.name, known);
                    self.problem(format!("unknown key `{}`", key.name), hint);
                    if let Some(problem) = self.problems.last_mut() {
                        problem.on_key = true;
                    }
                }
                (None, Some(schema @ Value::Object(_))) => self.value(schema, value),
                (None, _) => {}
            }
            self.path.pop();
        }
        for name in rules
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if node.get(name).is_none() {
                let hint = properties
                    .and_then(|known| known.get(name))
                    .and_then(|schema| schema.get("description"))
                    .and_then(Value::as_str)
                    .map(|text| format!("{name}: {}", first_sentence(text)));
                self.problem(format!("`{name}` is missing"), hint);
            }
        }
    }

    /// The branch with the fewest problems speaks for all, if its type fits at all.
    fn choice(&mut self, choices: &'a [Value], node: &Node) {
        let branches: Vec<&Value> = choices.iter().map(|choice| self.resolve(choice)).collect();
        // An enum with documented variants: a constant in each branch.
        let names: Option<Vec<&str>> = branches
            .iter()
            .map(|b| b.get("const").and_then(Value::as_str))
            .collect();
        if let (Some(names), Some(found)) = (names, node.text()) {
            if !names.contains(&found) {
                self.problem(format!("unknown value `{found}`"), did_you_mean(found, names));
            }
            return;
        }
        let mut best: Option<Vec<Problem>> = None;
        for (choice, branch) in choices.iter().zip(&branches) {
            let rules = branch.as_object();
            let fits = rules.is_some_and(|rules| rules.contains_key("anyOf") || allows_type(rules, node));
            if !fits || !shares_key(rules, node) {
                continue;
            }
            let mut attempt = Checker {
                root: self.root,
                path: self.path.clone(),
                problems: Vec::new(),
            };
            attempt.value(choice, node);
            if best.as_ref().is_none_or(|fewest| attempt.problems.len() < fewest.len()) {
                best = Some(attempt.problems);
            }
        }
        match best {
            Some(problems) => self.problems.extend(problems),
            None => self.no_branch(&branches, node),
        }
    }

    fn no_branch(&mut self, branches: &[&'a Value], node: &Node) {
        let rules: Vec<&Map<String, Value>> = branches.iter().filter_map(|branch| branch.as_object()).collect();
        let mut expected: Vec<String> = rules
            .iter()
            .map(|rules| describe(rules))
            .filter(|w| w != "nothing")
            .collect();
        expected.dedup();
        let known = rules
            .iter()
            .filter_map(|rules| rules.get("properties"))
            .filter_map(Value::as_object);
        let known: Vec<&str> = known
            .flat_map(|properties| properties.keys().map(String::as_str))
            .collect();
        let keys: Vec<&str> = node.entries().iter().map(|(key, _)| key.name.as_str()).collect();
        let (found, hint) = match keys.as_slice() {
            [] => (node.sort().to_owned(), None),
            [first, ..] => (format!("`{}`", keys.join("`, `")), did_you_mean(first, known)),
        };
        self.problem(format!("expected {}, found {found}", expected.join(" or ")), hint);
    }

    fn scalar(&mut self, rules: &Map<String, Value>, node: &Node) {
        let json = node.to_json();
        if let Some(allowed) = rules.get("enum").and_then(Value::as_array)
            && !allowed.contains(&json)
        {
            let names: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
            let found = node.text().unwrap_or_default();
            return self.problem(format!("unknown value `{found}`"), did_you_mean(found, names));
        }
        if let Some(only) = rules.get("const")
            && *only != json
        {
            return self.problem(format!("expected {only}"), None);
        }
        if let (Some(text), Some(format)) = (node.text(), rules.get("format").and_then(Value::as_str)) {
            let wrong = match format {
                "interval" => text.parse::<Interval>().err(),
                "percent" => text.parse::<Percent>().err(),
                _ => None,
            };
            if let Some(message) = wrong {
                self.problem(message, None);
            }
        }
        let bound = |name: &str| rules.get(name).and_then(Value::as_f64);
        if let (Some(least), Some(most), Some(number)) = (bound("minimum"), bound("maximum"), json.as_f64())
            && least == most
            && number != least
        {
            return self.problem(format!("must be {least}"), None);
        }
        if let (Some(number), Some(least)) = (json.as_f64(), rules.get("minimum").and_then(Value::as_f64))
            && number < least
        {
            self.problem(format!("must be at least {least}"), None);
        }
        if let (Some(number), Some(most)) = (json.as_f64(), rules.get("maximum").and_then(Value::as_f64))
            && number > most
        {
            self.problem(format!("must be at most {most}"), None);
        }
    }

    fn within(&mut self, key: String, body: impl FnOnce(&mut Self)) {
        self.path.push(key);
        body(self);
        self.path.pop();
    }

    fn problem(&mut self, message: String, hint: Option<String>) {
        self.problems.push(Problem {
            path: self.path.clone(),
            offset: 0,
            on_key: false,
            message,
            hint,
        });
    }
}

fn types(rules: &Map<String, Value>) -> Vec<&str> {
    match rules.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn allows_type(rules: &Map<String, Value>, node: &Node) -> bool {
    let types = types(rules);
    let found: &[&str] = match &node.kind {
        NodeKind::Null => &["null"],
        NodeKind::Bool(_) => &["boolean"],
        NodeKind::Int(_) => &["integer", "number"],
        NodeKind::Float(f) if f.fract() == 0.0 => &["number", "integer"],
        NodeKind::Float(_) => &["number"],
        NodeKind::Text(_) => &["string"],
        NodeKind::List(_) => &["array"],
        NodeKind::Map(_) => &["object"],
    };
    types.is_empty() || types.iter().any(|allowed| found.contains(allowed))
}

/// For a map, a branch is only meant when it has one of the map's keys.
fn shares_key(rules: Option<&Map<String, Value>>, node: &Node) -> bool {
    let Some(properties) = rules
        .and_then(|rules| rules.get("properties"))
        .and_then(Value::as_object)
    else {
        return true;
    };
    let mut keys = node.entries().iter().map(|(key, _)| &key.name).peekable();
    keys.peek().is_none() || keys.any(|key| properties.contains_key(key))
}

fn describe(rules: &Map<String, Value>) -> String {
    if let Some(only) = rules.get("const") {
        return format!("`{}`", only.as_str().unwrap_or_default());
    }
    if let Some(names) = rules.get("enum").and_then(Value::as_array) {
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        return format!("one of {}", names.join(", "));
    }
    if let Some(properties) = rules.get("properties").and_then(Value::as_object) {
        let keys: Vec<String> = properties.keys().map(|key| format!("{key}: ...")).collect();
        return format!("{{{}}}", keys.join(", "));
    }
    let format = rules.get("format").and_then(Value::as_str);
    let words = types(rules).into_iter().map(|name| match (name, format) {
        ("string", Some("interval")) => "a length of time like 800ms",
        ("string", Some("percent")) => "a share like 10%",
        ("string", _) => "a text",
        ("integer", _) => "a whole number",
        ("number", _) => "a number",
        ("boolean", _) => "true or false",
        ("array", _) => "a list",
        ("object", _) => "a map",
        _ => "nothing",
    });
    let words: Vec<&str> = words.filter(|word| *word != "nothing").collect();
    if words.is_empty() {
        "nothing".into()
    } else {
        words.join(" or ")
    }
}

fn first_sentence(text: &str) -> String {
    let text = text.replace('\n', " ");
    text.split(". ")
        .next()
        .unwrap_or_default()
        .trim_end_matches('.')
        .to_owned()
}
