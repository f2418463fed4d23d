//! One source, step or sink of the file, as its kind sees it.

use serde::de::DeserializeOwned;

use super::node::Node;
use super::problem::Problem;

/// The settings of one source, step or sink. The plan has checked them against the kind's schema before a kind sees
/// them, and has taken `kind` and `from` out.
#[derive(Clone, Debug)]
pub struct Section {
    /// The name it has in the file.
    pub name: String,
    node: Node,
}

impl Section {
    /// A section of these settings.
    pub fn new(name: impl Into<String>, node: Node) -> Self {
        Section {
            name: name.into(),
            node,
        }
    }

    /// A section from YAML text, for tests and doc examples.
    ///
    /// # Panics
    /// When the text is no YAML.
    #[allow(clippy::expect_used)]
    pub fn from_yaml(name: &str, yaml: &str) -> Self {
        Section::new(name, super::node::parse("section.yaml", yaml).expect("YAML"))
    }

    /// The settings as a kind's configuration type.
    ///
    /// # Errors
    /// What serde finds first, at its path. Checking against the schema has found the rest before.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        serde_path_to_error::deserialize(self.node.to_json()).map_err(|e| {
            let path = e.path().iter().map(ToString::to_string).collect();
            vec![Problem {
                path,
                offset: 0,
                on_key: false,
                message: e.into_inner().to_string(),
                hint: None,
            }]
        })
    }

    /// The settings with their positions.
    pub fn node(&self) -> &Node {
        &self.node
    }
}
