//! How deeply a source is nested, found out before anybody reads it in earnest.
//!
//! naga and drivers descend into what is nested by calling themselves, and a stack that overflows ends the process: nobody
//! can catch that. naga bounds how deeply brackets and braces are nested, but not chains: `a + a + ..`, `else if ..`, and
//! constants each of which needs the next. Those are bounded here, by a look at single characters that knows just enough
//! of WGSL not to be fooled: comments, and where an expression ends.

/// Bytes of a source.
const MOST_BYTES: usize = 1 << 20;
/// Characters of operators in one expression: each may be a level. naga takes three times as many on the stack of a thread
/// (2 MiB), when it is optimised.
const MOST_OPERATORS: usize = 1000;
/// `else` in a row: each is a level, and naga allows as many levels of braces.
const MOST_ELSES: usize = 127;
/// Declarations of a module, each of which may need the next.
const MOST_DECLARATIONS: usize = 2000;

/// What ends a line, and so a comment.
const LINE_ENDS: [char; 7] = [
    '\n', '\u{b}', '\u{c}', '\r', '\u{85}', '\u{2028}', '\u{2029}',
];

/// Refuses a source that is longer, or nested more deeply, than it is safe to read.
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
            0 => depth.see(first, rest),
            length => length,
        };
        rest = &rest[length..];
        depth.check()?;
    }
    Ok(())
}

/// The bytes of the comment that a text starts with; 0 if it starts with none.
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
    // Between two bytes of a character there is no comment's end.
    at
}

/// How deep it is where we are.
#[derive(Default)]
struct Depth {
    /// For each bracket that is open in this expression, operators in what precedes it.
    outer: Vec<usize>,
    /// Operators since the innermost bracket or comma.
    operators: usize,
    /// The sum of `outer`.
    outer_operators: usize,
    /// For each brace that is open, `else` in a row before it.
    chains: Vec<usize>,
    /// `else` in a row.
    elses: usize,
    /// The sum of `chains`.
    outer_elses: usize,
    /// Whether a brace was closed just before: only an `else` that follows at once goes on with the chain.
    after_brace: bool,
    declarations: usize,
}

impl Depth {
    /// Takes note of what a text starts with, which is no comment, and says how long that is.
    fn see(&mut self, first: char, text: &str) -> usize {
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
            // The point in a number.
            '.' if text[1..].starts_with(|c: char| c.is_ascii_digit()) => {}
            // All else is an operator, or an error to come.
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
    fn chains_are_counted_and_what_is_side_by_side_is_not() {
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
    fn odd_texts_are_looked_at_to_their_end() {
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
