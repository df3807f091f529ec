//! What people and programs are shown of sums: a table is built once, of exact integers with a unit for each column, and
//! written three ways: for a terminal ([`text`]), for programs ([`record`]: JSON and CSV), and for the page ([`html`]).
//!
//! [`consumers`], [`zones`] and [`phases`] build tables; [`answer`] is the one line that stands above them.

pub mod answer;
pub mod consumers;
pub mod figures;
pub mod gpus;
pub mod html;
pub mod notes;
pub mod phases;
pub mod record;
pub mod summary;
pub mod text;
pub mod zones;

use figures::{UNKNOWN, decimal, percent, watts};

use crate::totals::{Peak, Share};

/// What a column is of, which says how its values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Words, numbers that count something, flags.
    Plain,
    /// Whole numbers of 10^-N; people read units with three decimals.
    Exact(u32),
    /// The same; programs, too, read units, as floats.
    Float(u32),
    /// Energy by time; watts.
    Watts,
    /// A part of a whole; people read percent.
    Share,
    /// A number with this many decimals.
    Decimals(usize),
}

impl Unit {
    /// Nanoseconds; people read seconds.
    pub const NS: Self = Self::Exact(9);
    /// Nanoseconds that everybody reads as seconds.
    pub const SECONDS: Self = Self::Float(9);
    /// Microjoules; people read joules.
    pub const UJ: Self = Self::Exact(6);
    /// Microjoules that everybody reads as joules.
    pub const JOULES: Self = Self::Float(6);
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// There is none here.
    None,
    /// There is one, and it is not known.
    Unknown,
    /// Words.
    Text(String),
    /// Several words.
    Words(Vec<&'static str>),
    /// Several names.
    Names(Vec<String>),
    /// A whole number in the unit of its column.
    Whole(u128),
    /// One that may be negative.
    Signed(i128),
    /// Energy over a time.
    Rate {
        /// µJ.
        energy_uj: u128,
        /// The time.
        length_ns: u128,
    },
    /// A part of a whole.
    Part(u128, u128),
    /// A figure that was not exact to begin with.
    Real(f64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A number that counts something.
pub fn count(number: impl Into<u128>) -> Value {
    Value::Whole(number.into())
}

/// What may not be known.
pub fn known<T>(value: Option<T>, make: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::Unknown, make)
}

/// What may be absent.
pub fn given<T>(value: Option<T>, make: impl FnOnce(T) -> Value) -> Value {
    value.map_or(Value::None, make)
}

/// Average power of energy that may not be known.
pub fn average(energy_uj: Option<u128>, length_ns: u128) -> Value {
    known(energy_uj, |energy_uj| Value::Rate { energy_uj, length_ns })
}

/// The power of the highest interval.
pub fn highest(peak: Peak) -> Value {
    known(peak.interval(), |(energy_uj, length_ns)| Value::Rate {
        energy_uj,
        length_ns: length_ns.into(),
    })
}

impl Value {
    /// What people read.
    pub fn shown(&self, unit: Unit) -> String {
        match (self, unit) {
            (Self::None, _) => String::new(),
            (Self::Unknown, Unit::UJ | Unit::JOULES) => UNKNOWN.to_owned(),
            (Self::Unknown, _) => "-".to_owned(),
            (Self::Text(text), _) => text.clone(),
            (Self::Words(words), _) => words.join(", "),
            (Self::Names(names), _) => names.join(", "),
            (Self::Whole(number), Unit::Exact(digits) | Unit::Float(digits)) => decimal(*number, digits, 3),
            (Self::Whole(number), _) => number.to_string(),
            (Self::Signed(number), _) => number.to_string(),
            (Self::Rate { energy_uj, length_ns }, _) => watts(*energy_uj, *length_ns),
            (Self::Part(part, whole), _) => percent(*part, *whole),
            (Self::Real(number), Unit::Decimals(decimals)) => format!("{number:.decimals$}"),
            (Self::Real(number), _) => format!("{number:.3}"),
        }
    }

    /// As a float; `None` for words and what is not known.
    pub fn number(&self, unit: Unit) -> Option<f64> {
        Some(match (self, unit) {
            (Self::None | Self::Unknown | Self::Text(_) | Self::Words(_) | Self::Names(_), _) => return None,
            (Self::Whole(number), Unit::Float(digits)) => *number as f64 / 10_u64.pow(digits) as f64,
            (Self::Whole(number), _) => *number as f64,
            (Self::Signed(number), _) => *number as f64,
            // µJ over ns are kilowatts.
            (Self::Rate { length_ns: 0, .. } | Self::Part(_, 0), _) => return None,
            (Self::Rate { energy_uj, length_ns }, _) => *energy_uj as f64 / *length_ns as f64 * 1000.0,
            (Self::Part(part, whole), _) => *part as f64 / *whole as f64,
            (Self::Real(number), _) => *number,
        })
    }
}

/// How people see a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What the row is called.
    Name,
    /// What else tells it from others.
    Aside,
    /// The same, and left out where it is the same in every row.
    Common,
    /// A number.
    Number,
    /// A part, with a bar.
    Bar,
}

/// A column: for people, for programs, or for both.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// What programs call it; the object that it stands in, if any, before it.
    pub key: Option<(Option<&'static str>, String)>,
    /// What people call it.
    pub title: Option<String>,
    /// What it is of.
    pub unit: Unit,
    /// How people see it.
    pub look: Look,
}

impl Column {
    /// For people and programs.
    pub fn new(key: &str, title: &str, unit: Unit) -> Self {
        Self {
            title: Some(title.to_owned()),
            ..Self::programs(key, unit)
        }
    }

