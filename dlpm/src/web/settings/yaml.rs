//! A YAML file as keys and values that know their line.

use anyhow::{Result, anyhow, bail};
use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use crate::printable::printable;

/// Furthest distance of a key that is suggested instead of an unknown one (Damerau and Levenshtein).
const FURTHEST: usize = 4;

/// A key with its value. Errors name the line and the key.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// The key.
    pub(super) key: String,
    line: usize,
    value: &'a MarkedYaml<'a>,
}

/// Reads a file: one document whose keys are mapped, or nothing.
///
/// # Errors
///
/// What is not YAML, with its line; more than one document; no mapping.
pub(super) fn parse(text: &str) -> Result<Option<MarkedYaml<'_>>> {
    let mut documents = MarkedYaml::load_from_str(text).map_err(|error| {
        let line = error.marker().line();
        anyhow!("line {line}: it is not YAML: {}", printable(error.info()))
    })?;
    if documents.len() > 1 {
        bail!("it has {} YAML documents; one is read", documents.len());
    }
    Ok(documents.pop().filter(|document| !is_null(document)))
}

/// The entries of a mapping: `what` names it.
///
/// # Errors
///
/// No mapping, or a key that is not a text.
pub(super) fn entries<'a>(node: &'a MarkedYaml<'a>, what: &str) -> Result<Vec<Entry<'a>>> {
    let YamlData::Mapping(mapping) = &node.data else {
        bail!(
            "line {}: {what} holds keys with values, as in `key: value`",
            node.span.start.line()
        );
    };
    let entry = |(key, value): (&'a MarkedYaml<'a>, &'a MarkedYaml<'a>)| {
        let line = key.span.start.line();
        let YamlData::Value(Scalar::String(text)) = &key.data else {
            bail!("line {line}: a key of {what} is not a text; put quotes around it");
        };
        let key = text.clone().into_owned();
        Ok(Entry { key, line, value })
    };
    mapping.iter().map(entry).collect()
}

impl<'a> Entry<'a> {
    /// An error about this entry.
    pub(super) fn wrong(&self, why: impl std::fmt::Display) -> anyhow::Error {
        anyhow!("line {}: {}: {why}", self.line, printable(&self.key))
    }

    /// The error for a key that is none of the known ones.
    pub(super) fn unknown(&self, what: &str, known: &[&str]) -> anyhow::Error {
        let key = printable(&self.key);
        let distance = |known: &str| strsim::damerau_levenshtein(&known.to_lowercase(), &self.key.to_lowercase());
        let nearest = known.iter().min_by_key(|known| distance(known));
        let advice = match nearest.filter(|nearest| distance(nearest) <= FURTHEST) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("known keys are {}", known.join(", ")),
        };
        anyhow!("line {}: unknown key `{key}` in {what}; {advice}", self.line)
    }

    /// The entries of a mapping below this key; none where nothing stands there.
    pub(super) fn entries(&self) -> Result<Vec<Entry<'a>>> {
        if is_null(self.value) {
            return Ok(Vec::new());
        }
        entries(self.value, &format!("`{}`", printable(&self.key)))
    }

    /// The text of this key; `None` where nothing stands there.
    pub(super) fn text(&self) -> Result<Option<String>> {
        match &self.value.data {
            _ if is_null(self.value) => Ok(None),
            YamlData::Value(Scalar::String(text)) if text.is_empty() => Ok(None),
            YamlData::Value(Scalar::String(text)) => Ok(Some(text.clone().into_owned())),
            _ => Err(self.wrong("it is not a text; put quotes around it")),
        }
    }

    /// The truth value of this key.
    pub(super) fn flag(&self) -> Result<bool> {
        match &self.value.data {
            YamlData::Value(Scalar::Boolean(flag)) => Ok(*flag),
            _ => Err(self.wrong("it is neither true nor false")),
        }
    }

    /// Whether anything stands there.
    pub(super) fn is_set(&self) -> bool {
        match &self.value.data {
            YamlData::Sequence(items) => !items.is_empty(),
            _ => !is_null(self.value),
        }
    }
}

fn is_null(node: &MarkedYaml<'_>) -> bool {
    matches!(node.data, YamlData::Value(Scalar::Null))
}
