//! Names of training runs in reports: the method and what tells them apart.

use std::collections::BTreeMap;

use serde_json::Value;

/// A name for each run: its method, with the settings in which not all runs of that method agree, and a number where that
/// is not enough.
pub(super) fn names(settings: &[Value]) -> Vec<String> {
    numbered(told(settings))
}

/// The names, equal ones with a number behind each.
pub(super) fn numbered(mut names: Vec<String>) -> Vec<String> {
    for place in 0..names.len() {
        let same: Vec<usize> = (place..names.len()).filter(|other| names[*other] == names[place]).collect();
        if same.len() > 1 {
            same.into_iter().zip(1..).for_each(|(other, number)| names[other] += &format!(" ({number})"));
        }
    }
    names
}

/// A name for each run: its method, with the settings in which not all runs of that method agree. Equal settings have equal
/// names.
pub(super) fn told(settings: &[Value]) -> Vec<String> {
    let flat: Vec<BTreeMap<String, String>> =
        settings.iter().map(|value| flattened(value).into_iter().collect()).collect();
    let name = |one: &BTreeMap<String, String>| {
        let alike = || flat.iter().filter(|other| other.get(METHOD) == one.get(METHOD));
        let differ = |name: &str| alike().any(|other| other.get(name) != one.get(name));
        let told = one.iter().filter(|(name, _)| differ(name));
        let told = told.map(|(name, value)| format!(" {}={value}", name.rsplit('.').next().unwrap_or(name)));
        let method = one.get(METHOD).map_or("?", String::as_str);
        format!("{method}{}", told.collect::<String>())
    };
    flat.iter().map(name).collect()
}

const METHOD: &str = "method";

/// The entries of a JSON object by name, those of objects within under `<its name>.<name>`; texts are without quotes.
pub fn flattened(value: &Value) -> Vec<(String, String)> {
    let Value::Object(entries) = value else { return Vec::new() };
    let mut found = Vec::new();
    for (name, value) in entries {
        match value {
            Value::Object(_) => {
                let within = flattened(value).into_iter();
                found.extend(within.map(|(below, value)| (format!("{name}.{below}"), value)));
            }
            Value::String(text) => found.push((name.clone(), text.clone())),
            _ => found.push((name.clone(), value.to_string())),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_are_named_by_what_differs() {
        let run =
            |mu: f64, seed: u64| json!({"method": "digrap", "method_settings": {"mu": mu}, "subject": {"seed": seed}});
        assert_eq!(names(&[run(0.1, 1), run(0.1, 1)]), ["digrap (1)", "digrap (2)"]);
        let vanilla = json!({"method": "vanilla", "subject": {"seed": 2}});
        assert_eq!(names(&[run(0.1, 1), vanilla, run(1.0, 1)]), ["digrap mu=0.1", "vanilla", "digrap mu=1.0"]);
    }
}
