//! Reads a profile from text, and writes it as text. Impossible figures are refused.

use super::contents::{CoRunEntry, DeviceEntry, Profile, SCHEMA, label_of};
use super::learned::LearnedEntry;
use crate::cost::params::PARAMS;
use crate::error::ProfileProblem;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::HashSet;
use std::marker::PhantomData;

/// The result of reading a profile.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Parsed {
    /// The usable entries.
    pub profile: Profile,
    /// For each ignored entry, the reason.
    pub ignored: Vec<String>,
}

/// Reads a profile. An entry with an impossible figure (not finite, negative, or so large or small that no machine has
/// it) is ignored, and so are the entries that refer to it.
///
/// # Errors
/// If the text is no profile of this version.
pub fn parse(text: &str) -> Result<Parsed, ProfileProblem> {
    let mut parsed = match serde_json::from_str::<Profile>(text) {
        Ok(profile) => Parsed {
            profile,
            ignored: Vec::new(),
        },
        Err(_) => parse_by_entry(text)?,
    };
    let profile = &parsed.profile;
    check_versions(profile.schema, &profile.divvy)?;
    drop_unsound(&mut parsed);
    Ok(parsed)
}

fn check_versions(schema: u32, divvy: &str) -> Result<(), ProfileProblem> {
    if schema != SCHEMA {
        return Err(ProfileProblem::Schema {
            found: schema,
            expected: SCHEMA,
        });
    }
    if divvy != env!("CARGO_PKG_VERSION") {
        let found = divvy.to_owned();
        return Err(ProfileProblem::Version { found });
    }
    Ok(())
}

/// Reads a text that is not a profile as a whole: finds the reason, and the usable entries.
fn parse_by_entry(text: &str) -> Result<Parsed, ProfileProblem> {
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
        divvy: String,
    }
    #[derive(Deserialize)]
    struct Lists {
        devices: Entries<DeviceEntry>,
        #[serde(default)]
        corun: Entries<CoRunEntry>,
        #[serde(default)]
        learned: Entries<LearnedEntry>,
    }
    // Reads the versions first: the rest of another version may have any shape.
    let head: Head = serde_json::from_str(text)?;
    check_versions(head.schema, &head.divvy)?;
    let lists: Lists = serde_json::from_str(text)?;
    let mut ignored = Vec::new();
    let profile = Profile {
        schema: head.schema,
        divvy: head.divvy,
        devices: lists.devices.usable("devices", &mut ignored),
        corun: lists.corun.usable("corun", &mut ignored),
        learned: lists.learned.usable("learned", &mut ignored),
    };
    Ok(Parsed { profile, ignored })
}

/// The usable entries of a list, and the problems of some others. A file may have millions of unusable entries, so they
/// are read one by one and not stored.
struct Entries<T> {
    usable: Vec<T>,
    /// The problems of the first unusable entries.
    problems: Vec<String>,
    /// The number of further unusable entries.
    more: usize,
}

impl<T> Entries<T> {
    fn usable(self, list: &str, ignored: &mut Vec<String>) -> Vec<T> {
        let problems = self.problems.into_iter();
        ignored.extend(problems.map(|problem| format!("{list}, {problem}")));
        if self.more > 0 {
            ignored.push(format!("{list}, {} more entries", self.more));
        }
        self.usable
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            usable: Vec::new(),
            problems: Vec::new(),
            more: 0,
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(EntriesVisitor(PhantomData))
    }
}

struct EntriesVisitor<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for EntriesVisitor<T> {
    type Value = Entries<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries<T>, A::Error> {
        let mut entries = Entries::default();
        let mut at = 0;
        while let Some(value) = list.next_element::<Value>()? {
            match serde_json::from_value(value) {
                Ok(entry) => entries.usable.push(entry),
                Err(error) if entries.problems.len() < PARAMS.profile.most_problems => {
                    entries.problems.push(format!("entry {at}: {error}"));
                }
                Err(_) => entries.more += 1,
            }
            at += 1;
        }
        Ok(entries)
    }
}

