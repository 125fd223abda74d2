//! JSON values that know their file and their name in it, for messages.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::{fmt, path::Path, rc::Rc};

static NULL: Value = Value::Null;

/// A JSON value with its name, such as `model.vocab`, and its file.
#[derive(Debug, Clone)]
pub(crate) struct JsonNode<'j> {
    value: &'j Value,
    name: Name,
    path: &'j Path,
}

/// The name of a value. It is formatted only for messages, as files have many values.
#[derive(Debug, Clone)]
struct Name {
    /// The keys from the top, joined by dots. Empty for the whole file.
    key: Rc<str>,
    /// The index in the array `key`; None if the value is `key` itself.
    item: Option<usize>,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&*self.key, self.item) {
            ("", None) => f.write_str("the top"),
            (key, None) => f.write_str(key),
            (key, Some(i)) => write!(f, "{key}[{i}]"),
        }
    }
}

impl<'j> JsonNode<'j> {
    /// The whole file.
    pub(crate) fn root(value: &'j Value, path: &'j Path) -> Self {
        Self {
            value,
            name: Name {
                key: "".into(),
                item: None,
            },
            path,
        }
    }

    /// The node of a value inside this one.
    pub(crate) fn child(&self, key: &str, value: &'j Value) -> Self {
        let key = match (&*self.name.key, self.name.item) {
            ("", None) => key.into(),
            _ => format!("{}.{key}", self.name).into(),
        };
        Self {
            value,
            name: Name { key, item: None },
            path: self.path,
        }
    }

    /// The value of `key`. A missing value is null, as the format makes no difference.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.child(key, self.value.get(key).unwrap_or(&NULL))
    }

    /// The value as an object.
    pub(crate) fn object(&self) -> Result<&'j Map<String, Value>> {
        self.value
            .as_object()
            .ok_or_else(|| self.expected("an object"))
    }

    /// The elements of the value, which must be an array. In the names of elements of an array in an array only the
    /// inner index is shown: a longer name would be allocated for each merge.
    pub(crate) fn items(&self) -> Result<Vec<Self>> {
        let items = self
            .value
            .as_array()
            .ok_or_else(|| self.expected("an array"))?;
        let nodes = items.iter().enumerate().map(|(i, value)| Self {
            value,
            name: Name {
                key: Rc::clone(&self.name.key),
                item: Some(i),
            },
            path: self.path,
        });
        Ok(nodes.collect())
    }

    /// The elements of the value, which must be an array or null. Null has none.
    pub(crate) fn items_or_none(&self) -> Result<Vec<Self>> {
        if self.is_null() {
            Ok(Vec::new())
        } else {
            self.items()
        }
    }

    /// The value as a string.
    pub(crate) fn text(&self) -> Result<&'j str> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// The value as a string; None if it is not one.
    pub(crate) fn text_if_any(&self) -> Option<&'j str> {
        self.value.as_str()
    }

    /// The value as an id.
    pub(crate) fn number(&self) -> Result<u32> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| self.expected("an id"))
    }

    /// The value as a boolean.
    pub(crate) fn flag(&self) -> Result<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    /// The value as a boolean; `default` if it is null.
    pub(crate) fn flag_or(&self, default: bool) -> Result<bool> {
        if self.is_null() {
            Ok(default)
        } else {
            self.flag()
        }
    }

    /// The `type` of a component; None if the component is null.
    pub(crate) fn kind(&self) -> Result<Option<&'j str>> {
        if self.is_null() {
            return Ok(None);
        }
        self.object()?;
        Ok(Some(self.key("type").text()?))
    }

    /// The `type` of a component; `default` if it has none, null and values without keys included.
    pub(crate) fn kind_or(&self, default: Option<&'j str>) -> Result<Option<&'j str>> {
        match self.key("type").is_null() {
            true => Ok(default),
            false => self.kind(),
        }
    }

    /// Whether the value is null or missing.
    pub(crate) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// Whether the value is the number zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.value.as_f64() == Some(0.0)
    }

    /// Refuses keys that are not among `known`.
    pub(crate) fn only(&self, known: &[&str]) -> Result<()> {
        let unknown = self.object()?.keys().find(|k| !known.contains(&k.as_str()));
        match unknown {
            None => Ok(()),
            Some(key) => Err(self.key(key).wrong("unknown key")),
        }
    }

    /// The value as a string; None if it is null.
    pub(crate) fn text_or_null(&self) -> Result<Option<&'j str>> {
        match self.is_null() {
            true => Ok(None),
            false => self.text().map(Some),
        }
    }

    /// Refuses anything but null and objects.
    pub(crate) fn object_if_any(&self) -> Result<()> {
        match self.is_null() {
            true => Ok(()),
            false => self.object().map(|_| ()),
        }
    }

    /// Refuses anything but null and "".
    pub(crate) fn must_be_empty(&self) -> Result<()> {
        match self.is_null() || self.text()?.is_empty() {
            true => Ok(()),
            false => Err(self.unsupported("null is expected")),
        }
    }

    /// The error for a valid value that is not supported, and what is expected instead.
    pub(crate) fn unsupported(&self, expected: &str) -> Error {
        let shown = self.value.get("type").unwrap_or(self.value);
        let shown = shorten(shown.to_string());
        let what = format!("unsupported {} {shown}: {expected}", self.name);
        Error::malformed(self.path, what)
    }

    /// The error for a value that is not valid.
    pub(crate) fn wrong(&self, what: &str) -> Error {
        Error::malformed(self.path, format!("{what} at {}", self.name))
    }

    /// The error for a value of the wrong type.
    pub(crate) fn expected(&self, what: &str) -> Error {
        let found = match self.value {
            Value::Null => "nothing".to_owned(),
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            value => shorten(value.to_string()),
        };
        Error::malformed(
            self.path,
            format!("{found} at {}, expected {what}", self.name),
        )
    }
}

/// At most 60 characters of `text`.
fn shorten(text: String) -> String {
    match text.char_indices().nth(60) {
        None => text,
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}
