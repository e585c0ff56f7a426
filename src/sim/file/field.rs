//! The values of a machine file with their paths, so that errors can name the field.

use super::{COUNTS, Problem};
use crate::sim::table::Table;
use serde_json::Value;
use std::ops::RangeInclusive;

/// A value of the file and its path.
pub(super) struct Field<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
}

impl<'a> Field<'a> {
    /// The path of the field `name` of this object.
    pub(super) fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A field of this object; null if it is missing.
    pub(super) fn get(&self, name: &str) -> Field<'a> {
        Field {
            path: self.path_to(name),
            value: self.value.get(name).unwrap_or(&Value::Null),
        }
    }

    /// A required field of this object.
    pub(super) fn need(&self, name: &str) -> Result<Field<'a>, Problem> {
        self.object()?;
        let field = self.get(name);
        match field.value {
            Value::Null => Err(format!("{}: it is missing", field.path)),
            _ => Ok(field),
        }
    }

    /// An optional field of this object.
    pub(super) fn optional(&self, name: &str) -> Option<Field<'a>> {
        Some(self.get(name)).filter(|field| !field.value.is_null())
    }

    pub(super) fn object(&self) -> Result<&'a serde_json::Map<String, Value>, Problem> {
        let object = self.value.as_object();
        object.ok_or_else(|| self.expected("an object"))
    }

    /// The fields of this object, or one error if this is no object.
    pub(super) fn entries(&self) -> impl Iterator<Item = (String, Result<Field<'a>, Problem>)> {
        let (object, error) = match self.object() {
            Ok(object) => (Some(object), None),
            Err(error) => (None, Some((String::new(), Err(error)))),
        };
        let fields = object.into_iter().flatten().map(|(name, value)| {
            let path = self.path_to(name);
            (name.clone(), Ok(Field { path, value }))
        });
        fields.chain(error)
    }

    /// The elements of this list, or one error if this is no list.
    pub(super) fn items(&self) -> impl Iterator<Item = Result<Field<'a>, Problem>> {
        let (list, error) = match self.value.as_array() {
            Some(list) => (Some(list), None),
            None => (None, Some(Err(self.expected("a list")))),
        };
        let elements = list.into_iter().flatten().enumerate().map(|(at, value)| {
            let path = format!("{}[{at}]", self.path);
            Ok(Field { path, value })
        });
        elements.chain(error)
    }

    pub(super) fn text(&self) -> Result<&'a str, Problem> {
        self.value.as_str().ok_or_else(|| self.expected("a text"))
    }

    pub(super) fn number(&self, range: RangeInclusive<f64>) -> Result<f64, Problem> {
        let number = self.value.as_f64().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.expected(&format!(
                "a number from {:e} to {:e}",
                range.start(),
                range.end()
            ))
        })
    }

    /// A whole number of at least 0.
    pub(super) fn count(&self) -> Result<u64, Problem> {
        let whole = self.number(COUNTS).ok().filter(|n| n.fract() == 0.0);
        whole
            .map(|n| n as u64)
            .ok_or_else(|| self.expected("a whole number from 0 to 2^53"))
    }

    /// Points `[size, value]` with strictly ascending sizes.
    pub(super) fn table(
        &self,
        sizes: RangeInclusive<f64>,
        values: RangeInclusive<f64>,
    ) -> Result<Table, Problem> {
        let mut points: Vec<[f64; 2]> = Vec::new();
        for point in self.items() {
            let point = point?;
            let mut numbers = point.items();
            let (Some(size), Some(value), None) = (numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(point.expected("a pair of numbers"));
            };
            let (size, value) = (size?, value?);
            let number = size.number(sizes.clone())?;
            if points.last().is_some_and(|[before, _]| number <= *before) {
                return Err(size.expected("a size larger than the one before it"));
            }
            points.push([number, value.number(values.clone())?]);
        }
        Table::new(points).ok_or_else(|| self.expected("at least one point"))
    }

    /// The error that something else was expected.
    pub(super) fn expected(&self, what: &str) -> Problem {
        const LONGEST: usize = 60;
        let mut given = self.value.to_string();
        if given.chars().count() > LONGEST {
            given = given.chars().take(LONGEST).chain(['…']).collect();
        }
        let place = if self.path.is_empty() {
            "the file"
        } else {
            &self.path
        };
        format!("{place}: expected {what}, it is {given}")
    }
}
