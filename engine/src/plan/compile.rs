//! From the text of a pipeline file to a plan, or to everything that is wrong with it.

use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

use super::durability::{CheckpointConfig, Durability, JournalConfig, KeysConfig, MemoryConfig, Sections};
use super::{Edge, Plan, PlannedSink, PlannedSource, PlannedStep};
use crate::config::{
    Diagnostic, Node, NodeKind, Override, Position, Problem, Section, check, did_you_mean, parse, resolve,
};
use crate::kind::{Catalog, Input, StepKind};

/// The part of a pipeline file that is the same for all kinds.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)] // read through its schema only
pub(super) struct PipelineFile {
    /// The version of the file format: 1.
    #[schemars(range(min = 1, max = 1))]
    version: u32,
    /// Name of the pipeline; the file's name else.
    name: Option<String>,
    /// Where rows come from, by name.
    sources: Map<String, Value>,
    /// What is done with them, by name.
    #[serde(default)]
    steps: Map<String, Value>,
    /// Where rows go, by name.
    #[serde(default)]
    sinks: Map<String, Value>,
    /// How often the state is kept, so that a crash costs no row.
    checkpoint: Option<CheckpointConfig>,
    /// How sources that can't give anything twice are made so.
    journal: Option<JournalConfig>,
    /// How long machines are remembered.
    keys: Option<KeysConfig>,
    /// How much memory the run may take.
    memory: Option<MemoryConfig>,
    /// Recorded inputs and what the pipeline must make of them, for `taktline test`.
    #[serde(default)]
    tests: Vec<PipelineTest>,
}

/// A recorded input and what the pipeline must make of it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code)] // read through its schema only
struct PipelineTest {
    /// What is shown.
    name: String,
    /// A CSV file with the columns machine, signal, ts, value, read in place of the sources.
    replay: String,
    /// Rows expected by table or step, for example `cycles: 12`.
    expect: std::collections::BTreeMap<String, u64>,
}

/// Compiles the text of a pipeline file.
///
/// `overrides` are applied first, then values from `env` and secret files. Pure but for what the file names to be read at once,
/// `{file: ...}` and a reference's `path`; inputs and targets are opened by the run.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn compile(
    file: &str,
    text: &str,
    overrides: &[Override],
    catalog: &Catalog,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Plan, Vec<Diagnostic>> {
    let (root, problems) = read(file, text, overrides, env).map_err(|diagnostic| vec![diagnostic])?;
    let mut compiler = Compiler {
        file,
        text,
        overrides,
        catalog,
        root: &root,
        found: Vec::new(),
    };
    let plan = compiler.plan();
    // A value that could not be had has one problem, not also a wrong type.
    compiler
        .found
        .retain(|diagnostic| !problems.iter().any(|(at, _)| *at == diagnostic.at));
    for (at, problem) in problems {
        compiler.report(at, problem.message, problem.hint);
    }
    let mut found = compiler.found;
    if found.is_empty() {
        return Ok(plan);
    }
    found.sort_by_key(|diagnostic| diagnostic.at);
    found.dedup();
    Err(found)
}

/// The file as it will be compiled: with overrides, and values from the environment and secret files in their places. Beside
/// it, where such a value could not be had.
///
/// # Errors
/// The text breaks the format's rules.
pub fn read(
    file: &str,
    text: &str,
    overrides: &[Override],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Node, Vec<(Position, Problem)>), Diagnostic> {
    let mut root = parse(file, text)?;
    for one in overrides {
        one.apply(&mut root);
    }
    let mut problems = Vec::new();
    resolve(&mut root, env, &mut problems);
    Ok((root, problems))
}

struct Compiler<'a> {
    file: &'a str,
    text: &'a str,
    overrides: &'a [Override],
    catalog: &'a Catalog,
    root: &'a Node,
    found: Vec<Diagnostic>,
}

/// A step as the file has it, before its inputs are known.
struct Draft<'a> {
    name: &'a str,
    kind: &'static StepKind,
    section: Section,
    from: Vec<(String, Position)>,
    at: Position,
}

