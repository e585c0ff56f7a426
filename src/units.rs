//! Numbers as people read and write them: three digits and an SI prefix, digits in groups.
//!
//! Explanations, messages and the command `divvy` share this format.
//!
//! ```
//! use divvy::units::{bytes, count, quantity, seconds};
//!
//! assert_eq!(seconds(8.614e-5), "86.1 µs");
//! assert_eq!(quantity(4.71e10, "B/s"), "47.1 GB/s");
//! assert_eq!(bytes(128 << 20), "128 MiB");
//! assert_eq!(count(1_048_576), "1,048,576");
//! ```

use std::fmt;

/// Seconds, as in `86.1 µs`.
pub fn seconds(value: f64) -> String {
    quantity(value, "s")
}

/// A quantity of `unit` with the SI prefix that leaves one to three digits before the point, as in `47.1 GB/s`.
pub fn quantity(value: f64, unit: &str) -> String {
    const PREFIXES: [(&str, f64); 9] = [
        ("T", 1e12),
        ("G", 1e9),
        ("M", 1e6),
        ("k", 1e3),
        ("", 1.0),
        ("m", 1e-3),
        ("µ", 1e-6),
        ("n", 1e-9),
        ("p", 1e-12),
    ];
    if value == 0.0 || !value.is_finite() {
        return format!("{value} {unit}");
    }
    // 999.5 would round to 1000 with the smaller prefix.
    let fits = |(_, scale): &&(&str, f64)| value.abs() >= 0.9995 * scale;
    let (prefix, scale) = PREFIXES.iter().find(fits).unwrap_or(&PREFIXES[8]);
    let scaled = value / scale;
    let decimals = match scaled.abs() {
        x if x < 9.995 => 2,
        x if x < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {prefix}{unit}")
}

/// An exact number of bytes, such as a limit, with a binary prefix if it is a whole multiple: `128 MiB`.
pub fn bytes(value: u64) -> String {
    const PREFIXES: [(&str, u32); 4] = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let whole = |(_, shift): &&(&str, u32)| value >= 1 << shift && value.is_multiple_of(1 << shift);
    match PREFIXES.iter().find(whole) {
        Some((prefix, shift)) => format!("{} {prefix}B", count((value >> shift) as usize)),
        None => quantity(value as f64, "B"),
    }
}

/// Why a text is no count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidCount {
    /// It is not written as one.
    Malformed,
    /// It is larger than `u64::MAX`.
    TooLarge,
}

impl fmt::Display for InvalidCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("expected a number such as 65536, 64Ki, 1M or 2^20"),
            Self::TooLarge => write!(f, "it is too large; the limit is {}", u64::MAX),
        }
    }
}

impl std::error::Error for InvalidCount {}

/// Reads a count: digits, which underscores may group, and an optional binary or decimal prefix, or a power.
///
/// ```
/// use divvy::units::parse_count;
///
/// assert_eq!(parse_count("1_000_003"), Ok(1_000_003));
/// assert_eq!(parse_count("64Ki"), Ok(65_536));
/// assert_eq!(parse_count("2^20"), Ok(1_048_576));
/// ```
///
/// # Errors
/// [`InvalidCount`] if the text is not such a number, or if it is too large.
pub fn parse_count(text: &str) -> Result<u64, InvalidCount> {
    const PREFIXES: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let number = |digits: &str| {
        let digits = digits.replace('_', "");
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidCount::Malformed);
        }
        // Only digits are left, so the only possible error is that the number is too large.
        digits.parse::<u64>().map_err(|_| InvalidCount::TooLarge)
    };
    let count = if let Some((base, exponent)) = text.split_once('^') {
        let (base, exponent) = (number(base)?, number(exponent)?);
        let exponent = u32::try_from(exponent).map_err(|_| InvalidCount::TooLarge)?;
        base.checked_pow(exponent)
    } else {
        let prefixed = PREFIXES
            .iter()
            .find_map(|(prefix, scale)| Some((text.strip_suffix(prefix)?, *scale)));
        let (digits, scale) = prefixed.unwrap_or((text, 1));
        number(digits.trim_end())?.checked_mul(scale)
    };
    count.ok_or(InvalidCount::TooLarge)
}

/// Reads a number of bytes: a count and an optional B, as in `64 MiB`, `64Mi` or `2G`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, InvalidCount> {
    parse_count(text.strip_suffix('B').unwrap_or(text))
}

/// A count with its digits in groups of three, as in `1,048,576`.
pub fn count(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_three_digits_and_a_prefix() {
        for (value, text) in [
            (0.0, "0 s"),
            (8.614e-5, "86.1 µs"),
            (1.0, "1.00 s"),
            (0.99999, "1.00 s"),
            (9.996e-6, "10.0 µs"),
            (9.9951e-4, "1.00 ms"),
            (1234.5, "1.23 ks"),
            (-2e-9, "-2.00 ns"),
            (f64::INFINITY, "inf s"),
        ] {
            assert_eq!(seconds(value), text);
        }
        assert_eq!(quantity(4.71e10, "B/s"), "47.1 GB/s");
    }

    #[test]
    fn whole_binary_multiples_stay_exact() {
        for (value, text) in [
            (0, "0 B"),
            (128 << 20, "128 MiB"),
            (1536 << 20, "1,536 MiB"),
            ((1 << 31) - 256, "2.15 GB"),
            (1000, "1.00 kB"),
        ] {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn counts_are_read_in_every_form() {
        for (text, n) in [
            ("0", 0),
            ("65536", 65536),
            ("1_000_003", 1_000_003),
            ("64Ki", 65536),
            ("64 Ki", 65536),
            ("16Mi", 1 << 24),
            ("1Gi", 1 << 30),
            ("4Ti", 1 << 42),
            ("3k", 3000),
            ("2M", 2_000_000),
            ("1G", 1_000_000_000),
            ("5T", 5_000_000_000_000),
            ("2^20", 1 << 20),
            ("10^0", 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_count(text), Ok(n), "{text}");
        }
    }

    #[test]
    fn malformed_counts_and_too_large_ones_have_different_errors() {
        for text in [
            "", "-1", "+1", "1.5", "1e6", "Ki", "1KiB", "2^", "^2", "2^2^2", " 1", "1 2", "0x10",
        ] {
            assert_eq!(parse_count(text), Err(InvalidCount::Malformed), "{text}");
        }
        for text in [
            "18446744073709551616",
            "18446744073709551615k",
            "16777216Ti",
            "2^64",
            "2^9999999999",
        ] {
            assert_eq!(parse_count(text), Err(InvalidCount::TooLarge), "{text}");
        }
    }

    #[test]
    fn bytes_are_counts_with_or_without_their_unit() {
        for (text, value) in [
            ("65536", 65_536),
            ("64 KiB", 65_536),
            ("64MiB", 64 << 20),
            ("3 GB", 3_000_000_000),
            ("7B", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(value), "{text}");
        }
        for text in ["", "B", "MiB", "7BB", "4gib", "lots"] {
            assert_eq!(parse_bytes(text), Err(InvalidCount::Malformed), "{text}");
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1048576, "1,048,576"),
        ] {
            assert_eq!(count(value), text);
        }
    }
}
