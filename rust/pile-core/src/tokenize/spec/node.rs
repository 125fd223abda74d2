//! A value inside a JSON file that knows where it is, so that messages can say so.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::{fmt, path::Path, rc::Rc};

static NULL: Value = Value::Null;

/// A JSON value with its name, such as `model.vocab`, and its file.
#[derive(Debug, Clone)]
pub(crate) struct Node<'j> {
    value: &'j Value,
    name: Name,
    path: &'j Path,
}

/// What a value is called; spelt out only where a message needs it, as files have many values.
#[derive(Debug, Clone)]
struct Name {
    key: Rc<str>,
    /// Its place in the array of that name.
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

impl<'j> Node<'j> {
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

    /// A value inside this one.
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

    /// The value of `key`; null if there is none, which the format treats alike.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.child(key, self.value.get(key).unwrap_or(&NULL))
    }

    /// The keys and values of an object.
    pub(crate) fn object(&self) -> Result<&'j Map<String, Value>> {
        self.value
            .as_object()
            .ok_or_else(|| self.expected("an object"))
    }

    /// The elements of an array.
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

    /// The elements of an array; none if it is null.
    pub(crate) fn items_or_none(&self) -> Result<Vec<Self>> {
        if self.is_null() {
            Ok(Vec::new())
        } else {
            self.items()
        }
    }

    /// The string.
    pub(crate) fn text(&self) -> Result<&'j str> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// The string, if it is one.
    pub(crate) fn text_if_any(&self) -> Option<&'j str> {
        self.value.as_str()
    }

    /// The number, if it fits an id.
    pub(crate) fn number(&self) -> Result<u32> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.ok_or_else(|| self.expected("an id"))
    }

    /// The boolean.
    pub(crate) fn flag(&self) -> Result<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    /// The boolean, `default` if it is null.
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

    /// The `type` of a component, `default` if it does not say.
    pub(crate) fn kind_or(&self, default: Option<&'j str>) -> Result<Option<&'j str>> {
        match self.key("type").is_null() {
            true => Ok(default),
            false => self.kind(),
        }
    }

    /// Whether it is null, or not there.
    pub(crate) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// Whether it is the number zero.
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

    /// The string; None if it is null.
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

    /// The error of something that exists but is not handled here: says what is expected.
    pub(crate) fn unsupported(&self, expected: &str) -> Error {
        let shown = self.value.get("type").unwrap_or(self.value);
        let shown = shorten(shown.to_string());
        let what = format!("unsupported {} {shown}: {expected}", self.name);
        Error::malformed(self.path, what)
    }

    /// The error of a value that is wrong in itself.
    pub(crate) fn wrong(&self, what: &str) -> Error {
        Error::malformed(self.path, format!("{what} at {}", self.name))
    }

    /// The error of a value of another type.
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
