//! The classes of a TorchScript program, which say which of their tensors are parameters and which are buffers.

use std::collections::HashMap;

use crate::{ModelError, archive::Archive};

/// What a tensor of a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A parameter.
    Parameter,
    /// A buffer.
    Buffer,
}

/// Names of a class's tensors.
#[derive(Debug, Default)]
pub struct Class {
    kinds: HashMap<String, Kind>,
}

impl Class {
    /// What the tensor of this name is.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        self.kinds.get(name).copied()
    }
}

/// Classes by their name, as `__torch__.torch.nn.modules.conv.Conv2d`.
#[derive(Debug, Default)]
pub struct Classes(HashMap<String, Class>);

/// Files of code that are read at most, and bytes of all of them.
const MOST_FILES: usize = 20_000;
const MOST_BYTES: usize = 32 << 20;

impl Classes {
    /// Reads the code of an archive; `None` where it has none, so that it is not a program.
    ///
    /// # Errors
    ///
    /// Where it is damaged or too large.
    pub fn read(archive: &mut Archive<'_>) -> Result<Option<Self>, ModelError> {
        let files = archive.all(|name| name.contains("/code/"));
        if files.is_empty() {
            return Ok(None);
        }
        let mut classes = Self::default();
        let mut left_bytes = MOST_BYTES;
        for name in files.iter().filter(|name| name.ends_with(".py")).take(MOST_FILES) {
            let code = archive.unpacked(name, left_bytes)?;
            left_bytes = left_bytes.saturating_sub(code.len());
            let path = name.split_once("/code/").map_or("", |(_, path)| path);
            let module = path.trim_end_matches(".py").replace('/', ".");
            classes.parse(&module, &String::from_utf8_lossy(&code));
        }
        Ok(Some(classes))
    }

    /// The class of this name.
    pub fn of(&self, name: &str) -> Option<&Class> {
        self.0.get(name)
    }

    fn parse(&mut self, module: &str, code: &str) {
        let mut class: Option<Class> = None;
        let mut name = String::new();
        for line in code.lines() {
            if let Some(rest) = line.strip_prefix("class ") {
                if let Some(class) = class.take() {
                    self.0.insert(std::mem::take(&mut name), class);
                }
                let of = rest.split(['(', ':']).next().unwrap_or_default();
                name = format!("{module}.{of}");
                class = Some(Class::default());
            }
            let Some(class) = class.as_mut() else { continue };
            for (list, kind) in [("__parameters__", Kind::Parameter), ("__buffers__", Kind::Buffer)] {
                if let Some(rest) = line.trim_start().strip_prefix(list)
                    && let Some((_, items)) = rest.split_once('[')
                {
                    let items = items.trim_end().trim_end_matches(']').split(',');
                    let names = items
                        .map(|item| item.trim().trim_matches('"'))
                        .filter(|item| !item.is_empty());
                    class.kinds.extend(names.map(|name| (name.to_owned(), kind)));
                }
            }
        }
        if let Some(class) = class {
            self.0.insert(name, class);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_say_what_their_tensors_are() {
        let mut classes = Classes::default();
        classes.parse(
            "__torch__.nn.norm",
            "class Norm(Module):\n  __parameters__ = [\"weight\", \"bias\", ]\n  __buffers__ = [\"mean\", ]\n  def f(self):\n\
             class Empty(Module):\n  __parameters__ = []\n",
        );
        let norm = classes.of("__torch__.nn.norm.Norm").unwrap();
        assert_eq!(norm.kind("bias"), Some(Kind::Parameter));
        assert_eq!(norm.kind("mean"), Some(Kind::Buffer));
        assert_eq!(norm.kind("training"), None);
        assert!(classes.of("__torch__.nn.norm.Empty").is_some());
        assert!(classes.of("__torch__.nn.norm.Other").is_none());
    }
}