impl<'a> Compiler<'a> {
    fn plan(&mut self) -> Plan {
        let stem = std::path::Path::new(self.file)
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or("pipeline");
        let name = self.root.get("name").and_then(Node::text).unwrap_or(stem).to_owned();
        let problems = check(&schemars::schema_for!(PipelineFile), self.root);
        self.report_all(self.root, problems);
        let durability = self.durability();
        let mut plan = Plan {
            name,
            sources: Vec::new(),
            steps: Vec::new(),
            sinks: Vec::new(),
            checkpoint_every: durability.checkpoint_every,
            journal: durability.journal,
            forget_after: durability.forget_after,
            memory_limit_bytes: durability.memory_limit_bytes,
        };
        self.sources(&mut plan);
        self.steps(&mut plan);
        self.sinks(&mut plan);
        plan
    }

    fn durability(&mut self) -> Durability {
        let section = |part| Some(Section::new(part, self.root.get(part)?.clone()));
        let durability = Durability::of(&Sections {
            checkpoint: section("checkpoint"),
            journal: section("journal"),
            keys: section("keys"),
            memory: section("memory"),
        });
        durability.unwrap_or_else(|problems| {
            for (part, problem) in problems {
                if let Some(node) = self.root.get(part) {
                    self.report_all(node, vec![problem]);
                }
            }
            Durability::default()
        })
    }

    fn sources(&mut self, plan: &mut Plan) {
        let kinds = self.catalog.sources;
        for (name, at, node) in self.entries("sources") {
            self.check_name(name, at);
            let Some(kind) = self.kind(node, kinds, |kind| kind.name) else {
                continue;
            };
            let Some(section) = self.section(name, node, (kind.schema)(), &["kind"]) else {
                continue;
            };
            match (kind.build)(&section) {
                Ok(source) => plan.sources.push(PlannedSource {
                    name: name.to_owned(),
                    kind: kind.name,
                    source,
                }),
                Err(problems) => self.report_all(section.node(), problems),
            }
        }
        if self.root.get("sources").is_some_and(|node| node.entries().is_empty()) {
            self.report(self.root.at, "a pipeline needs at least one source".into(), None);
        }
    }

    fn steps(&mut self, plan: &mut Plan) {
        let kinds = self.catalog.steps;
        let mut drafts: Vec<Draft<'a>> = Vec::new();
        for (name, at, node) in self.entries("steps") {
            self.check_name(name, at);
            if self.entries("sources").any(|(source, ..)| source == name) {
                self.report(at, format!("`{name}` is also the name of a source"), None);
            }
            let from = self.from(node, at);
            let Some(kind) = self.kind(node, kinds, |kind| kind.name) else {
                continue;
            };
            let section = self.section(name, node, (kind.schema)(), &["kind", "from"]);
            if let Some((section, from)) = section.zip(from) {
                drafts.push(Draft {
                    name,
                    kind,
                    section,
                    from,
                    at,
                });
            }
        }
        // Each round builds the steps whose inputs are there; what is left in the end waits for itself or for a step that
        // has a problem of its own.
        while let Some(ready) = drafts
            .iter()
            .position(|d| d.from.iter().all(|(name, _)| plan.edge(name).is_some()))
        {
            let draft = drafts.remove(ready);
            self.step(plan, draft);
        }
        for draft in &drafts {
            if waits_for_itself(draft.name, &drafts) {
                self.report(
                    draft.at,
                    format!("`{}` is part of a loop: it reads what it makes", draft.name),
                    None,
                );
            }
        }
    }

