//! Files with the moments of features, written whole; what is in them is [`fits`]'s.

use std::fs;
use std::path::Path;

use super::WholeFile;
use crate::error::{Error, Result};
use crate::shift::fits::{self, Fits};

/// Writes the fits to a file that appears whole or not at all.
///
/// # Errors
/// Input error where it cannot be written.
pub fn save(path: &Path, fits: &Fits) -> Result<()> {
    let message = || format!("cannot write `{}`", path.display());
    let failed = |cause| Error::input(message()).caused_by(cause);
    let mut file = WholeFile::create(path).map_err(failed)?;
    fits::write(fits, &mut file).map_err(|error| error.within(message()))?;
    file.finish().map_err(failed)
}

/// Makes sure that a file of fits can be written, before what it is to hold is computed.
///
/// # Errors
/// Input error where it cannot.
pub fn check(path: &Path) -> Result<()> {
    let created = WholeFile::create(path);
    created.map(drop).map_err(|cause| Error::input(format!("cannot write `{}`", path.display())).caused_by(cause))
}

/// Reads the fits of a file.
///
/// # Errors
/// Input error where it cannot be read, is damaged, or is another file.
pub fn load(path: &Path) -> Result<Fits> {
    let message = || format!("cannot read `{}`", path.display());
    let bytes = fs::read(path).map_err(|cause| Error::input(message()).caused_by(cause))?;
    fits::read(&bytes).map_err(|error| error.within(message()))
}
