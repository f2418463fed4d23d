//! Presets: the pointers of known shapes of payload.

use super::config::{DecodeConfig, Format, Preset};
use crate::time::Unit;

/// The pointers of one shape. A preset may have several: the first whose pointers all lead to something counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shape {
    pub time: Option<String>,
    pub unit: Option<Unit>,
    pub value: Option<String>,
    pub text: Option<String>,
    pub values: Option<String>,
    pub machine: Option<String>,
    pub signal: Option<String>,
    /// Whether the document is a list; none if it may be either.
    pub is_list: Option<bool>,
}

/// The shapes that a configuration means: its preset's, with what it sets itself in their place.
pub(crate) fn shapes(config: &DecodeConfig) -> Vec<Shape> {
    let mut shapes = match config.preset {
        None => vec![Shape::default()],
        Some(preset) => expand(preset),
    };
    for shape in &mut shapes {
        let set = |own: &Option<String>, shape: &mut Option<String>| {
            if own.is_some() {
                shape.clone_from(own);
            }
        };
        set(&config.time, &mut shape.time);
        set(&config.value, &mut shape.value);
        set(&config.text, &mut shape.text);
        set(&config.values, &mut shape.values);
        set(&config.machine, &mut shape.machine);
        set(&config.signal, &mut shape.signal);
        shape.unit = config.unit.or(shape.unit);
        let no_content = shape.value.is_none() && shape.text.is_none() && shape.values.is_none();
        let default = |values: &str| no_content.then(|| values.to_owned());
        match config.format {
            Format::Csv | Format::Arrow => shape.values = shape.values.take().or(default("")),
            Format::Influx => {
                shape.values = shape.values.take().or(default("/fields"));
                shape.time = shape.time.take().or(Some("/time".to_owned()));
                shape.unit = shape.unit.or(Some(Unit::Ns));
            }
            _ => {}
        }
    }
    shapes
}

fn expand(preset: Preset) -> Vec<Shape> {
    let ms = Some(Unit::Ms);
    match preset {
        Preset::Wide => vec![values("", None, None)],
        Preset::Umh => vec![Shape {
            value: Some("/value".into()),
            ..values("", Some("/timestamp_ms"), ms).without_values()
        }],
        Preset::UmhTags => vec![values("", Some("/timestamp_ms"), ms)],
        Preset::Thingsboard => vec![
            values("/values", Some("/ts"), ms).in_object(),
            values("/*/values", Some("/*/ts"), ms).in_list(),
            values("/*", None, None).in_list(),
            values("", None, None).in_object(),
        ],
        Preset::ThingsboardGateway => vec![
            values("/*/*/values", Some("/*/*/ts"), ms).of_machine("/*").in_object(),
            values("/*/*", None, None).of_machine("/*").in_object(),
        ],
        Preset::Siemens => vec![
            data_points("/timeseries/*").in_object(),
            data_points("").in_object(),
            data_points("/*").in_list(),
            Shape {
                signal: Some("/vals/*/id".into()),
                value: Some("/vals/*/val".into()),
                ..values("", Some("/vals/*/ts"), Some(Unit::Rfc3339))
                    .without_values()
                    .in_object()
            },
            values("/*", Some("/*/_time"), Some(Unit::Rfc3339)).in_list(),
        ],
    }
}

fn values(values: &str, time: Option<&str>, unit: Option<Unit>) -> Shape {
    Shape {
        values: Some(values.to_owned()),
        time: time.map(str::to_owned),
        unit,
        ..Shape::default()
    }
}

/// Insights Hub: a time, and values that each name their data point.
fn data_points(below: &str) -> Shape {
    Shape {
        time: Some(format!("{below}/timestamp")),
        unit: Some(Unit::Rfc3339),
        signal: Some(format!("{below}/values/*/dataPointId")),
        value: Some(format!("{below}/values/*/value")),
        ..Shape::default()
    }
}

impl Shape {
    fn without_values(self) -> Shape {
        Shape { values: None, ..self }
    }

    fn in_object(self) -> Shape {
        Shape {
            is_list: Some(false),
            ..self
        }
    }

    fn in_list(self) -> Shape {
        Shape {
            is_list: Some(true),
            ..self
        }
    }

    fn of_machine(self, pointer: &str) -> Shape {
        Shape {
            machine: Some(pointer.to_owned()),
            ..self
        }
    }
}