/// Drops the entries with impossible figures, and those that refer to unknown devices.
fn drop_unsound(Parsed { profile, ignored }: &mut Parsed) {
    let mut labels = HashSet::new();
    let Profile {
        devices,
        corun,
        learned,
        ..
    } = profile;
    devices.retain(|entry: &DeviceEntry| {
        let problem = match entry.check() {
            Err(what) => format!("{what} of {} is out of range", entry.model.name),
            Ok(()) if labels.len() >= PARAMS.profile.most_devices => {
                format!("{} is a device too many", entry.model.name)
            }
            Ok(()) if !labels.insert(entry.label.clone()) => {
                format!("the label {:?} is there twice", entry.label)
            }
            Ok(()) => return true,
        };
        ignored.push(problem);
        false
    });
    let is_known = |reference: &String| labels.contains(label_of(reference));
    corun.retain(|entry: &CoRunEntry| {
        let problem = if !entry.is_sound() {
            "out of range"
        } else if !entry.devices.iter().all(is_known) {
            "of an unknown device"
        } else {
            return true;
        };
        let [one, other] = &entry.devices;
        ignored.push(format!("the slow-down of {one} and {other} is {problem}"));
        false
    });
    learned.retain_mut(|entry: &mut LearnedEntry| {
        let problem = if !entry.is_sound() {
            "has a figure out of range"
        } else if !is_known(&entry.device) || !entry.beside.iter().all(is_known) {
            "is of an unknown device"
        } else {
            return true;
        };
        ignored.push(format!(
            "the entry of {} on {} {problem}",
            entry.kernel, entry.device
        ));
        false
    });
}

impl Profile {
    /// The text of the file.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string(self).expect("every map has texts as keys");
        readable(&json)
    }
}

/// Breaks JSON text into lines. A value that fits into one line is not broken.
fn readable(json: &str) -> String {
    /// Characters to a line, without its indentation.
    const WIDTH: usize = 110;
    let ends = ends(json);
    let mut text = String::with_capacity(json.len() * 5 / 4);
    let mut depth = 0;
    // The end of the value that stays on one line.
    let mut whole = 0;
    let mut quoted = false;
    let mut escaped = false;
    let new_line = |text: &mut String, depth: usize| {
        text.push('\n');
        (0..depth).for_each(|_| text.push_str("  "));
    };
    for (at, c) in json.char_indices() {
        if quoted {
            text.push(c);
            quoted = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        let broken = at >= whole;
        match c {
            '{' | '[' => {
                text.push(c);
                let end = ends.get(&at).copied().unwrap_or(json.len());
                if broken && end - at <= WIDTH {
                    whole = end + 1;
                } else if broken {
                    depth += 1;
                    new_line(&mut text, depth);
                }
            }
            '}' | ']' => {
                if broken {
                    depth = depth.saturating_sub(1);
                    new_line(&mut text, depth);
                }
                text.push(c);
            }
            ',' if broken => {
                text.push(c);
                new_line(&mut text, depth);
            }
            ',' | ':' => {
                text.push(c);
                text.push(' ');
            }
            _ => {
                quoted = c == '"';
                text.push(c);
            }
        }
    }
    text.push('\n');
    text
}

/// The position of the closing bracket, by that of the opening one.
fn ends(json: &str) -> std::collections::HashMap<usize, usize> {
    let mut ends = std::collections::HashMap::new();
    let mut open = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in json.bytes().enumerate() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'{' | b'[' => open.push(at),
            b'}' | b']' => {
                if let Some(start) = open.pop() {
                    ends.insert(start, at);
                }
            }
            _ => {}
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_problems_of_a_few_unusable_entries_are_listed() {
        let [none, wrong] = ["[]".to_owned(), format!("[{}[]]", "{},".repeat(999_999))];
        let text = format!(
            r#"{{"schema": {SCHEMA}, "divvy": {:?}, "devices": {none}, "learned": {wrong}}}"#,
            env!("CARGO_PKG_VERSION")
        );
        let parsed = parse(&text).expect("the rest is sound");
        assert_eq!(parsed.ignored.len(), PARAMS.profile.most_problems + 1);
        let [first, .., last] = parsed.ignored.as_slice() else {
            panic!("there are several");
        };
        assert!(
            first.starts_with("learned, entry 0: missing field"),
            "{first}"
        );
        assert_eq!(last, "learned, 999980 more entries");
    }

    #[test]
    fn a_value_that_fits_a_line_is_not_broken() {
        let long: Vec<f64> = (0..60).map(f64::from).collect();
        let json =
            serde_json::json!({"a": [1, {"b": "x, [\"{:"}], "c": [long, [[]], {}]}).to_string();
        let text = readable(&json);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "{",
                "  \"a\": [1, {\"b\": \"x, [\\\"{:\"}],",
                "  \"c\": [",
                "    ["
            ]
        );
        assert_eq!(
            lines[lines.len() - 5..],
            ["    ],", "    [[]],", "    {}", "  ]", "}"]
        );
        let [from, to]: [Value; 2] = [&json, &text].map(|t| serde_json::from_str(t).expect("JSON"));
        assert_eq!(from, to);
    }

    proptest! {
        #[test]
        fn breaking_lines_changes_nothing_else(texts in prop::collection::vec(".{0,80}", 0..6), numbers in prop::collection::vec(any::<i32>(), 0..40)) {
            let value = serde_json::json!({"texts": texts, "more": [{"numbers": numbers, "empty": []}, texts.len()]});
            let text = readable(&value.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
        }
    }
}