    fn step(&mut self, plan: &mut Plan, draft: Draft<'_>) {
        let inputs: Vec<Edge> = draft.from.iter().filter_map(|(name, _)| plan.edge(name)).collect();
        let Some(input) = self.joined(plan, &inputs, &draft.from) else {
            return;
        };
        let reads = draft.kind.reads;
        if !reads.is_empty() && !reads.contains(&input.table.name) {
            let message = format!(
                "`{}` reads {}, but `{}` gives {}",
                draft.kind.name,
                reads.join(" or "),
                input.name,
                input.table.name
            );
            let makers = self
                .catalog
                .steps
                .iter()
                .filter(|kind| kind.reads.contains(&input.table.name));
            let makers: Vec<&str> = makers.map(|kind| kind.name).collect();
            let hint = format!(
                "put a step between that makes {} (steps that read {}: {})",
                reads.join(" or "),
                input.table.name,
                makers.join(", ")
            );
            let at = draft.from.first().map_or(draft.at, |(_, at)| *at);
            return self.report(at, message, Some(hint));
        }
        match (draft.kind.build)(&draft.section, &input) {
            Ok(step) => {
                plan.steps.push(PlannedStep {
                    name: draft.name.to_owned(),
                    kind: draft.kind.name,
                    inputs,
                    step,
                });
            }
            Err(problems) => self.report_all(draft.section.node(), problems),
        }
    }

    /// Several inputs flow together as one; they must carry the same table.
    fn joined(&mut self, plan: &Plan, inputs: &[Edge], from: &[(String, Position)]) -> Option<Input> {
        let mut edges = inputs.iter().map(|edge| plan.input(*edge)).zip(from);
        let (first, _) = edges.next()?;
        for (other, (name, at)) in edges {
            if other.table.schema != first.table.schema {
                let message = format!(
                    "`{name}` gives {}, `{}` gives {}",
                    other.table.name, first.name, first.table.name
                );
                self.report(
                    *at,
                    message,
                    Some("the inputs of a step must carry the same columns".into()),
                );
                return None;
            }
        }
        Some(first)
    }

    fn sinks(&mut self, plan: &mut Plan) {
        let kinds = self.catalog.sinks;
        for (name, at, node) in self.entries("sinks") {
            self.check_name(name, at);
            let from = self.from(node, at);
            let Some(kind) = self.kind(node, kinds, |kind| kind.name) else {
                continue;
            };
            let section = self.section(name, node, (kind.schema)(), &["kind", "from"]);
            let Some((section, from)) = section.zip(from) else {
                continue;
            };
            let mut inputs: Vec<Edge> = from.iter().filter_map(|(name, _)| plan.edge(name)).collect();
            if inputs.len() < from.len() {
                continue; // an input has a problem of its own
            }
            if kind.takes_refused {
                inputs.extend([Edge::Late, Edge::DeadLetters]);
            }
            let tables: Vec<Input> = inputs.iter().map(|edge| plan.input(*edge)).collect();
            match (kind.build)(&section, &tables) {
                Ok(sink) => plan.sinks.push(PlannedSink {
                    name: name.to_owned(),
                    kind: kind.name,
                    inputs,
                    sink,
                }),
                Err(problems) => self.report_all(section.node(), problems),
            }
        }
    }

