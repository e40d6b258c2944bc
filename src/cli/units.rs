//! Numbers as people read and write them: sizes, counts, times.

const BINARY: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// `6.5 MiB`: powers of 1024, one decimal above bytes.
pub(crate) fn bytes(count: u64) -> String {
    let mut unit = 0;
    let mut value = count as f64;
    // What would be written as 1024.0 is 1.0 of the next unit.
    while value >= 1023.95 && unit + 1 < BINARY.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", BINARY[unit]) }
}

/// `134,515,008`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.42 s`, `42.0 s`, `3 min 07 s`, `2 h 05 min`.
pub(crate) fn seconds(value: f64) -> String {
    if value < 9.995 {
        return format!("{value:.2} s");
    }
    if value < 59.95 {
        return format!("{value:.1} s");
    }
    let whole = value.round() as u64;
    if whole < 3600 {
        return format!("{} min {:02} s", whole / 60, whole % 60);
    }
    format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
}

/// Reads a size: bytes, or a number with `K`, `M`, `G`, `T` (or `KiB`…: powers of 1024) or `kB`, `MB`, `GB`,
/// `TB` (powers of 1000, as cards are sold).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let advice = || "write a size such as 24GB (10^9 bytes) or 512M, 8G, 8.5GiB (powers of 1024)".to_string();
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = text[split..].trim().to_ascii_lowercase();
    let (base, exponent) = match unit.as_str() {
        "" | "b" => (1.0, 0),
        "k" | "kib" => (1024.0, 1),
        "m" | "mib" => (1024.0, 2),
        "g" | "gib" => (1024.0, 3),
        "t" | "tib" => (1024.0, 4),
        "kb" => (1000.0, 1),
        "mb" => (1000.0, 2),
        "gb" => (1000.0, 3),
        "tb" => (1000.0, 4),
        _ => return Err(advice()),
    };
    let value: f64 = text[..split].parse().map_err(|_| advice())?;
    let size = value * f64::powi(base, exponent);
    // Above 2^53 bytes a float is no longer exact, and no device has so much.
    if size < 1.0 || size > (1_u64 << 53) as f64 {
        return Err("a size is at least one byte and at most 8192T".into());
    }
    Ok(size as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_in_powers_of_1024() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (6_832_128, "6.5 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn sizes_are_read_in_both_kinds_of_units() {
        let cases = [
            ("123", 123),
            ("7B", 7),
            ("2K", 2048),
            ("512M", 512 << 20),
            ("1.5G", 3 << 29),
            ("8 GiB", 8 << 30),
            ("8gb", 8_000_000_000),
            ("24GB", 24_000_000_000),
            ("24GiB", 24 << 30),
            ("24G", 24 << 30),
            ("23.7 GB", 23_700_000_000),
            ("2kB", 2000),
            ("1T", 1 << 40),
        ];
        for (text, value) in cases {
            assert_eq!(parse_size(text), Ok(value), "{text}");
        }
        for bad in ["", "G", "-1", "0", "1.2.3", "8X", "1e9", "9999999T", "8GiBB", "nan"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1000), "1,000");
        assert_eq!(count(134_515_008), "134,515,008");
    }

    #[test]
    fn times_lose_digits_as_they_grow() {
        let cases = [
            (0.004, "0.00 s"),
            (0.42, "0.42 s"),
            (9.999, "10.0 s"),
            (59.96, "1 min 00 s"),
            (187.2, "3 min 07 s"),
            (3599.6, "1 h 00 min"),
            (7530.0, "2 h 05 min"),
        ];
        for (value, text) in cases {
            assert_eq!(seconds(value), text);
        }
    }
}
