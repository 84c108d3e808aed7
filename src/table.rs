//! Aligned columns and numbers for people.

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
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">size", "why"]);
        table.row(vec!["a".into(), "10".into(), "one".into()]);
        table.row(vec!["longer".into(), "5".into(), String::new()]);
        let text = table.render(|_, line| line);
        assert_eq!(text, "name    size  why\na         10  one\nlonger     5\n");
    }
}
