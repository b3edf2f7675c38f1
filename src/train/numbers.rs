//! The numbers that belong to one trained tensor.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Numbers of one trained tensor by name: what was measured of it, what its method decided, what it keeps from step to
/// step. In double precision, and part of every checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Numbers(BTreeMap<String, f64>);

impl Numbers {
    /// The number of this name; 0 where none has been set yet.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    /// Sets the number of this name.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.0.get_mut(name) {
            Some(number) => *number = value,
            None => {
                self.0.insert(name.to_owned(), value);
            }
        }
    }

    /// The number of this name, if one has been set.
    pub fn known(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// A number that is infinite or none.
    pub(super) fn not_finite(&self) -> Option<(&str, f64)> {
        let found = self.0.iter().find(|(_, value)| !value.is_finite());
        found.map(|(name, value)| (name.as_str(), *value))
    }

    /// What Adam (Kingma and Ba 2015; beta 0.9 and 0.999, epsilon 1e-8) makes of the gradient of one number at its
    /// `step`, from 1: to be multiplied by a rate and subtracted. Its moments are kept here.
    pub fn adam(&mut self, gradient: f64, step: u64) -> f64 {
        const BETAS: [f64; 2] = [0.9, 0.999];
        let [first, second] = [("adam_first_moment", gradient), ("adam_second_moment", gradient * gradient)];
        let mut corrected = [0.0; 2];
        for (((name, new), beta), corrected) in [first, second].into_iter().zip(BETAS).zip(&mut corrected) {
            let moment = beta * self.get(name) + (1.0 - beta) * new;
            self.set(name, moment);
            *corrected = moment / (1.0 - beta.powf(step as f64));
        }
        corrected[0] / (corrected[1].sqrt() + 1e-8)
    }
}
