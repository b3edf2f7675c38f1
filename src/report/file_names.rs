//! Names of files that do not fall together.

use std::collections::HashSet;

/// Names in ASCII that differ whatever the file system takes for equal.
#[derive(Debug, Default)]
pub struct FileNames(HashSet<String>);

impl FileNames {
    /// The name, or the name with the first number from 2 on that no other one has, whatever the case of letters.
    pub fn unique(&mut self, name: &str) -> String {
        let numbered = (2_u64..).map(|number| format!("{name}-{number}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| self.0.insert(name.to_ascii_lowercase())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_without_regard_to_case() {
        let mut names = FileNames::default();
        let given = ["a-b", "A-b", "a-b-2", "a-b", "c"].map(|name| names.unique(name));
        assert_eq!(given, ["a-b", "A-b-2", "a-b-2-2", "a-b-3", "c"]);
    }
}