    /// For programs alone.
    pub fn programs(key: &str, unit: Unit) -> Self {
        Self {
            key: Some((None, key.to_owned())),
            title: None,
            unit,
            look: Look::Number,
        }
    }

    /// For people alone.
    pub fn people(title: &str, unit: Unit) -> Self {
        Self {
            key: None,
            title: Some(title.to_owned()),
            unit,
            look: Look::Number,
        }
    }

    /// In an object of that name.
    #[must_use]
    pub fn inside(mut self, object: &'static str) -> Self {
        self.key = self.key.map(|(_, key)| (Some(object), key));
        self
    }

    /// Seen in another way.
    #[must_use]
    pub fn look(mut self, look: Look) -> Self {
        self.look = look;
        self
    }

    /// Shown to people only if `wanted`.
    #[must_use]
    pub fn shown_if(mut self, wanted: bool) -> Self {
        self.title = self.title.filter(|_| wanted);
        self
    }
}

/// What people call the listed processes that have no row of their own.
pub const SMALLER: &str = "smaller ones";

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has a name.
    Named,
    /// What the listed processes used that have no row of their own.
    Smaller,
    /// A row of the balance that is not a process.
    Fixed(Share),
    /// The sum of the rows since the one before; made from other sums than they, and for people alone.
    Total,
}

impl Kind {
    /// The word for a row without a name, which `named` is for those that have one.
    pub fn word(self, named: &'static str) -> &'static str {
        match self {
            Self::Named => named,
            Self::Smaller => "smaller",
            Self::Fixed(share) => share.as_str(),
            Self::Total => "total",
        }
    }

    /// What people read where the name of a row would be; `None` where it has one.
    pub fn label(self) -> Option<String> {
        match self {
            Self::Named => None,
            Self::Smaller => Some(format!("({SMALLER})")),
            Self::Fixed(share) => Some(format!("({})", share.as_str())),
            Self::Total => Some("total".to_owned()),
        }
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is.
    pub kind: Kind,
    /// A value for each column.
    pub values: Vec<Value>,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What programs call it.
    pub id: &'static str,
    /// Heading.
    pub title: String,
    /// What has to be known to read it, a sentence each.
    pub notes: Vec<String>,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows.
    pub rows: Vec<Row>,
}

/// What people see of a table.
#[derive(Debug)]
pub struct View<'a> {
    /// Position, title and column of those that are shown.
    pub columns: Vec<(usize, &'a str, &'a Column)>,
    /// What is the same in every row, as `cgroup /`.
    pub common: Vec<String>,
    /// What the longest bar stands for.
    pub longest: f64,
}

impl Table {
    /// The columns for people, without those that say the same in every row.
    pub fn view(&self) -> View<'_> {
        let (mut columns, mut common, mut longest) = (Vec::new(), Vec::new(), 0.0_f64);
        for (index, column) in self.columns.iter().enumerate() {
            let Some(title) = column.title.as_deref() else { continue };
            let values = self.rows.iter().filter_map(|row| row.values.get(index));
            let mut present = values.filter(|value| **value != Value::None);
            // What no row has needs no column, and what all have alike is said once.
            match present.next() {
                None if column.look != Look::Name => continue,
                Some(first) if column.look == Look::Common && present.all(|value| value == first) => {
                    common.push(format!("{title} {} in every row", first.shown(column.unit)));
                    continue;
                }
                _ => {}
            }
            if column.look == Look::Bar {
                let parts = self.rows.iter().filter_map(|row| self.part(row, index));
                longest = parts.fold(longest, f64::max);
            }
            columns.push((index, title, column));
        }
        View {
            columns,
            common,
            longest,
        }
    }

    /// What the bar of a cell stands for. Consumers have one, so that they can be compared: what is idle or others' can be
    /// many times as much.
    fn part(&self, row: &Row, index: usize) -> Option<f64> {
        let has_bar = matches!(row.kind, Kind::Named | Kind::Smaller);
        let (column, value) = self.columns.get(index).zip(row.values.get(index))?;
        value.number(column.unit).filter(|_| has_bar)
    }

    /// How long the bar of a cell is, from 0 to 1; `None` without one.
    pub fn bar(&self, row: &Row, index: usize, longest: f64) -> Option<f64> {
        self.part(row, index)
            .map(|part| if longest > 0.0 { part / longest } else { 0.0 })
    }

    /// What people read in a cell, without what the row's kind says.
    pub fn shown(&self, row: &Row, index: usize) -> String {
        let (Some(column), Some(value)) = (self.columns.get(index), row.values.get(index)) else {
            return String::new();
        };
        match row.kind.label().filter(|_| column.look == Look::Name) {
            Some(label) => label,
            None => value.shown(column.unit),
        }
    }
}

/// The largest `top` of `groups` by `size`, by name where that is equal, and the others.
pub fn largest<T, S: Ord>(
    mut groups: Vec<(Vec<Value>, T)>,
    top: usize,
    size: impl Fn(&T) -> S,
) -> (Vec<(Vec<Value>, T)>, Vec<T>) {
    groups.sort_by(|(names_a, a), (names_b, b)| {
        size(b)
            .cmp(&size(a))
            .then_with(|| format!("{names_a:?}").cmp(&format!("{names_b:?}")))
    });
    let smaller = groups.split_off(top.min(groups.len()));
    (groups, smaller.into_iter().map(|(_, group)| group).collect())
}

/// How much of a table is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Rows with a name, at most.
    pub top: usize,
    /// Whether there are the kinds of energy beside their sum, and the highest power.
    pub details: bool,
    /// Whether each process has a row, or those of one name share one.
    pub each: bool,
}

impl Depth {
    /// Everything.
    pub const ALL: Self = Self {
        top: usize::MAX,
        details: true,
        each: true,
    };
}

#[cfg(test)]
mod tests;
