//! Tables for people: columns without lines.

use std::io::IsTerminal as _;

use comfy_table::ContentArrangement;
use comfy_table::Table;

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

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn a_row_fits_a_terminal_and_stays_one_line_in_a_pipe() {
        let row =
            ["h1", "v1.37.1", "kube-apiserver: 500: etcd failed: reason withheld; poststarthook failed", "none", ""];
        let drawn = |columns| {
            let mut table = fitted(&["HOST", "KUBELET", "COMPONENTS", "DRIFT", "LOCK"], columns);
            table.add_row(row);
            table.trim_fmt()
        };
        let narrow = drawn(Some(60));
        assert!(narrow.lines().count() > 2 && narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        assert_eq!(drawn(None).lines().count(), 2, "{}", drawn(None));
    }
}
