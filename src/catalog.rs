//! All kinds of this binary.

use taktline_engine::kind::Catalog;

/// Every source, step and sink that a pipeline file may name.
pub static CATALOG: Catalog = Catalog {
    sources: taktline_connectors::SOURCES,
    steps: taktline_operators::KINDS,
    sinks: taktline_connectors::SINKS,
};
