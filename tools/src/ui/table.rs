//! Plain aligned tables: a header, no borders, numbers to the right.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, presets};
use std::fmt::Display;

/// A table that is filled row by row and printed whole.
pub(crate) struct Table(comfy_table::Table);

/// Which way a column leans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Words.
    Left(&'static str),
    /// Figures.
    Right(&'static str),
}

pub(crate) use Column::{Left, Right};

/// A plain cell.
pub(crate) fn text(value: impl Display) -> Cell {
    Cell::new(value)
}

/// A cell that says all is well.
pub(crate) fn good(value: impl Display) -> Cell {
    Cell::new(value).fg(Color::Green)
}

/// A cell that deserves a look.
pub(crate) fn warn(value: impl Display) -> Cell {
    Cell::new(value).fg(Color::Yellow)
}

/// A cell that tells of a failure.
pub(crate) fn bad(value: impl Display) -> Cell {
    Cell::new(value).fg(Color::Red).add_attribute(Attribute::Bold)
}

/// A cell of less weight.
pub(crate) fn dim(value: impl Display) -> Cell {
    Cell::new(value).add_attribute(Attribute::Dim)
}

/// A figure: dimmed when zero, so that the others stand out.
pub(crate) fn figure(value: u64) -> Cell {
    let shown = super::units::count(value);
    if value == 0 { dim(shown) } else { text(shown) }
}

/// A figure that should be zero: in `colour` when it is not.
pub(crate) fn unless_zero(value: u64, colour: fn(String) -> Cell) -> Cell {
    if value == 0 { figure(0) } else { colour(super::units::count(value)) }
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: &[Column]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).enforce_styling();
        table.set_header(columns.iter().map(|column| {
            let (Left(name) | Right(name)) = column;
            Cell::new(name).add_attribute(Attribute::Bold)
        }));
        for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
            shown.set_padding((0, 2));
            shown.set_cell_alignment(match column {
                Left(_) => CellAlignment::Left,
                Right(_) => CellAlignment::Right,
            });
        }
        Self(table)
    }

    /// Adds one row: as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.add_row(cells.into_iter().collect::<Vec<_>>());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for line in self.0.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_styles_can_be_stripped() {
        let mut table = Table::new(&[Left("IP"), Right("QUEUED")]);
        table.row([text("127.0.10.1"), figure(12)]);
        table.row([text("::1"), unless_zero(12_345, bad)]);
        let shown = anstream::adapter::strip_str(&table.to_string()).to_string();
        let lines: Vec<_> = shown.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["IP          QUEUED", "127.0.10.1      12", "::1         12,345"]);
    }
}
