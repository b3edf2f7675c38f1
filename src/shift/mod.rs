//! How far a set of features has moved away from a reference. The only room that names `ndarray-linalg`.

use std::ffi::{CStr, c_char, c_int};

use ndarray::{Array2, array};
use ndarray_linalg::{Eigh, UPLO};

use crate::error::{Error, Result};

unsafe extern "C" {
    fn openblas_get_config() -> *const c_char;
    fn openblas_get_num_threads() -> c_int;
}

/// The linear algebra library this process computes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blas {
    /// Name, version and build options as the library reports them.
    pub config: String,
    /// Threads it uses.
    pub threads: usize,
}

/// Says which linear algebra library is in use, after a small symmetric eigenproblem was solved with it correctly.
///
/// # Errors
///
/// Internal error if the solver fails or its eigenvalues are wrong.
pub fn blas() -> Result<Blas> {
    // Eigenvalues of the path graph's matrix: 2 - sqrt(2), 2, 2 + sqrt(2).
    let matrix: Array2<f64> = array![[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]];
    let (values, _) = matrix.eigh(UPLO::Lower).map_err(|error| {
        Error::internal("the linear algebra library cannot solve a symmetric eigenproblem").caused_by(error)
    })?;
    let expected = [2.0 - f64::sqrt(2.0), 2.0, 2.0 + f64::sqrt(2.0)];
    if values.iter().zip(expected).any(|(value, expected)| (value - expected).abs() > 1e-12) {
        return Err(Error::internal(format!("the linear algebra library computed {values}, not {expected:?}")));
    }
    // SAFETY: OpenBLAS, which ndarray-linalg is linked with, exports both; the text is static and NUL-terminated.
    let (config, threads) = unsafe { (CStr::from_ptr(openblas_get_config()), openblas_get_num_threads()) };
    Ok(Blas { config: config.to_string_lossy().trim().to_owned(), threads: usize::try_from(threads).unwrap_or(1) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_eigenproblem_is_solved_by_openblas() {
        let blas = super::blas().unwrap();
        assert!(blas.config.starts_with("OpenBLAS"), "{blas:?}");
        assert!(blas.threads >= 1);
    }
}
