//! Rows as texts for people: templates over columns, `{machine}: {message}`.

use std::borrow::Cow;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use taktline_engine::Published;
use taktline_engine::config::Problem;
use taktline_engine::kind::Input;

use crate::codec::json;
use crate::codec::topic::{Template, TemplateError};

/// A text with columns in braces, for the rows of one table.
#[derive(Clone, Debug)]
pub(crate) struct RowTemplate(Template);

impl RowTemplate {
    /// # Errors
    /// At `path`: a column that the rows of `input` don't have, or a brace without its partner.
    pub(crate) fn parse(path: &str, text: &str, input: &Input) -> Result<Self, Problem> {
        let schema = flat_schema(input);
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Template::parse(text, &columns)
            .map(RowTemplate)
            .map_err(|error| match error {
                TemplateError::Brace => {
                    Problem::at(path, "a brace has no partner").hint("write columns in braces: {machine}")
                }
                TemplateError::Unknown(name) => Problem::at(path, format!("`{}` has no column `{name}`", input.name))
                    .did_you_mean(&name, columns.iter().copied()),
            })
    }

    /// The text for a row; nothing where a column has none.
    pub(crate) fn render(&self, cells: &Cells<'_>, row: usize) -> String {
        self.render_with(cells, row, str::to_owned)
    }

    /// The same of parts that `part` makes of the columns' texts.
    pub(crate) fn render_with(&self, cells: &Cells<'_>, row: usize, part: impl Fn(&str) -> String) -> String {
        let texts: Vec<String> = (0..cells.columns.len())
            .map(|index| {
                if self.0.uses(index) {
                    part(&cells.text(index, row))
                } else {
                    String::new()
                }
            })
            .collect();
        let mut text = String::new();
        self.0
            .render(|index| texts.get(index).map_or("", String::as_str), &mut text);
        text
    }
}

/// The flat table that rows of an input are sent as: without the samples inside.
pub(crate) fn flat(input: &Input) -> Option<&Published> {
    input.table.published.first()
}

/// The columns that an input has where its rows are sent.
pub(crate) fn flat_schema(input: &Input) -> &SchemaRef {
    flat(input).map_or(&input.table.schema, |flat| &flat.schema)
}

/// A batch as its rows are sent.
pub(crate) fn flattened<'b>(flat: Option<&Published>, batch: &'b RecordBatch) -> anyhow::Result<Cow<'b, RecordBatch>> {
    Ok(match flat {
        Some(flat) => Cow::Owned((flat.project)(batch)?),
        None => Cow::Borrowed(batch),
    })
}

/// The cells of a batch as texts.
pub(crate) struct Cells<'b> {
    /// None where a column's type has no form as text.
    columns: Vec<Option<(&'b dyn Array, ArrayFormatter<'b>)>>,
}

/// A batch whose cells can be shown: times have an offset in place of a zone's name.
pub(crate) fn showable(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    json::offset_zones(batch)
}

impl<'b> Cells<'b> {
    /// Of a [`showable`] batch.
    pub(crate) fn of(batch: &'b RecordBatch) -> Self {
        static OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let columns = batch.columns().iter().map(|column| {
            let formatter = ArrayFormatter::try_new(column.as_ref(), &OPTIONS).ok()?;
            Some((column.as_ref(), formatter))
        });
        Cells {
            columns: columns.collect(),
        }
    }

    fn text(&self, column: usize, row: usize) -> String {
        match self.columns.get(column) {
            Some(Some((array, formatter))) if !array.is_null(row) => formatter.value(row).to_string(),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use taktline_engine::table::{Sample, samples, samples_batch};

    use super::*;

    #[test]
    fn templates() {
        let input = Input {
            name: "plc".into(),
            table: samples(),
            extends: Vec::new(),
        };
        let row = Sample {
            machine: "press-1",
            signal: "t",
            ts: 1_767_323_045_678_901,
            value: Some(21.5),
            text: None,
        };
        let batch = showable(&samples_batch([row])).unwrap();
        let check = |text: &str, expect: Result<&str, &str>| {
            let got = RowTemplate::parse("subject", text, &input);
            match (got, expect) {
                (Ok(template), Ok(expect)) => assert_eq!(template.render(&Cells::of(&batch), 0), expect),
                (Err(problem), Err(part)) => {
                    assert_eq!(problem.path, ["subject"]);
                    assert!(format!("{problem:?}").contains(part), "{problem:?}");
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        };
        check("{machine} {signal}={value}!", Ok("press-1 t=21.5!"));
        check("{ts}", Ok("2026-01-02T03:04:05.678901Z"));
        check("[{text}]", Ok("[]"));
        check("{machin}", Err("did you mean `machine`?"));
        check("{machine", Err("no partner"));
    }

    #[test]
    fn rows_are_sent_as_the_first_published_table_has_them() {
        let batch = taktline_engine::table::samples_batch([taktline_engine::table::Sample {
            machine: "press-1",
            signal: "force",
            ts: 5,
            value: Some(1.5),
            ..Default::default()
        }]);
        let machines = Published {
            name: "machines",
            schema: batch.schema(),
            project: |batch| Ok(batch.project(&[0])?),
        };
        assert_eq!(flattened(Some(&machines), &batch).unwrap().num_columns(), 1);
        assert_eq!(*flattened(None, &batch).unwrap(), batch);
    }
}
