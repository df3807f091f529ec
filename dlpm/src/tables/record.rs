//! Named cells, and how they are written as JSON and CSV; a table as such records. Integers stay whole.

use std::collections::HashMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Kind, Table, Unit, Value};
use crate::printable::one_line;

/// One cell, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Not known, or not there.
    Missing,
    /// Words.
    Text(String),
    /// A whole number.
    Whole(u128),
    /// A whole number that may be negative.
    Signed(i128),
    /// A convenience, made from whole numbers.
    Float(f64),
    /// Yes or no.
    Flag(bool),
    /// Several, each with a name.
    Object(Record),
    /// Several in a row.
    List(Vec<Cell>),
}

/// Cells with their names, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record(pub Vec<(String, Cell)>);

impl Record {
    /// Adds a cell at the end.
    #[must_use]
    pub fn with(mut self, name: &str, cell: impl Into<Cell>) -> Self {
        self.0.push((name.to_owned(), cell.into()));
        self
    }

    /// Adds all cells of another one at the end.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The cell of that name.
    pub fn get(&self, name: &str) -> Option<&Cell> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, cell)| cell)
    }
}

macro_rules! cell_from {
    ($($from:ty => $cell:expr),* $(,)?) => {
        $(impl From<$from> for Cell {
            fn from(value: $from) -> Self {
                $cell(value)
            }
        })*
    };
}

cell_from! {
    &str => |text: &str| Self::Text(text.to_owned()),
    String => Self::Text,
    u32 => |number| Self::Whole(u128::from(number)),
    u64 => |number| Self::Whole(u128::from(number)),
    u128 => Self::Whole,
    i64 => |number| Self::Signed(i128::from(number)),
    i128 => Self::Signed,
    f64 => Self::Float,
    bool => Self::Flag,
    Record => Self::Object,
    Vec<Cell> => Self::List,
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}

impl FromIterator<Record> for Cell {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        Self::List(records.into_iter().map(Self::Object).collect())
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Missing => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Whole(number) => serializer.serialize_u128(*number),
            Self::Signed(number) => serializer.serialize_i128(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Object(record) => record.serialize(serializer),
            Self::List(cells) => cells.serialize(serializer),
        }
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, cell) in &self.0 {
            map.serialize_entry(name, cell)?;
        }
        map.end()
    }
}

impl Table {
    /// A record for each row but totals.
    pub fn records(&self) -> Vec<Record> {
        let rows = self.rows.iter().filter(|row| row.kind != Kind::Total);
        rows.map(|row| {
            let mut record = Record::default();
            for (column, value) in self.columns.iter().zip(&row.values) {
                let Some((object, key)) = &column.key else { continue };
                let Some(object) = object else {
                    record.0.push((key.clone(), cell(value, column.unit)));
                    continue;
                };
                if record.0.last().is_none_or(|(name, _)| name != object) {
                    record = record.with(object, Record::default());
                }
                // What an object has nothing of is not in it.
                if let Some((_, Cell::Object(inner))) = record.0.last_mut()
                    && *value != Value::None
                {
                    inner.0.push((key.clone(), cell(value, column.unit)));
                }
            }
            record
        })
        .collect()
    }
}

fn cell(value: &Value, unit: Unit) -> Cell {
    match (value, unit) {
        (Value::None | Value::Unknown, _) => Cell::Missing,
        (Value::Text(text), _) => text.as_str().into(),
        (Value::Words(words), _) => Cell::List(words.iter().map(|word| Cell::from(*word)).collect()),
        (Value::Names(names), _) => Cell::List(names.iter().map(|name| Cell::from(name.as_str())).collect()),
        (Value::Whole(number), Unit::Plain | Unit::Exact(_)) => Cell::Whole(*number),
        (Value::Signed(number), _) => Cell::Signed(*number),
        _ => value.number(unit).into(),
    }
}

