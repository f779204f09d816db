//! Tables for people: columns without lines.

use std::io::IsTerminal as _;

use comfy_table::ColumnConstraint;
use comfy_table::ContentArrangement;
use comfy_table::Table;

/// Cells up to so many characters (a time, a name, a number) are never broken while there are longer ones to break.
const SHORT: u16 = 24;

/// A table with these headings. On a terminal long cells are broken, so that a row fits its width; in a pipe a row stays whole.
pub(super) fn table(headings: &[&str]) -> Table {
    let stdout = std::io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten();
    fitted(headings, size.map(|size| size.ws_col))
}

fn fitted(headings: &[&str], columns: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(headings.to_vec());
    if let Some(columns) = columns.filter(|columns| *columns > 0) {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
    }
    table
}

/// The table as text.
pub(super) fn drawn(mut table: Table) -> String {
    let widths = table.column_max_content_widths();
    if widths.iter().any(|width| *width > SHORT) {
        for (column, _) in table.column_iter_mut().zip(&widths).filter(|(_, width)| **width <= SHORT) {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    format!("{}\n", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::drawn;
    use super::fitted;

    #[test]
    fn a_row_fits_a_terminal_and_stays_one_line_in_a_pipe() {
        let row = [
            "h1",
            "2026-11-26T12:01:23Z",
            "kube-apiserver: 500: etcd failed: reason withheld; poststarthook failed",
            "none",
        ];
        let of = |columns| {
            let mut table = fitted(&["HOST", "SINCE", "COMPONENTS", "DRIFT"], columns);
            table.add_row(row);
            drawn(table)
        };
        let narrow = of(Some(60));
        assert!(narrow.lines().count() > 2 && narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        assert!(narrow.contains(row[1]), "a time was broken: {narrow}");
        assert_eq!(of(None).lines().count(), 2, "{}", of(None));
    }
}
