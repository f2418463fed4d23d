//! Conditions over the columns of a row: `outcome = 'complete' and (health < 60 or deviation > 3)`.
//!
//! Words: `and`, `or`, `not`, parentheses, `= != < <= > >=`, numbers, `'texts'`, columns (in double quotes where they
//! have blanks), `is unknown`, `is known` (also `is null`, `is not null`). A comparison with a null is neither true nor
//! false, and so is what depends on it.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};
use taktline_engine::config::Problem;

use crate::token::{Token, Word, Wrong, tokens};

/// A condition whose columns and types have been checked.
#[derive(Clone, Debug)]
pub struct Condition {
    text: Arc<str>,
    root: Expr,
}

#[derive(Clone, Debug)]
enum Expr {
    Or(Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Compare {
        left: Operand,
        operator: &'static str,
        right: Operand,
        text: bool,
    },
    Known {
        column: usize,
        known: bool,
    },
}

#[derive(Clone, Debug)]
enum Operand {
    Column(usize),
    Number(f64),
    Text(String),
}

impl Condition {
    /// Reads a condition over the columns of `schema`.
    ///
    /// # Errors
    /// All that is wrong, at `path` of the step's settings with the place inside the text.
    pub fn parse(path: &str, text: &str, schema: &Schema) -> Result<Self, Vec<Problem>> {
        let mut parser = Parser {
            tokens: Vec::new(),
            next: 0,
            end: text.chars().count(),
            path,
            schema,
            problems: Vec::new(),
        };
        let wrong = |(at, message): Wrong| vec![Problem::at(path, message).offset(at)];
        parser.tokens = tokens(text).map_err(wrong)?;
        let root = parser.whole();
        match root {
            Ok(root) if parser.problems.is_empty() => Ok(Condition {
                text: text.into(),
                root,
            }),
            Ok(_) => Err(parser.problems),
            Err((at, message)) => {
                let hint = "write for example: health < 60 and outcome = 'complete'";
                parser.problems.push(Problem::at(path, message).offset(at).hint(hint));
                Err(parser.problems)
            }
        }
    }

    /// The condition as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// For each row true, false, or `None` where a null leaves it open.
    ///
    /// # Errors
    /// The batch has another schema than the condition was read for.
    pub fn evaluate(&self, batch: &RecordBatch) -> anyhow::Result<Vec<Option<bool>>> {
        evaluate(&self.root, batch)
    }
}

struct Parser<'a> {
    tokens: Vec<Token>,
    next: usize,
    end: usize,
    path: &'a str,
    schema: &'a Schema,
    problems: Vec<Problem>,
}