/// Records as CSV with a line of names first. Objects become one column for each name in any of them, `outer.inner`.
///
/// Spreadsheets compute a cell that begins with `=`, `+`, `-` or `@`. Such a text gets a `'` before it, by which they
/// know text; a number stays a number, a negative one too.
///
/// # Errors
///
/// If they cannot be written, which writing to memory rules out.
pub fn csv(records: &[Record]) -> anyhow::Result<String> {
    let rows: Vec<Vec<(String, String)>> = records.iter().map(flat).collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        places.entry(name).or_insert_with(|| {
            names.push(name);
            names.len() - 1
        });
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    if !names.is_empty() {
        writer.write_record(names.iter().map(|name| plain(name)))?;
    }
    for row in &rows {
        let mut cells = vec![""; names.len()];
        for (name, text) in row {
            if let Some(cell) = places.get(name.as_str()).and_then(|place| cells.get_mut(*place)) {
                *cell = text;
            }
        }
        writer.write_record(&cells)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Text that neither a terminal obeys nor a spreadsheet computes.
fn plain(text: &str) -> String {
    let text = one_line(text);
    let computed = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
    if text.trim_start().starts_with(computed) && !text.parse::<f64>().is_ok_and(f64::is_finite) {
        return format!("'{text}");
    }
    text
}

fn flat(record: &Record) -> Vec<(String, String)> {
    let mut cells = Vec::new();
    for (name, cell) in &record.0 {
        match cell {
            Cell::Object(inner) => {
                let inner = flat(inner)
                    .into_iter()
                    .map(|(below, text)| (format!("{name}.{below}"), text));
                cells.extend(inner);
            }
            cell => cells.push((name.clone(), text(cell))),
        }
    }
    cells
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => plain(text),
        Cell::Whole(number) => number.to_string(),
        Cell::Signed(number) => number.to_string(),
        Cell::Float(number) if number.is_finite() => number.to_string(),
        Cell::Flag(flag) => flag.to_string(),
        Cell::List(cells) => cells.iter().map(text).collect::<Vec<_>>().join("; "),
        Cell::Missing | Cell::Float(_) | Cell::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_computes_no_name_and_a_terminal_obeys_none() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("-2+3", "'-2+3"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "?=1"),
            ("\r=1", "?=1"),
            (" =1", "' =1"),
            ("＝1", "'＝1"),
            ("-inf", "'-inf"),
            ("-5", "-5"),
            ("-1.5e3", "-1.5e3"),
            ("a=b", "a=b"),
            ("\u{1b}[2J\u{202e}", "?[2J?"),
        ] {
            let record = Record::default().with(text, text);
            assert_eq!(csv(&[record]).unwrap(), format!("{cell}\n{cell}\n"), "{text:?}");
        }
        let record = Record::default().with("energy_uj", -5_i64).with("watts", -0.5);
        assert_eq!(csv(&[record]).unwrap(), "energy_uj,watts\n-5,-0.5\n");
    }

    #[test]
    fn integers_stay_whole_and_missing_is_nothing() {
        let records = [
            Record::default()
                .with("name", "a \"b\", c")
                .with("energy_uj", u128::from(u64::MAX) + 1)
                .with("zones", Record::default().with("core", 1_u64)),
            Record::default()
                .with("name", None::<&str>)
                .with("energy_uj", -5_i64)
                .with("zones", Record::default().with("dram", 0.5).with("core", f64::NAN)),
        ];
        assert_eq!(
            serde_json::to_string(&records[0]).unwrap(),
            r#"{"name":"a \"b\", c","energy_uj":18446744073709551616,"zones":{"core":1}}"#
        );
        assert_eq!(
            serde_json::to_string(&records[1]).unwrap(),
            r#"{"name":null,"energy_uj":-5,"zones":{"dram":0.5,"core":null}}"#
        );
        let csv = csv(&records).unwrap();
        assert_eq!(
            csv,
            "name,energy_uj,zones.core,zones.dram\n\"a \"\"b\"\", c\",18446744073709551616,1,\n,-5,,0.5\n"
        );
    }
}
