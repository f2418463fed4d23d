//! The `decode` section: how to read a payload, as the pipeline file says it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::time::Unit;
use crate::tls::TlsConfig;

/// How to read a payload.
///
/// `time`, `value`, `text`, `values`, `machine` and `signal` are pointers into the payload: `/reading/value`, `/list/0`, `""` for the
/// whole payload. A level `*` stands for each element of a list, or for each member of an object: with `value: /samples/*/value`
/// one payload gives many samples, and what stands beside the list (`time: /ts`) counts for all of them. Rows of CSV and Arrow
/// are read as objects of their columns (`time: /ts`), a line of the InfluxDB line protocol as an object with `measurement`,
/// `tags`, `fields` and `time`, Avro and Protobuf records as objects of their fields.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecodeConfig {
    /// What a payload is. `json` a document; `ndjson` a document in each line; `number` a bare number, `true` or `false`; `text` a
    /// text; `scalar` a bare number, `true`, `false` or else a text; `csv` lines of columns; `influx` lines of the InfluxDB line
    /// protocol; `avro`; `protobuf`; `arrow` an Arrow IPC stream. Default json
    #[serde(default)]
    pub format: Format,
    /// A known shape of payload, in place of the pointers below; what is set below counts before it.
    ///
    /// - `wide` an object of signals. The same as `values: ""`; `time` is left out of the signals
    /// - `umh` a tag of a United Manufacturing Hub. The same as `time: /timestamp_ms`, `unit: ms`, `value: /value`
    /// - `umh_tags` tag names beside `timestamp_ms`. The same as `time: /timestamp_ms`, `unit: ms`, `values: ""`
    /// - `thingsboard` the first of these that fits: `time: /ts, values: /values`; the same in a list, `time: /*/ts, values: /*/values`;
    ///   bare `values: ""` and in a list `values: /*`. With `unit: ms`
    /// - `thingsboard_gateway` the same below the name of a device: `machine: /*, time: /*/*/ts, values: /*/*/values`; without times
    ///   `machine: /*, values: /*/*`. With `unit: ms`
    /// - `siemens` the first of these that fits, with `unit: rfc3339`. Insights Hub: `time: /timeseries/*/timestamp,
    ///   signal: /timeseries/*/values/*/dataPointId, value: /timeseries/*/values/*/value`, without `timeseries` as one such element or
    ///   a list of them, and `time: /*/_time, values: /*`. Industrial Edge: `time: /vals/*/ts, signal: /vals/*/id, value: /vals/*/val`
    pub preset: Option<Preset>,
    /// Pointer to the time, for example `/timestamp_ms`. Default: the time of arrival
    pub time: Option<String>,
    /// Unit of the time. A time that makes sense in another unit only becomes a dead letter that names that unit. May be left out where the payload's schema says it (Avro, Protobuf, Arrow); `ns` by default for `influx`
    pub unit: Option<Unit>,
    /// Pointer to the value. A number or a boolean is taken as a number, a text that isn't one as a text
    pub value: Option<String>,
    /// Pointer to a text: a state or marker
    pub text: Option<String>,
    /// Pointer to an object of which each member is a signal, besides those that another pointer names; write "" for the whole
    /// payload. Objects and lists inside it are passed over. Default for `csv` and `arrow` "", for `influx` /fields
    pub values: Option<String>,
    /// Pointer to the name of the machine, which is then `{machine}`. One that ends with `*` gives the names of the members: of
    /// `{"press 1": {...}}` the text `press 1`
    pub machine: Option<String>,
    /// Pointer to the name of the signal, which is then `{signal}`; as `machine`
    pub signal: Option<String>,
    /// CSV: names of the columns, in order; leave a name empty to pass a column over
    pub columns: Option<Vec<String>>,
    /// CSV: true if the first line of each payload names the columns. Default false
    #[serde(default)]
    pub header: bool,
    /// CSV: what stands between the fields, one character or `tab`. Default `,`; `;` where the decimal mark is a comma
    pub delimiter: Option<String>,
    /// CSV: the decimal mark, `.` or `,`. Default `.`
    pub decimal: Option<Decimal>,
    /// Avro: file with the schema that the payloads were written with (`.avsc`), where no registry has it
    pub schema: Option<PathBuf>,
    /// Avro: the schema registry that knows the schemas that payloads name. While it is away, messages wait; after a minute the run
    /// ends with an error, and loses nothing
    pub registry: Option<RegistryConfig>,
    /// Protobuf: file with the descriptors, as `protoc --include_imports --descriptor_set_out=FILE` writes it
    pub descriptor: Option<PathBuf>,
    /// Protobuf: full name of the message type, for example `plant.Reading`
    pub message: Option<String>,
    /// What stands before the payload itself: `none`; `confluent` a zero byte and the schema's number, as serializers with a schema
    /// registry write it; `single_object` Avro's own two bytes and fingerprint. Default confluent where there is a `registry`, else
    /// none
    pub framing: Option<Framing>,
    /// Names of the signals that are taken, with `*` for any characters: `[pressure, "temp_*"]`. Others are left out and counted
    /// (`taktline_rows_left_out_total`); they are no dead letters. Default: all
    pub only: Option<Vec<String>>,
    /// What to do with single signals, by the name that they come with (`*` stands for any characters; an exact name counts before
    /// those with `*`, a longer one before a shorter one)
    #[serde(default)]
    pub signals: BTreeMap<String, SignalConfig>,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    // No doc comments here: with them the schema is a choice of constants instead of a list of names.
    // A JSON document
    #[default]
    Json,
    // A JSON document in each line
    Ndjson,
    // A bare number, `true` or `false`
    Number,
    // A text
    Text,
    // A bare number or boolean, else a text
    Scalar,
    // Lines of columns
    Csv,
    // InfluxDB line protocol
    Influx,
    // Avro
    Avro,
    // Protocol Buffers
    Protobuf,
    // Arrow IPC stream
    Arrow,
}

impl Format {
    /// True where payloads have a structure that pointers lead into.
    pub(crate) fn has_pointers(self) -> bool {
        !matches!(self, Format::Number | Format::Text | Format::Scalar)
    }

    /// True where the payload's schema can say what a time counts.
    pub(crate) fn knows_units(self) -> bool {
        matches!(self, Format::Avro | Format::Protobuf | Format::Arrow | Format::Influx)
    }
}

/// A known shape of payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    // An object of signals
    Wide,
    // One tag of a United Manufacturing Hub
    Umh,
    // Tags beside a time
    UmhTags,
    // ThingsBoard's device API
    Thingsboard,
    // ThingsBoard's gateway API
    ThingsboardGateway,
    // Insights Hub and Industrial Edge
    Siemens,
}

/// The decimal mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Decimal {
    // 12.5
    #[serde(rename = ".")]
    Point,
    // 12,5
    #[serde(rename = ",")]
    Comma,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Framing {
    // Nothing
    None,
    // A zero byte and the schema's number
    Confluent,
    // Avro's single-object encoding
    SingleObject,
}

/// A schema registry.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Address: `http://registry:8081`
    pub url: String,
    /// User to sign in as
    pub user: Option<String>,
    /// Password of the user: `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// How the connection is secured, for `https`
    pub tls: Option<TlsConfig>,
}

/// What to do with a signal. `value * factor + offset` is what counts from then on.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalConfig {
    /// The name it has from here on
    pub rename: Option<String>,
    /// What its values are multiplied with. Default 1
    pub factor: Option<f64>,
    /// What is added to them then. Default 0
    pub offset: Option<f64>,
    /// Its unit after that, for people: `°C`
    pub unit: Option<String>,
}