    fn entries(&self, part: &str) -> impl Iterator<Item = (&'a str, Position, &'a Node)> + use<'a> {
        let entries = self.root.get(part).map(Node::entries).unwrap_or_default();
        entries.iter().map(|(key, node)| (key.name.as_str(), key.at, node))
    }

    fn check_name(&mut self, name: &str, at: Position) {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            let hint = "use letters, digits, `_` and `-`".to_owned();
            self.report(at, format!("`{name}` can't be a name"), Some(hint));
        }
        if matches!(name, "late" | "dead_letters") {
            self.report(at, format!("`{name}` is the name of the engine's own rows"), None);
        }
    }

    fn kind<K>(&mut self, node: &Node, kinds: &'static [K], name: fn(&K) -> &'static str) -> Option<&'static K> {
        let Some(kind) = node.get("kind") else {
            let known: Vec<&str> = kinds.iter().map(name).collect();
            self.report(
                node.at,
                "`kind` is missing".into(),
                Some(format!("known: {}", known.join(", "))),
            );
            return None;
        };
        let wanted = kind.text().unwrap_or_default();
        let found = kinds.iter().find(|kind| name(kind) == wanted);
        if found.is_none() {
            let hint = did_you_mean(wanted, kinds.iter().map(name));
            self.report(kind.at, format!("unknown kind `{wanted}`"), hint);
        }
        found
    }

    /// The names under `from`, each known to be a source or step of the file.
    fn from(&mut self, node: &Node, at: Position) -> Option<Vec<(String, Position)>> {
        let Some(from) = node.get("from") else {
            self.report(
                at,
                "`from` is missing".into(),
                Some("name the source or step to read".into()),
            );
            return None;
        };
        let names = match &from.kind {
            NodeKind::List(items) if !items.is_empty() => items.iter().collect(),
            _ => vec![from],
        };
        let mut found = Vec::new();
        let mut good = true;
        for node in names {
            let Some(name) = node.text() else {
                self.report(
                    node.at,
                    format!("expected the name of a source or step, found {}", node.sort()),
                    None,
                );
                good = false;
                continue;
            };
            let mut known = self
                .entries("sources")
                .chain(self.entries("steps"))
                .map(|(name, ..)| name);
            if !known.any(|known| known == name) {
                let known = self
                    .entries("sources")
                    .chain(self.entries("steps"))
                    .map(|(name, ..)| name);
                let hint = did_you_mean(name, known);
                self.report(node.at, format!("there is no source or step `{name}`"), hint);
                good = false;
            }
            found.push((name.to_owned(), node.at));
        }
        good.then_some(found)
    }

    /// The settings of a kind without the keys that the plan itself reads, checked against the kind's schema.
    fn section(&mut self, name: &str, node: &Node, schema: Schema, without: &[&str]) -> Option<Section> {
        let settings = node
            .entries()
            .iter()
            .filter(|(key, _)| !without.contains(&key.name.as_str()))
            .cloned()
            .collect();
        let node = Node {
            at: node.at,
            kind: NodeKind::Map(settings),
        };
        let problems = check(&schema, &node);
        if problems.is_empty() {
            return Some(Section::new(name, node));
        }
        self.report_all(&node, problems);
        None
    }

    fn report_all(&mut self, section: &Node, problems: Vec<Problem>) {
        for problem in problems {
            let parent = problem
                .path
                .split_last()
                .map(|(last, path)| (section.follow(path), last));
            let key = parent.and_then(|(node, last)| node.entries().iter().find(|(key, _)| key.name == *last));
            let mut at = match key {
                Some((key, _)) if problem.on_key => key.at,
                _ => section.follow(&problem.path).at,
            };
            if problem.offset > 0 && at.line > 0 {
                at.column += problem.offset + usize::from(self.quoted(at));
            }
            self.report(at, problem.message, problem.hint);
        }
    }

    fn quoted(&self, at: Position) -> bool {
        let line = self.text.lines().nth(at.line - 1).unwrap_or_default();
        line.chars().nth(at.column - 1).is_some_and(|c| c == '"' || c == '\'')
    }

    fn report(&mut self, at: Position, message: String, hint: Option<String>) {
        let (file, at) = if at.line > 0 {
            (self.file.to_owned(), at)
        } else {
            let all: Vec<String> = self.overrides.iter().map(Override::text).collect();
            (format!("--set {}", all.join(" --set ")), at)
        };
        self.found.push(Diagnostic {
            file,
            at,
            message,
            hint,
        });
    }
}

fn waits_for_itself(name: &str, drafts: &[Draft<'_>]) -> bool {
    let mut seen: Vec<&str> = Vec::new();
    let mut next = vec![name];
    while let Some(step) = next.pop() {
        let Some(draft) = drafts.iter().find(|draft| draft.name == step) else {
            continue;
        };
        for (input, _) in &draft.from {
            if input == name {
                return true;
            }
            if !seen.contains(&input.as_str()) {
                seen.push(input);
                next.push(input);
            }
        }
    }
    false
}
