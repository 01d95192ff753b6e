//! Text of others inside HTML, and numbers as people read them.

use std::fmt;

/// Text that means nothing to a browser but itself, between tags and inside quoted attributes alike.
pub(super) struct Escaped<'a>(&'a str);

/// Every word that comes out of a report goes through this, or through [`json_block`].
pub(super) fn escaped(text: &str) -> Escaped<'_> {
    Escaped(text)
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            // HTML allows no control character but white space.
            c if c.is_control() => f.write_str(" "),
            c => write!(f, "{c}"),
        })
    }
}

/// A JSON text that can stand inside a `script` element: nothing in it ends the element or begins a comment.
pub(super) fn json_block(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A number with its thousands parted by commas.
pub(super) fn grouped(value: f64, digits: usize) -> String {
    let plain = format!("{:.*}", digits, value.abs());
    let (whole, rest) = plain.split_once('.').map_or((plain.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut text = String::new();
    for (n, digit) in whole.chars().enumerate() {
        if n > 0 && (whole.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    let is_zero = !plain.contains(|c: char| c.is_ascii_digit() && c != '0');
    let sign = if value < 0.0 && !is_zero { "\u{2212}" } else { "" };
    format!("{sign}{text}{}", rest.map_or(String::new(), |rest| format!(".{rest}")))
}

/// Rates from here on need no tenths, kbit/s.
const WHOLE_KBPS: f64 = 100.0;

/// A rate in kbit/s, without its unit.
pub(super) fn rate(kbps: f64) -> String {
    grouped(kbps, usize::from(kbps.abs() < WHOLE_KBPS))
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    let value = share * 100.0;
    format!("{}\u{202f}%", grouped(value, usize::from(value.abs() < 10.0)))
}

/// So many of something: `1 chunk`, `3 chunks`.
pub(super) fn count(n: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(n as f64, 0), if n == 1 { "" } else { "s" })
}

/// A place in the title: `1:02.5`, `1:01:02.5`.
pub(super) fn clock(seconds: f64) -> String {
    let tenths = (seconds.max(0.0) * 10.0).round() as u64;
    let (s, tenth) = (tenths / 10, tenths % 10);
    match s / 3600 {
        0 => format!("{}:{:02}.{tenth}", s / 60, s % 60),
        hours => format!("{hours}:{:02}:{:02}.{tenth}", s / 60 % 60, s % 60),
    }
}

/// How long something lasts.
pub(super) fn lasting(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..100 => format!("{} s", grouped(seconds, 1)),
        100..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_opens_no_tag_and_ends_no_attribute() {
        let text = escaped("<img src=x onerror=\"a\">'&\u{0}\u{1b}").to_string();
        assert_eq!(text, "&lt;img src=x onerror=&quot;a&quot;&gt;&#39;&amp;  ");
        let block = json_block(r#"{"a":"</script><!--&"}"#);
        assert!(!block.contains(['<', '>', '&']), "{block}");
        let value: serde_json::Value = serde_json::from_str(&block).unwrap();
        assert_eq!(value["a"], "</script><!--&", "and it still means the same");
    }

    #[test]
    fn numbers_are_said_as_people_read_them() {
        let said = [
            (0.0, 0, "0"),
            (999.4, 0, "999"),
            (1_234_567.0, 0, "1,234,567"),
            (-1234.56, 1, "\u{2212}1,234.6"),
            (-0.01, 1, "0.0"),
        ];
        said.iter().for_each(|(value, digits, text)| assert_eq!(grouped(*value, *digits), *text));
        assert_eq!([rate(11.34), rate(1735.4)], ["11.3", "1,735"]);
        assert_eq!([percent(0.0316), percent(0.42)], ["3.2\u{202f}%", "42\u{202f}%"]);
        assert_eq!([clock(0.04), clock(62.46), clock(3725.0)], ["0:00.0", "1:02.5", "1:02:05.0"]);
        assert_eq!([lasting(9.96), lasting(125.2), lasting(7500.0)], ["10.0 s", "2 min 5 s", "2 h 5 min"]);
        assert_eq!([count(1, "chunk"), count(1200, "seam")], ["1 chunk", "1,200 seams"]);
    }
}
