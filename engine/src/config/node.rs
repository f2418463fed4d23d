//! A YAML, TOML or JSON file as a tree with positions.

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};
use serde::Serialize;
use serde_json::Value;

use super::problem::Diagnostic;

/// A place in a file, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where its text begins.
    pub at: Position,
    /// The value.
    pub kind: NodeKind,
}

/// A value of a configuration file.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys with values, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub name: String,
    /// Where it stands.
    pub at: Position,
}

/// Reads a configuration file. The name's ending tells the format: `.toml` is TOML, all else YAML (of which JSON is a
/// part).
///
/// # Errors
/// The first place where the text breaks the format's rules.
pub fn parse(file: &str, text: &str) -> Result<Node, Diagnostic> {
    let broken = |at, message: String| Diagnostic {
        file: file.to_owned(),
        at,
        message,
        hint: None,
    };
    if file.ends_with(".toml") {
        return parse_toml(text).map_err(|(at, message)| broken(at, message));
    }
    let documents = MarkedYaml::load_from_str(text).map_err(|e| {
        let mark = e.marker();
        if e.info().starts_with("duplicated key") {
            let line = text.lines().nth(mark.line().saturating_sub(1)).unwrap_or_default();
            let key: String = line.chars().skip(mark.col()).take_while(|c| *c != ':').collect();
            let at = Position {
                line: mark.line(),
                column: mark.col() + 1,
            };
            return broken(at, format!("the key `{key}` stands here a second time"));
        }
        broken(
            Position {
                line: mark.line(),
                column: mark.col() + 1,
            },
            e.info().to_owned(),
        )
    })?;
    match documents.as_slice() {
        [] => Ok(Node {
            at: Position { line: 1, column: 1 },
            kind: NodeKind::Map(Vec::new()),
        }),
        [document] => from_yaml(document).map_err(|(at, message)| broken(at, message)),
        [_, second, ..] => Err(broken(
            position(second),
            "a second document begins here; one file is one pipeline".into(),
        )),
    }
}

fn position(node: &MarkedYaml<'_>) -> Position {
    Position {
        line: node.span.start.line(),
        column: node.span.start.col() + 1,
    }
}

fn from_yaml(node: &MarkedYaml<'_>) -> Result<Node, (Position, String)> {
    let at = position(node);
    let kind = match &node.data {
        YamlData::Value(Scalar::Null) => NodeKind::Null,
        YamlData::Value(Scalar::Boolean(b)) => NodeKind::Bool(*b),
        YamlData::Value(Scalar::Integer(i)) => NodeKind::Int(*i),
        YamlData::Value(Scalar::FloatingPoint(f)) => NodeKind::Float(f.into_inner()),
        YamlData::Value(Scalar::String(s)) => NodeKind::Text(s.to_string()),
        YamlData::Sequence(items) => NodeKind::List(items.iter().map(from_yaml).collect::<Result<_, _>>()?),
        YamlData::Mapping(entries) => {
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                map.push((key_of(key)?, from_yaml(value)?));
            }
            NodeKind::Map(map)
        }
        YamlData::Tagged(tag, _) => return Err((at, format!("the tag `{tag}` has no meaning here"))),
        _ => return Err((at, "this value can't be read".into())),
    };
    Ok(Node { at, kind })
}

fn key_of(key: &MarkedYaml<'_>) -> Result<Key, (Position, String)> {
    let at = position(key);
    match from_yaml(key)?.kind {
        NodeKind::Text(name) => Ok(Key { name, at }),
        NodeKind::Int(number) => Ok(Key {
            name: number.to_string(),
            at,
        }),
        NodeKind::Bool(value) => Ok(Key {
            name: value.to_string(),
            at,
        }),
        _ => Err((at, "a key must be a text".into())),
    }
}

fn parse_toml(text: &str) -> Result<Node, (Position, String)> {
    let place = |offset: usize| {
        let before = &text[..offset.min(text.len())];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    };
    let table = toml::de::DeTable::parse(text)
        .map_err(|e| (place(e.span().map_or(0, |span| span.start)), e.message().to_owned()))?;
    from_toml_table(table.get_ref(), place(table.span().start), &place)
}

fn from_toml_table(
    table: &toml::de::DeTable<'_>,
    at: Position,
    place: &impl Fn(usize) -> Position,
) -> Result<Node, (Position, String)> {
    let mut map = Vec::with_capacity(table.len());
    for (key, value) in table.iter() {
        map.push((
            Key {
                name: key.get_ref().to_string(),
                at: place(key.span().start),
            },
            from_toml(value, place)?,
        ));
    }
    map.sort_by_key(|(key, _)| key.at);
    Ok(Node {
        at,
        kind: NodeKind::Map(map),
    })
}

fn from_toml(
    value: &toml::Spanned<toml::de::DeValue<'_>>,
    place: &impl Fn(usize) -> Position,
) -> Result<Node, (Position, String)> {
    use toml::de::DeValue;
    let at = place(value.span().start);
    let kind = match value.get_ref() {
        DeValue::String(s) => NodeKind::Text(s.to_string()),
        DeValue::Integer(i) => {
            let number = i64::from_str_radix(i.as_str(), i.radix());
            NodeKind::Int(number.map_err(|e| (at, format!("`{i}`: {e}")))?)
        }
        DeValue::Float(f) => NodeKind::Float(f.as_str().parse().map_err(|e| (at, format!("`{f}`: {e}")))?),
        DeValue::Boolean(b) => NodeKind::Bool(*b),
        DeValue::Datetime(d) => NodeKind::Text(d.to_string()),
        DeValue::Array(items) => NodeKind::List(items.iter().map(|v| from_toml(v, place)).collect::<Result<_, _>>()?),
        DeValue::Table(table) => return from_toml_table(table, at, place),
    };
    Ok(Node { at, kind })
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|(key, _)| key.name == name)
            .map(|(_, node)| node)
    }

    /// Keys and values; none if this is no map.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            NodeKind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a path of keys and list indices; as deep as the path can be followed.
    pub fn follow(&self, path: &[String]) -> &Node {
        let Some((first, rest)) = path.split_first() else {
            return self;
        };
        let next = match &self.kind {
            NodeKind::List(items) => first.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => self.get(first),
        };
        next.map_or(self, |node| node.follow(rest))
    }

    /// What sort of value it is, in words.
    pub fn sort(&self) -> &'static str {
        match self.kind {
            NodeKind::Null => "nothing",
            NodeKind::Bool(_) => "a boolean",
            NodeKind::Int(_) => "a whole number",
            NodeKind::Float(_) => "a number",
            NodeKind::Text(_) => "a text",
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a map",
        }
    }

    /// The same value without positions.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            NodeKind::Null => Value::Null,
            NodeKind::Bool(b) => (*b).into(),
            NodeKind::Int(i) => (*i).into(),
            NodeKind::Float(f) => (*f).into(),
            NodeKind::Text(s) => s.clone().into(),
            NodeKind::List(items) => items.iter().map(Node::to_json).collect(),
            NodeKind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, node)| (key.name.clone(), node.to_json()))
                    .collect(),
            ),
        }
    }
}
