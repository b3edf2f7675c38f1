//! The verdict of a comparison: the one place that decides what is said and how the program exits.

use serde::{Serialize, Serializer};

use super::difference::{DatasetComparison, Outcome};

/// Whether a comparison passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No dataset breaks a threshold.
    Pass {
        /// Number of datasets.
        datasets: usize,
        /// Names of those whose significant drop was tolerated.
        tolerated: Vec<String>,
    },
    /// Some do.
    Fail {
        /// Number of datasets.
        datasets: usize,
        /// Names of those that do.
        failed: Vec<String>,
    },
}

/// The verdict on these datasets.
pub fn verdict(compared: &[DatasetComparison]) -> Verdict {
    let with = |outcome| -> Vec<String> {
        compared.iter().filter(|one| one.outcome == outcome).map(|one| one.dataset.clone()).collect()
    };
    let (datasets, failed) = (compared.len(), with(Outcome::Fails));
    match failed.is_empty() {
        true => Verdict::Pass { datasets, tolerated: with(Outcome::TolerableDrop) },
        false => Verdict::Fail { datasets, failed },
    }
}

impl Verdict {
    /// The verdict in one line.
    pub fn line(&self) -> String {
        let count = |count: usize| if count == 1 { "1 dataset".to_owned() } else { format!("{count} datasets") };
        match self {
            Self::Pass { datasets, tolerated } if tolerated.is_empty() => {
                format!("PASS: no significant drop on {}", count(*datasets))
            }
            Self::Pass { datasets, tolerated } => {
                format!("PASS: of {}, drops that are tolerated on {}", count(*datasets), tolerated.join(", "))
            }
            Self::Fail { datasets, failed } => {
                format!("FAIL: {} of {}: {}", failed.len(), count(*datasets), failed.join(", "))
            }
        }
    }

    /// The exit code of the program: 0 where the comparison passes, 1 where it fails.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Pass { .. } => 0,
            Self::Fail { .. } => 1,
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_and_the_exit_code_agree() {
        let pass = Verdict::Pass { datasets: 10, tolerated: vec![] };
        assert_eq!((pass.line().as_str(), pass.exit_code()), ("PASS: no significant drop on 10 datasets", 0));
        let tolerated = Verdict::Pass { datasets: 2, tolerated: vec!["a".to_owned()] };
        assert_eq!(tolerated.line(), "PASS: of 2 datasets, drops that are tolerated on a");
        let fail = Verdict::Fail { datasets: 3, failed: vec!["a".to_owned(), "b".to_owned()] };
        assert_eq!((fail.line().as_str(), fail.exit_code()), ("FAIL: 2 of 3 datasets: a, b", 1));
    }
}
