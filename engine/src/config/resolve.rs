//! Values from outside the file: `{env: NAME, default: x}`, `{file: PATH}` and `--set PATH=VALUE`.

use super::node::{Key, Node, NodeKind, Position, parse};
use super::problem::Problem;

/// Replaces typed scalars from the environment and from secret files. Values are never pasted into other text.
pub(crate) fn resolve(node: &mut Node, env: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<(Position, Problem)>) {
    let at = node.at;
    let keys: Vec<&str> = node.entries().iter().map(|(key, _)| key.name.as_str()).collect();
    match keys.as_slice() {
        ["env"] | ["env", "default"] | ["default", "env"] => match from_environment(node, env) {
            Ok(value) => *node = Node { at, ..value },
            Err(problem) => problems.push((at, problem)),
        },
        ["file"] => match from_file(node) {
            Ok(text) => node.kind = NodeKind::Text(text),
            Err(problem) => problems.push((at, problem)),
        },
        _ => match &mut node.kind {
            NodeKind::Map(entries) => entries.iter_mut().for_each(|(_, value)| resolve(value, env, problems)),
            NodeKind::List(items) => items.iter_mut().for_each(|value| resolve(value, env, problems)),
            _ => {}
        },
    }
}

fn from_environment(node: &Node, env: &dyn Fn(&str) -> Option<String>) -> Result<Node, Problem> {
    let name = node
        .get("env")
        .and_then(Node::text)
        .ok_or_else(|| Problem::at("", "`env` wants the name of a variable"))?;
    match (env(name), node.get("default")) {
        (Some(value), _) => Ok(scalar(&value)),
        (None, Some(default)) => Ok(default.clone()),
        (None, None) => {
            let problem = Problem::at("", format!("the environment has no variable `{name}`"));
            Err(problem.hint(format!("set it, or write {{env: {name}, default: ...}}")))
        }
    }
}

fn from_file(node: &Node) -> Result<String, Problem> {
    let path = node
        .get("file")
        .and_then(Node::text)
        .ok_or_else(|| Problem::at("", "`file` wants a path"))?;
    let text = std::fs::read_to_string(path).map_err(|e| Problem::at("", format!("{path}: {e}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A scalar as YAML would read it: `5` is a number, `true` a boolean, all else a text.
fn scalar(text: &str) -> Node {
    match parse("scalar", text) {
        Ok(node) if !matches!(node.kind, NodeKind::Map(_) | NodeKind::List(_)) => node,
        _ => Node {
            at: Position::default(),
            kind: NodeKind::Text(text.to_owned()),
        },
    }
}

/// A value given on the command line for one run: keys from the top of the file, and the value as YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    path: Vec<String>,
    value: String,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not of the form PATH=VALUE, like sources.plc.url=mqtt://host:1883");
        let (path, value) = text.split_once('=').ok_or_else(form)?;
        let path: Vec<String> = path.split('.').map(|key| key.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(form());
        }
        Ok(Override {
            path,
            value: value.to_owned(),
        })
    }
}

impl Override {
    /// Overrides the value at `path` (keys joined by dots).
    pub fn new(path: &str, value: impl Into<String>) -> Self {
        Override {
            path: path.split('.').map(str::to_owned).collect(),
            value: value.into(),
        }
    }

    /// Puts the value in its place. Its position is line 0, which stands for the command line.
    pub(crate) fn apply(&self, root: &mut Node) {
        let mut place = root;
        for key in &self.path {
            place = child(place, key);
        }
        let mut value = match parse("--set", &self.value) {
            Ok(node) if !self.value.is_empty() => node,
            _ => Node {
                at: Position::default(),
                kind: NodeKind::Text(self.value.clone()),
            },
        };
        forget_positions(&mut value);
        *place = value;
    }

    /// As it stood on the command line.
    pub(crate) fn text(&self) -> String {
        format!("{}={}", self.path.join("."), self.value)
    }
}

/// The value of `key` in `node`, made if it isn't there. What isn't a map becomes one; the check against the schema says if
/// that was wrong.
fn child<'a>(node: &'a mut Node, key: &str) -> &'a mut Node {
    let in_list = matches!(&node.kind, NodeKind::List(items) if key.parse::<usize>().is_ok_and(|i| i < items.len()));
    if !in_list && !matches!(node.kind, NodeKind::Map(_)) {
        node.kind = NodeKind::Map(Vec::new());
    }
    if let NodeKind::Map(entries) = &mut node.kind
        && !entries.iter().any(|(known, _)| known.name == key)
    {
        let nothing = Node {
            at: Position::default(),
            kind: NodeKind::Null,
        };
        entries.push((
            Key {
                name: key.to_owned(),
                at: Position::default(),
            },
            nothing,
        ));
    }
    let children: Vec<&mut Node> = match &mut node.kind {
        NodeKind::List(items) => items.iter_mut().collect(),
        NodeKind::Map(entries) => entries
            .iter_mut()
            .filter(|(known, _)| known.name == key)
            .map(|(_, v)| v)
            .collect(),
        _ => Vec::new(),
    };
    let index = if in_list { key.parse().unwrap_or(0) } else { 0 };
    children
        .into_iter()
        .nth(index)
        .unwrap_or_else(|| unreachable!("the child was there or made above"))
}

fn forget_positions(node: &mut Node) {
    node.at = Position::default();
    match &mut node.kind {
        NodeKind::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            key.at = Position::default();
            forget_positions(value);
        }),
        NodeKind::List(items) => items.iter_mut().for_each(forget_positions),
        _ => {}
    }
}
