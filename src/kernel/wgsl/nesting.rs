//! Limits how deeply a source is nested, before naga parses it.
//!
//! naga and drivers descend recursively into nested code, and a stack overflow ends the process without a chance to
//! catch it. naga bounds the nesting of brackets and braces, but not chains: `a + a + ..`, `else if ..`, and constants
//! each of which needs the next. This module bounds those. It scans characters and knows just enough of WGSL for that:
//! comments, and where an expression ends.

/// The longest source, in bytes.
const MOST_BYTES: usize = 1 << 20;
/// The most operator characters in one expression, each of which may be a level. Optimised naga takes three times this
/// number on the stack of a thread (2 MiB).
const MOST_OPERATORS: usize = 1000;
/// The most `else` in a row. Each is a level, and naga allows the same number of levels of braces.
const MOST_ELSES: usize = 127;
/// The most declarations of a module, each of which may need the next.
const MOST_DECLARATIONS: usize = 2000;

/// The characters that end a line, and so a comment.
const LINE_ENDS: [char; 7] = [
    '\n', '\u{b}', '\u{c}', '\r', '\u{85}', '\u{2028}', '\u{2029}',
];

/// Refuses a source that is too long, or nested too deeply, to parse safely.
pub(super) fn check(source: &str) -> Result<(), String> {
    if source.len() > MOST_BYTES {
        return Err(format!(
            "it has {} bytes, at most {MOST_BYTES} were expected; put tables into arrays",
            source.len()
        ));
    }
    let mut depth = Depth::default();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = match comment(rest) {
            0 => depth.count(first, rest),
            length => length,
        };
        rest = &rest[length..];
        depth.check()?;
    }
    Ok(())
}

/// The length in bytes of the comment at the start of `text`; 0 if there is none.
fn comment(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find(LINE_ENDS).unwrap_or(text.len());
    }
    if !text.starts_with("/*") {
        return 0;
    }
    let (mut open, mut at) = (1, 2);
    let bytes = text.as_bytes();
    while open > 0 && at < bytes.len() {
        let step = match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => 1,
            b"*/" => -1,
            _ => 0,
        };
        open += step;
        at += if step == 0 { 1 } else { 2 };
    }
    // A comment never ends between two bytes of a character.
    at
}

/// The nesting depth at the current position.
#[derive(Default)]
struct Depth {
    /// For each open bracket of this expression, the operators before it.
    outer: Vec<usize>,
    /// Operators since the innermost bracket or comma.
    operators: usize,
    /// The sum of `outer`.
    outer_operators: usize,
    /// For each open brace, the `else` in a row before it.
    chains: Vec<usize>,
    /// `else` in a row.
    elses: usize,
    /// The sum of `chains`.
    outer_elses: usize,
    /// Whether a brace closed just before: only an `else` that follows at once continues the chain.
    after_brace: bool,
    declarations: usize,
}

impl Depth {
    /// Counts the token at the start of `text`, which is not a comment, and returns its length in bytes.
    fn count(&mut self, first: char, text: &str) -> usize {
        if first.is_whitespace() {
            return first.len_utf8();
        }
        let word = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        let word = &text[..word.unwrap_or(text.len())];
        if std::mem::take(&mut self.after_brace) && word != "else" {
            self.elses = 0;
        }
        if !word.is_empty() {
            self.elses += usize::from(word == "else");
            return word.len();
        }
        match first {
            '(' | '[' => {
                // An index follows what it is an index into.
                self.operators += usize::from(first == '[');
                self.outer.push(self.operators);
                self.outer_operators += std::mem::take(&mut self.operators);
            }
            ')' | ']' => {
                if let Some(before) = self.outer.pop() {
                    self.outer_operators -= before;
                    self.operators = before;
                }
            }
            ',' => self.operators = 0,
            ';' | '{' | '}' => self.end_statement(first),
            // The decimal point of a number.
            '.' if text[1..].starts_with(|c: char| c.is_ascii_digit()) => {}
            // Everything else is an operator, or an error that naga will report.
            _ => self.operators += 1,
        }
        first.len_utf8()
    }

    fn end_statement(&mut self, by: char) {
        self.outer.clear();
        (self.operators, self.outer_operators) = (0, 0);
        match by {
            '{' => {
                self.chains.push(self.elses);
                self.outer_elses += std::mem::take(&mut self.elses);
            }
            '}' => {
                let before = self.chains.pop().unwrap_or(0);
                self.outer_elses -= before;
                self.elses = before;
                self.after_brace = true;
            }
            _ => self.elses = 0,
        }
        if by != '{' && self.chains.is_empty() {
            self.declarations += 1;
        }
    }

    fn check(&self) -> Result<(), String> {
        let refuse = |what: &str, most: usize| {
            Err(format!(
                "it has more than {most} {what}, which is too deep to be read safely; divide it"
            ))
        };
        if self.operators + self.outer_operators > MOST_OPERATORS {
            return refuse("operators in one expression", MOST_OPERATORS);
        }
        if self.elses + self.outer_elses > MOST_ELSES {
            return refuse("`else` in a row", MOST_ELSES);
        }
        if self.declarations > MOST_DECLARATIONS {
            return refuse("declarations", MOST_DECLARATIONS);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> bool {
        check(source).is_err()
    }

    #[test]
    fn chains_count_and_siblings_do_not() {
        let times = |text: &str| text.repeat(5_000);
        for chain in [
            format!("let x = {}a;", times("a+")),
            format!("let x = {}a;", times("- ")),
            format!("let x = {}a;", times("-/* ; */")),
            format!("let x = {}a;", times("- // ; \u{2028}")),
            format!("let x = {}a;", times("f(a, a) + ")),
            format!("let x = {}a;", times("f(a + ")),
            format!("let x = {}a;", times("(-")),
            format!("let x = a{};", times("[0]")),
            format!("let x = a{};", times(".x")),
            format!("let x: {}f32;", times("array<")),
            format!("if a {{}} {}", times("else if a {}")),
            format!("if a {{}} {}", times("else { if a {}")),
            format!("if a {{}} {}", times("else/* */if a { x = 1; }\n")),
            times("const a = b;"),
            times("fn f() {}"),
        ] {
            assert!(refused(&chain), "{}", &chain[..60]);
        }
        for flat in [
            format!("let x = array({}0);", times("-1.0e-5 + b,")),
            format!("let x = array({}0);", times("vec2<f32>(1.5, -a.x),")),
            format!("fn f() {{ {} }}", times("x = a + b * c.d[0];")),
            format!(
                "fn f() {{ {} }}",
                times("if a { x += 1; } else { x = y; } ")
            ),
            format!(
                "fn f() {{ {} }}",
                times("if a {} else if b {} else {} y = 1; ")
            ),
            format!("let x = {}1;", times("1.5, ")),
            format!("/* {} */ let x = 1;", times("- else ; ")),
            times("// -------------- else {\n"),
        ] {
            assert_eq!(check(&flat), Ok(()), "{}", &flat[..60]);
        }
        assert!(refused(&" ".repeat(MOST_BYTES + 1)));
    }

    #[test]
    fn unusual_texts_are_scanned_to_their_end() {
        for text in [
            "",
            "/",
            "/*",
            "/*/",
            "/*/*é*/",
            "//é",
            "é/**/é",
            ")]}",
            "}else",
            ".",
            "1.",
            "\u{2028}.",
        ] {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }
}
