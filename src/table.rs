//! Aligned columns, numbers, durations and dates for people.

pub use minic_compiler::text::grouped;

/// Rows of cells under a head, columns as wide as their widest cell. Columns of numbers are right-aligned.
pub struct Table {
    pub head: Vec<String>,
    /// By column.
    pub numeric: Vec<bool>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Titles; those of columns of numbers begin with `>`.
    pub fn new<T: AsRef<str>>(titles: &[T]) -> Table {
        let titles = titles.iter().map(AsRef::as_ref);
        Table {
            head: titles.clone().map(|t| t.trim_start_matches('>').to_string()).collect(),
            numeric: titles.map(|t| t.starts_with('>')).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// `style` is given each line and its number, 0 for the head, and may color it.
    pub fn render(&self, style: impl Fn(usize, String) -> String) -> String {
        let lines: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|l| l.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut out = String::new();
        for (number, line) in lines.iter().enumerate() {
            let cell = |(column, cell): (usize, &String)| {
                let pad = " ".repeat(widths.get(column).unwrap_or(&0) - cell.chars().count());
                if self.numeric.get(column) == Some(&true) { pad + cell } else { format!("{cell}{pad}") }
            };
            let text = line.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
            out.push_str(&style(number, text.trim_end().to_string()));
            out.push('\n');
        }
        out
    }
}

/// `16.2 GB`: three digits and a decimal unit.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `1.27 P`: operations.
pub fn operations(n: f64) -> String {
    scaled(n, &["", "K", "M", "G", "T", "P", "E", "Z", "Y"]).trim_end().to_string()
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match (unit, value) {
        (0, _) => 0,
        (_, v) if v < 9.995 => 2,
        (_, v) if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", units[unit])
}

/// `0.4 s`, `12 s`, `3 min 20 s`, `5 h 12 min`, `12 d 3 h`, `31 years`: two units at most.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 0.05 => "<0.1 s".into(),
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        ..120 => format!("{whole} s"),
        120..7200 => two(whole, 60, "min", 1, "s"),
        7200..172_800 => two(whole, 3600, "h", 60, "min"),
        172_800..94_608_000 => two(whole, 86_400, "d", 3600, "h"),
        _ => format!("{} years", grouped(whole / 31_557_600)),
    }
}

fn two(seconds: u64, large: u64, of: &str, small: u64, and: &str) -> String {
    match seconds % large / small {
        0 => format!("{} {of}", seconds / large),
        rest => format!("{} {of} {rest} {and}", seconds / large),
    }
}

/// `2026-11-26`: so many days after 1970-01-01, in the Gregorian calendar; years begin in March, so that a leap day ends one
/// (Hinnant, chrono-compatible low-level date algorithms).
pub fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1000), bytes(16_201_705_472)],
            ["0 B", "999 B", "1.00 kB", "16.2 GB"]
        );
        assert_eq!([operations(12.0), operations(999_999.0), operations(8.2e22)], ["12", "1.00 M", "82.0 Z"]);
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [
            (0.0, "<0.1 s"),
            (0.44, "0.4 s"),
            (12.2, "12 s"),
            (119.0, "119 s"),
            (200.0, "3 min 20 s"),
            (7200.0, "2 h"),
            (18_720.0, "5 h 12 min"),
            (1_047_600.0, "12 d 3 h"),
            (1e12, "31,688 years"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn days_have_their_dates() {
        let known = [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_783, "2026-11-26")];
        for (days, expected) in known {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">size", "why"]);
        table.row(vec!["a".into(), "10".into(), "one".into()]);
        table.row(vec!["longer".into(), "5".into(), String::new()]);
        let text = table.render(|_, line| line);
        assert_eq!(text, "name    size  why\na         10  one\nlonger     5\n");
    }
}
