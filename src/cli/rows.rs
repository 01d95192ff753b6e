//! Rows of cells: a table for people, CSV for spreadsheets.

/// Rows under a head.
pub(super) struct Rows<const N: usize> {
    head: [&'static str; N],
    /// So many columns from the left hold words and begin on the left; the others hold numbers and end on the right.
    words: usize,
    rows: Vec<[String; N]>,
}

impl<const N: usize> Rows<N> {
    pub fn new(head: [&'static str; N], words: usize) -> Self {
        Self { head, words, rows: Vec::new() }
    }

    pub fn push(&mut self, row: [String; N]) {
        self.rows.push(row.map(|cell| plain(&cell)));
    }

    /// Columns two spaces apart. No spaces at the end of a line.
    pub fn table(&self) -> String {
        let head = self.head.map(String::from);
        let all = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..N).map(width).collect();
        let line = |row: &[String; N]| {
            let cell = |(n, text): (usize, &String)| {
                if n < self.words { format!("{text:<0$}", widths[n]) } else { format!("{text:>0$}", widths[n]) }
            };
            row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
        };
        all().map(line).collect()
    }

    /// RFC 4180, with line feeds alone, as text tools here expect them.
    pub fn csv(&self) -> String {
        let line = |cells: &mut dyn Iterator<Item = &str>| cells.map(quoted).collect::<Vec<_>>().join(",") + "\n";
        let head = line(&mut self.head.into_iter());
        head + &self.rows.iter().map(|row| line(&mut row.iter().map(String::as_str))).collect::<String>()
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.into() }
}

/// Text of others, fit for a terminal: nothing in it moves the cursor or changes a colour.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A number of bytes as people say it.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in UNITS {
        // What would be rounded up to a thousand is one of the next unit.
        if value < 999.95 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_on_the_left_and_numbers_end_on_the_right() {
        let mut rows = Rows::new(["job", "state", "parts"], 2);
        rows.push(["talk".into(), "completed".into(), "12".into()]);
        rows.push(["a-longer-name".into(), "failed".into(), "1234".into()]);
        let expected = "\
job            state      parts
talk           completed     12
a-longer-name  failed      1234
";
        assert_eq!(rows.table(), expected);
    }

    #[test]
    fn a_cell_of_csv_is_quoted_where_it_must_be() {
        let mut rows = Rows::new(["job", "why"], 2);
        rows.push(["talk".into(), "no \"moov\", so no index".into()]);
        rows.push(["plain".into(), String::new()]);
        assert_eq!(rows.csv(), "job,why\ntalk,\"no \"\"moov\"\", so no index\"\nplain,\n");
    }

    #[test]
    fn words_of_others_cannot_drive_a_terminal() {
        let mut rows = Rows::new(["why"], 1);
        rows.push(["\u{1b}[2Jgone\r\n\u{9b}31m".into()]);
        assert!(!rows.table().trim_end().chars().any(|c| c.is_control() && c != '\n'));
        assert_eq!(rows.table(), "why\n [2Jgone   31m\n");
    }

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        let sizes =
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (6_249_820, "6.2 MB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18446.7 PB");
    }
}
