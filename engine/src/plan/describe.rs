//! A plan as text and as a drawing.

use std::fmt::{self, Write};

use super::{Edge, Plan};

impl fmt::Display for Plan {
    /// Every node with its inputs, and the columns of the edge it gives.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pipeline {}", self.name)?;
        for (i, source) in self.sources.iter().enumerate() {
            writeln!(f, "source {} ({})", source.name, source.kind)?;
            self.columns(f, Edge::Source(i))?;
        }
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(
                f,
                "step {} ({}) from {}",
                step.name,
                step.kind,
                self.names(&step.inputs)
            )?;
            self.columns(f, Edge::Step(i))?;
        }
        for sink in &self.sinks {
            writeln!(
                f,
                "sink {} ({}) from {}",
                sink.name,
                sink.kind,
                self.names(&sink.inputs)
            )?;
        }
        Ok(())
    }
}

impl Plan {
    fn names(&self, edges: &[Edge]) -> String {
        let names: Vec<&str> = edges.iter().map(|edge| self.edge_name(*edge)).collect();
        names.join(", ")
    }

    fn columns(&self, f: &mut fmt::Formatter<'_>, edge: Edge) -> fmt::Result {
        let table = self.table(edge);
        let columns: Vec<String> = table
            .schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), short(field.data_type())))
            .collect();
        writeln!(f, "  -> {}: {}", table.name, columns.join(", "))
    }

    /// The graph in Mermaid's language, which GitHub and many editors draw.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for source in &self.sources {
            let _ = writeln!(text, "  {}([{}: {}])", id(&source.name), source.name, source.kind);
        }
        for step in &self.steps {
            let _ = writeln!(text, "  {}[{}: {}]", id(&step.name), step.name, step.kind);
        }
        for (i, sink) in self.sinks.iter().enumerate() {
            let _ = writeln!(text, "  sink{i}[({}: {})]", sink.name, sink.kind);
        }
        let steps = self.steps.iter().map(|step| (id(&step.name), &step.inputs));
        let sinks = self
            .sinks
            .iter()
            .enumerate()
            .map(|(i, sink)| (format!("sink{i}"), &sink.inputs));
        for (to, inputs) in steps.chain(sinks) {
            for edge in inputs
                .iter()
                .filter(|edge| !matches!(edge, Edge::Late | Edge::DeadLetters))
            {
                let _ = writeln!(
                    text,
                    "  {} -- {} --> {to}",
                    id(self.edge_name(*edge)),
                    self.table(*edge).name
                );
            }
        }
        text
    }
}

/// A name that Mermaid takes as a node: `end` and the like are words of its own.
fn id(name: &str) -> String {
    format!("n_{}", name.replace('-', "_"))
}

fn short(data_type: &arrow::datatypes::DataType) -> String {
    use arrow::datatypes::DataType as T;
    match data_type {
        T::Dictionary(_, value) => format!("name({})", short(value)),
        T::Timestamp(..) => "timestamp".into(),
        T::List(item) => format!("[{}]", short(item.data_type())),
        T::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|f| format!("{} {}", f.name(), short(f.data_type())))
                .collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}