impl Parser<'_> {
    fn whole(&mut self) -> Result<Expr, Wrong> {
        let expr = self.or()?;
        match self.tokens.get(self.next) {
            Some(token) => Err((token.at, "expected `and`, `or` or the end of the condition".into())),
            None => Ok(expr),
        }
    }

    fn or(&mut self) -> Result<Expr, Wrong> {
        let mut left = self.and()?;
        while self.take_keyword("or") {
            left = Expr::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr, Wrong> {
        let mut left = self.not()?;
        while self.take_keyword("and") {
            left = Expr::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr, Wrong> {
        if self.take_keyword("not") {
            return Ok(Expr::Not(Box::new(self.not()?)));
        }
        if self.take_symbol("(") {
            let inner = self.or()?;
            return if self.take_symbol(")") {
                Ok(inner)
            } else {
                Err((self.at(), "expected `)`".into()))
            };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, Wrong> {
        let begin = self.at();
        let left = self.operand()?;
        if self.take_keyword("is") {
            let negated = self.take_keyword("not");
            let unknown = self.take_keyword("unknown") || self.take_keyword("null");
            if !unknown && !self.take_keyword("known") {
                return Err((self.at(), "expected `unknown` or `known` after `is`".into()));
            }
            let Operand::Column(column) = left else {
                return Err((begin, "`is` needs a column before it".into()));
            };
            return Ok(Expr::Known {
                column,
                known: unknown == negated,
            });
        }
        let at = self.at();
        let operator = match self.tokens.get(self.next).map(|t| &t.word) {
            Some(Word::Symbol(symbol)) if !matches!(*symbol, "(" | ")") => *symbol,
            _ => return Err((at, "expected a comparison: = != < <= > >= or `is unknown`".into())),
        };
        self.next += 1;
        let right_at = self.at();
        let right = self.operand()?;
        let text = match (self.is_text(&left, begin), self.is_text(&right, right_at)) {
            (Some(left), Some(right)) if left != right => {
                let (text, number) = if left { (begin, right_at) } else { (right_at, begin) };
                let message = format!("{} is a text, {} a number", self.shown(text), self.shown(number));
                self.problems.push(Problem::at(self.path, message).offset(right_at));
                left
            }
            (Some(text), _) | (None, Some(text)) => text,
            (None, None) => false,
        };
        Ok(Expr::Compare {
            left,
            operator,
            right,
            text,
        })
    }

    fn operand(&mut self) -> Result<Operand, Wrong> {
        let at = self.at();
        let Some(token) = self.tokens.get(self.next).cloned() else {
            return Err((at, "expected a column, a number or a 'text'".into()));
        };
        self.next += 1;
        match token.word {
            Word::Number(number) => Ok(Operand::Number(number)),
            Word::Text(text) => Ok(Operand::Text(text)),
            Word::Bare(name) | Word::Name(name) => Ok(match self.schema.index_of(&name) {
                Ok(index) => Operand::Column(index),
                Err(_) => {
                    let columns = self.schema.fields().iter().filter(|f| !f.data_type().is_nested());
                    let problem = Problem::at(self.path, format!("there is no column `{name}`")).offset(at);
                    let problem = problem.did_you_mean(&name, columns.map(|f| f.name().as_str()));
                    self.problems.push(problem);
                    Operand::Column(usize::MAX)
                }
            }),
            Word::Symbol(symbol) => Err((at, format!("expected a column, a number or a 'text', found `{symbol}`"))),
        }
    }

    /// Whether an operand is text (true) or number (false); `None` and a problem if it is neither.
    fn is_text(&mut self, operand: &Operand, at: usize) -> Option<bool> {
        let index = match operand {
            Operand::Number(_) => return Some(false),
            Operand::Text(_) => return Some(true),
            Operand::Column(index) => *index,
        };
        let field = self.schema.fields().get(index)?;
        match field.data_type() {
            // A truth is the text `true` or `false`.
            DataType::Utf8 | DataType::Boolean => Some(true),
            DataType::Dictionary(_, values) if **values == DataType::Utf8 => Some(true),
            kind if kind.is_numeric() => Some(false),
            kind => {
                let message = format!("column `{}` is of type {kind} and can't be compared", field.name());
                self.problems.push(Problem::at(self.path, message).offset(at));
                None
            }
        }
    }

    fn shown(&self, at: usize) -> String {
        match self.tokens.iter().find(|token| token.at == at).map(|token| &token.word) {
            Some(Word::Bare(name) | Word::Name(name)) => format!("`{name}`"),
            Some(Word::Text(text)) => format!("'{text}'"),
            Some(Word::Number(number)) => number.to_string(),
            _ => "this".into(),
        }
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |token| token.at)
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.tokens.get(self.next).is_some_and(|token| token.word.is(keyword));
        self.next += usize::from(found);
        found
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = self
            .tokens
            .get(self.next)
            .is_some_and(|token| matches!(token.word, Word::Symbol(s) if s == symbol));
        self.next += usize::from(found);
        found
    }
}

fn evaluate(expr: &Expr, batch: &RecordBatch) -> anyhow::Result<Vec<Option<bool>>> {
    let both = |left: &Expr, right: &Expr, decides: bool| {
        let pairs = evaluate(left, batch)?.into_iter().zip(evaluate(right, batch)?);
        Ok(pairs
            .map(|pair| match pair {
                // The guard is asked for each side: one that decides makes the other's null irrelevant.
                (Some(a), _) | (_, Some(a)) if a == decides => Some(decides),
                (Some(_), Some(b)) => Some(b),
                _ => None,
            })
            .collect())
    };
    match expr {
        Expr::Or(left, right) => both(left, right, true),
        Expr::And(left, right) => both(left, right, false),
        Expr::Not(inner) => Ok(evaluate(inner, batch)?
            .into_iter()
            .map(|truth| truth.map(|t| !t))
            .collect()),
        Expr::Known { column, known } => {
            let array = at(batch, *column)?;
            let floats = array.as_primitive_opt::<Float64Type>();
            let is_known = |row| array.is_valid(row) && !floats.is_some_and(|f| f.value(row).is_nan());
            Ok((0..batch.num_rows()).map(|row| Some(is_known(row) == *known)).collect())
        }
        Expr::Compare {
            left,
            operator,
            right,
            text: true,
        } => {
            let (left, right) = (Texts::of(left, batch)?, Texts::of(right, batch)?);
            let ordering = |row| Some(left.get(row)?.cmp(right.get(row)?));
            Ok((0..batch.num_rows())
                .map(|row| ordering(row).map(|o| holds(operator, o)))
                .collect())
        }
        Expr::Compare {
            left,
            operator,
            right,
            text: false,
        } => {
            let (left, right) = (Numbers::of(left, batch)?, Numbers::of(right, batch)?);
            let ordering = |row| left.get(row)?.partial_cmp(&right.get(row)?);
            Ok((0..batch.num_rows())
                .map(|row| ordering(row).map(|o| holds(operator, o)))
                .collect())
        }
    }
}

fn holds(operator: &str, ordering: Ordering) -> bool {
    match operator {
        "=" => ordering.is_eq(),
        "!=" => ordering.is_ne(),
        "<" => ordering.is_lt(),
        "<=" => ordering.is_le(),
        ">" => ordering.is_gt(),
        _ => ordering.is_ge(),
    }
}

fn at(batch: &RecordBatch, column: usize) -> anyhow::Result<&ArrayRef> {
    batch
        .columns()
        .get(column)
        .ok_or_else(|| anyhow::anyhow!("column {column} is absent"))
}

enum Texts<'a> {
    Column(ArrayRef),
    Same(&'a str),
}

impl<'a> Texts<'a> {
    fn of(operand: &'a Operand, batch: &RecordBatch) -> anyhow::Result<Self> {
        Ok(match operand {
            Operand::Column(index) => Texts::Column(cast(at(batch, *index)?, &DataType::Utf8)?),
            Operand::Text(text) => Texts::Same(text),
            Operand::Number(number) => anyhow::bail!("{number} is no text"),
        })
    }

    fn get(&self, row: usize) -> Option<&str> {
        match self {
            Texts::Column(array) => array.is_valid(row).then(|| array.as_string::<i32>().value(row)),
            Texts::Same(text) => Some(text),
        }
    }
}

enum Numbers {
    Column(ArrayRef),
    Same(f64),
}

impl Numbers {
    fn of(operand: &Operand, batch: &RecordBatch) -> anyhow::Result<Self> {
        Ok(match operand {
            Operand::Column(index) => Numbers::Column(cast(at(batch, *index)?, &DataType::Float64)?),
            Operand::Number(number) => Numbers::Same(*number),
            Operand::Text(text) => anyhow::bail!("'{text}' is no number"),
        })
    }

    fn get(&self, row: usize) -> Option<f64> {
        match self {
            Numbers::Column(array) => array
                .is_valid(row)
                .then(|| array.as_primitive::<Float64Type>().value(row)),
            Numbers::Same(number) => Some(*number),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, StringArray, UInt64Array};
    use arrow::datatypes::Field;
    use taktline_engine::table::name_type;

    /// Rows: (50, complete, 7, a, x), (null, null, 0, b, x), (80, short, 3, a, x).
    fn batch() -> RecordBatch {
        let machine: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Float64Array::from(vec![Some(50.0), None, Some(80.0)])),
            Arc::new(StringArray::from(vec![Some("complete"), None, Some("short")])),
            Arc::new(UInt64Array::from(vec![7, 0, 3])),
            cast(&machine, &name_type()).unwrap(),
            Arc::new(Float64Array::from(vec![f64::NAN, 1.0, 2.0])),
        ];
        let fields = vec![
            Field::new("health", DataType::Float64, true),
            Field::new("outcome", DataType::Utf8, true),
            Field::new("missing", DataType::UInt64, false),
            Field::new("machine", name_type(), false),
            Field::new("tool load", DataType::Float64, true),
            Field::new("end", taktline_engine::table::timestamp(), true),
        ];
        let end = arrow::array::new_null_array(&taktline_engine::table::timestamp(), 3);
        RecordBatch::try_new(Arc::new(Schema::new(fields)), [columns, vec![end]].concat()).unwrap()
    }

    /// `expect` has a letter per row: t, f, or - for open.
    fn check(text: &str, expect: &str) {
        let batch = batch();
        let found = match Condition::parse("when", text, batch.schema_ref()) {
            Ok(condition) => {
                let letter = |truth: &Option<bool>| truth.map_or('-', |t| if t { 't' } else { 'f' });
                condition.evaluate(&batch).unwrap().iter().map(letter).collect()
            }
            Err(problems) => {
                let show = |p: &Problem| format!("{}: {}; {}", p.offset, p.message, p.hint.as_deref().unwrap_or(""));
                problems.iter().map(show).collect::<Vec<_>>().join("\n")
            }
        };
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn truth() {
        check("health < 60", "t-f");
        check("60 > health", "t-f");
        check("not health < 60", "f-t");
        check("outcome = 'complete' and missing > 3", "tff");
        check("outcome = 'complete' or missing = 0", "ttf");
        check("missing = 0 or outcome = 'complete'", "ttf");
        check("missing >= 3 and (health <= 50 or outcome != 'complete')", "tft");
        check("health is unknown", "ftf");
        check("health is not null and not outcome is null", "tft");
        check("\"tool load\" is known", "ftt");
        check("\"tool load\" > 0", "-tt");
        check("machine = 'a'", "tft");
        check(
            "OUTCOME = 'x'",
            "0: there is no column `OUTCOME`; known: health, outcome, missing, machine, tool load, end",
        );
        check("missing != -1e0 AND missing == 3", "fft");
    }

    #[test]
    fn refused() {
        let hint = "write for example: health < 60 and outcome = 'complete'";
        check("", &format!("0: expected a column, a number or a 'text'; {hint}"));
        check(
            "health <",
            &format!("8: expected a column, a number or a 'text'; {hint}"),
        );
        check(
            "health",
            &format!("6: expected a comparison: = != < <= > >= or `is unknown`; {hint}"),
        );
        check("(health < 6", &format!("11: expected `)`; {hint}"));
        check(
            "health < 6 outcome",
            &format!("11: expected `and`, `or` or the end of the condition; {hint}"),
        );
        check(
            "health is 6",
            &format!("10: expected `unknown` or `known` after `is`; {hint}"),
        );
        check("helth < 60", "0: there is no column `helth`; did you mean `health`?");
        check(
            "health < 'x' and outcome > 3",
            "9: 'x' is a text, `health` a number; \n27: `outcome` is a text, 3 a number; ",
        );
        check("health = 'x", "9: the closing ' is missing; ");
        check(
            "end < 3",
            "0: column `end` is of type Timestamp(µs, \"UTC\") and can't be compared; ",
        );
    }
}
