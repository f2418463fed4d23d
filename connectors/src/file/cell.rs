//! Cells of a text file as numbers.

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell {
    /// A number, NaN and infinities included; a boolean is 1 or 0.
    Number(f64),
    /// Nothing.
    Empty,
    /// Neither.
    Bad,
}

/// How numbers are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    /// The decimal mark is a comma; a point is refused, because it might stand between thousands.
    pub decimal_comma: bool,
    /// Cells that mean nothing.
    pub missing: Vec<String>,
}

impl Numbers {
    /// Reads a cell.
    #[inline]
    pub fn parse(&self, cell: &[u8]) -> Cell {
        if !self.decimal_comma
            && let Ok(number) = fast_float2::parse::<f64, _>(cell)
        {
            return Cell::Number(number);
        }
        self.parse_slowly(cell)
    }

    fn parse_slowly(&self, cell: &[u8]) -> Cell {
        let cell = cell.trim_ascii();
        match cell {
            b"" => return Cell::Empty,
            b"true" | b"True" | b"TRUE" => return Cell::Number(1.0),
            b"false" | b"False" | b"FALSE" => return Cell::Number(0.0),
            _ => {}
        }
        let mut point = [0; 64];
        let number = if !self.decimal_comma {
            fast_float2::parse(cell).ok()
        } else if cell.len() <= point.len() && !cell.contains(&b'.') {
            let point = &mut point[..cell.len()];
            point.copy_from_slice(cell);
            point
                .iter_mut()
                .filter(|byte| **byte == b',')
                .for_each(|byte| *byte = b'.');
            fast_float2::parse(&*point).ok()
        } else {
            None
        };
        match number {
            Some(number) => Cell::Number(number),
            None if self.missing.iter().any(|word| word.as_bytes() == cell) => Cell::Empty,
            None => Cell::Bad,
        }
    }

    /// True when the cell means that there is no value.
    pub fn is_missing(&self, cell: &[u8]) -> bool {
        cell.is_empty() || self.missing.iter().any(|word| word.as_bytes() == cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells() {
        let check = |cell: &str, decimal_comma, expect: Cell| {
            let numbers = Numbers {
                decimal_comma,
                missing: vec!["NA".into()],
            };
            let found = numbers.parse(cell.as_bytes());
            assert!(
                found == expect || format!("{found:?}") == format!("{expect:?}"),
                "{cell}: {found:?}"
            );
        };
        check("12.345", false, Cell::Number(12.345));
        check(" 12.5 ", false, Cell::Number(12.5));
        check("-7e-30", false, Cell::Number(-7e-30));
        check("NaN", false, Cell::Number(f64::NAN));
        check("-inf", false, Cell::Number(f64::NEG_INFINITY));
        check("True", false, Cell::Number(1.0));
        check("false", false, Cell::Number(0.0));
        check("", false, Cell::Empty);
        check("  ", false, Cell::Empty);
        check("NA", false, Cell::Empty);
        check("12,5", false, Cell::Bad);
        check("12,5", true, Cell::Number(12.5));
        check("-7,39E-30", true, Cell::Number(-7.39e-30));
        check("1.234,5", true, Cell::Bad);
        check("1,2,3", true, Cell::Bad);
        check("12", true, Cell::Number(12.0));
        check("True", true, Cell::Number(1.0));
        check("abc", false, Cell::Bad);
        check("1 2", false, Cell::Bad);
    }
}
