//! The words of the small grammars for conditions and triggers.

/// A word of a condition and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    /// Characters before it.
    pub at: usize,
    pub word: Word,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Word {
    /// A bare word: a name, a keyword, a length of time.
    Bare(String),
    /// `"a name with blanks"`.
    Name(String),
    /// `'a text'`.
    Text(String),
    Number(f64),
    /// One of `( ) = != < <= > >=`.
    Symbol(&'static str),
}

impl Word {
    /// True for the bare word `keyword`, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// The word as a name, bare or quoted.
    pub fn name(&self) -> Option<&str> {
        match self {
            Word::Bare(name) | Word::Name(name) => Some(name),
            _ => None,
        }
    }
}

/// What is wrong with a text, and how many characters into it.
pub(crate) type Wrong = (usize, String);

const SYMBOLS: [&str; 9] = ["!=", "<=", ">=", "==", "(", ")", "=", "<", ">"];

/// Cuts a text into words.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, Wrong> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        if c.is_whitespace() {
            at += 1;
            continue;
        }
        let (word, next) = if c == '"' || c == '\'' {
            quoted(&chars, at)?
        } else if let Some(symbol) = symbol(&chars[at..]) {
            (
                Word::Symbol(if symbol == "==" { "=" } else { symbol }),
                at + symbol.len(),
            )
        } else if in_word(c) || c == '+' {
            bare(&chars, at)?
        } else {
            return Err((at, format!("`{c}` has no meaning here")));
        };
        tokens.push(Token { at, word });
        at = next;
    }
    Ok(tokens)
}

fn symbol(rest: &[char]) -> Option<&'static str> {
    SYMBOLS
        .into_iter()
        .find(|symbol| symbol.chars().enumerate().all(|(i, c)| rest.get(i) == Some(&c)))
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || "_.-/:#$@%°".contains(c)
}

fn quoted(chars: &[char], start: usize) -> Result<(Word, usize), Wrong> {
    let quote = chars[start];
    let end = chars[start + 1..].iter().position(|c| *c == quote);
    let end = end.ok_or_else(|| (start, format!("the closing {quote} is missing")))? + start + 1;
    let text = chars[start + 1..end].iter().collect();
    Ok((
        if quote == '"' {
            Word::Name(text)
        } else {
            Word::Text(text)
        },
        end + 1,
    ))
}

fn bare(chars: &[char], start: usize) -> Result<(Word, usize), Wrong> {
    let mut end = start + 1;
    while end < chars.len() && (in_word(chars[end]) || (chars[end] == '+' && matches!(chars[end - 1], 'e' | 'E'))) {
        end += 1;
    }
    let word: String = chars[start..end].iter().collect();
    let signed = matches!(chars[start], '+' | '-');
    let like_number = chars[start].is_ascii_digit() || signed || chars[start] == '.';
    match word.parse::<f64>() {
        Ok(number) if like_number && number.is_finite() => Ok((Word::Number(number), end)),
        _ if signed => Err((start, format!("`{word}` is no number"))),
        _ => Ok((Word::Bare(word), end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let found = match tokens(text) {
            Ok(tokens) => tokens
                .iter()
                .map(|t| format!("{}:{:?}", t.at, t.word))
                .collect::<Vec<_>>()
                .join(" "),
            Err((at, message)) => format!("{at}! {message}"),
        };
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn words() {
        check("", "");
        check("a<=-1.5e+3", "0:Bare(\"a\") 1:Symbol(\"<=\") 3:Number(-1500.0)");
        check("\"cycle \" changes", "0:Name(\"cycle \") 9:Bare(\"changes\")");
        check("e is 'A \"b\"'", "0:Bare(\"e\") 2:Bare(\"is\") 5:Text(\"A \\\"b\\\"\")");
        check("for 200ms", "0:Bare(\"for\") 4:Bare(\"200ms\")");
        check(
            "motor-1/x.y >.5",
            "0:Bare(\"motor-1/x.y\") 12:Symbol(\">\") 13:Number(0.5)",
        );
        check("größe = 1", "0:Bare(\"größe\") 6:Symbol(\"=\") 8:Number(1.0)");
        check("inf = nan", "0:Bare(\"inf\") 4:Symbol(\"=\") 6:Bare(\"nan\")");
    }

    #[test]
    fn refused() {
        check("a = 'x", "4! the closing ' is missing");
        check("a & b", "2! `&` has no meaning here");
        check("a < -x", "4! `-x` is no number");
        check("a < 1e999", "0:Bare(\"a\") 2:Symbol(\"<\") 4:Bare(\"1e999\")");
    }
}
