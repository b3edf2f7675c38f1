//! The calls of BLAS and LAPACK that ndarray-linalg has no function for, and which library answers them.

use std::ffi::{CStr, c_char, c_int};

use cblas_sys::{CblasLower, CblasRowMajor, CblasTrans, cblas_dsymv, cblas_dsyrk};
use ndarray::{Array2, ArrayView2, array};
use ndarray_linalg::{Eigh, UPLO};

use crate::error::{Error, Result};

unsafe extern "C" {
    fn openblas_get_config() -> *const c_char;
    fn openblas_get_corename() -> *const c_char;
    fn openblas_get_num_threads() -> c_int;
    fn openblas_set_num_threads(count: c_int);
    fn dsyevd_(
        job: *const c_char,
        triangle: *const c_char,
        order: *const c_int,
        matrix: *mut f64,
        stride: *const c_int,
        values: *mut f64,
        work: *mut f64,
        work_length: *const c_int,
        integers: *mut c_int,
        integers_length: *const c_int,
        info: *mut c_int,
    );
}

/// The linear algebra library this process computes with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blas {
    /// Name, version and build options as the library reports them.
    pub config: String,
    /// Processor that its kernels are made for, in the library's spelling.
    pub kernels: String,
    /// Threads it uses.
    pub threads: usize,
}

impl Blas {
    /// Name of kernels that this processor can run and that are several times as fast as those in use; none where the
    /// library knows the processor.
    ///
    /// OpenBLAS takes those of a Pentium 4 (`Prescott`) for processors that are younger than itself. It chooses when it
    /// is loaded, so that the name has to be in `OPENBLAS_CORETYPE` when the process starts.
    pub fn faster_kernels(&self) -> Option<&'static str> {
        if self.kernels == "Prescott" { widest_kernels() } else { None }
    }
}

#[cfg(target_arch = "x86_64")]
fn widest_kernels() -> Option<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    if has!("avx512f") && has!("avx512dq") && has!("avx512bw") && has!("avx512vl") && has!("avx512cd") {
        Some("SkylakeX")
    } else {
        (has!("avx2") && has!("fma")).then_some("Haswell")
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn widest_kernels() -> Option<&'static str> {
    None
}

/// Runs products on so many threads from now on, in the whole process.
pub fn use_threads(count: usize) {
    if let Ok(count) = c_int::try_from(count.max(1)) {
        // SAFETY: OpenBLAS exports it; it may be called at any time.
        unsafe { openblas_set_num_threads(count) };
    }
}

/// Threads that products run on.
pub(super) fn threads() -> usize {
    // SAFETY: OpenBLAS exports it; it reads a number.
    usize::try_from(unsafe { openblas_get_num_threads() }).unwrap_or(1).max(1)
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
    // SAFETY: OpenBLAS, which ndarray-linalg is linked with, exports all three; texts are static and NUL-terminated.
    let (config, kernels, threads) = unsafe {
        (CStr::from_ptr(openblas_get_config()), CStr::from_ptr(openblas_get_corename()), openblas_get_num_threads())
    };
    let text = |text: &CStr| text.to_string_lossy().trim().to_owned();
    Ok(Blas { config: text(config), kernels: text(kernels), threads: usize::try_from(threads).unwrap_or(1) })
}

/// Adds `factor` times the sum of the outer products of `rows` `[n, d]` to the lower triangle of `matrix` `[d, d]`.
///
/// # Errors
/// Internal error where shapes do not match or a matrix has gaps.
pub(super) fn add_outer_products(matrix: &mut Array2<f64>, factor: f64, rows: ArrayView2<f64>) -> Result<()> {
    let order = rows.ncols();
    let (length, count) = (dimension(order)?, dimension(rows.nrows())?);
    let (true, Some(rows), Some(target)) = (matrix.dim() == (order, order), rows.to_slice(), matrix.as_slice_mut())
    else {
        return Err(Error::internal("outer products of matrices with gaps or other shapes"));
    };
    // SAFETY: `rows` holds count * length numbers and `target` length * length, both row by row without gaps.
    unsafe {
        cblas_dsyrk(
            CblasRowMajor,
            CblasLower,
            CblasTrans,
            length,
            count,
            factor,
            rows.as_ptr(),
            length,
            1.0,
            target.as_mut_ptr(),
            length,
        );
    }
    Ok(())
}

/// The symmetric matrix that has this lower triangle, times a vector.
///
/// # Errors
/// Internal error where shapes do not match or the matrix has gaps.
pub(super) fn symmetric_product(lower: &Array2<f64>, vector: &[f64]) -> Result<Vec<f64>> {
    let length = dimension(vector.len())?;
    let mut product = vec![0.0; vector.len()];
    let (true, Some(matrix)) = (lower.dim() == (vector.len(), vector.len()), lower.as_slice()) else {
        return Err(Error::internal("a product of a matrix with gaps or another shape"));
    };
    // SAFETY: `matrix` holds length * length numbers without gaps, both vectors length numbers.
    unsafe {
        cblas_dsymv(
            CblasRowMajor,
            CblasLower,
            length,
            1.0,
            matrix.as_ptr(),
            length,
            vector.as_ptr(),
            1,
            0.0,
            product.as_mut_ptr(),
            1,
        );
    }
    Ok(product)
}

/// Eigenvalues in rising order, and in the rows of a matrix their eigenvectors, of the symmetric matrix that has this
/// lower triangle.
///
/// By divide and conquer (`dsyevd`), as `numpy.linalg.eigh`: at 2,048 dimensions it takes a fifth of the time of
/// `dsyev`, which is behind ndarray-linalg's `eigh`.
///
/// # Errors
/// Internal error where the matrix is not square or the solver does not converge.
pub(super) fn eigenvectors(mut lower: Array2<f64>) -> Result<(Vec<f64>, Array2<f64>)> {
    let order = dimension(lower.nrows())?;
    let mut values = vec![0.0; lower.nrows()];
    let square = lower.is_square();
    let Some(matrix) = lower.as_slice_mut().filter(|_| square && order > 0) else {
        return Err(Error::internal("eigenvectors of a matrix with gaps or that is not square"));
    };
    let (mut work, mut integers, mut info) = (vec![0.0], vec![0], 0);
    // The first call asks for the length of the work space.
    for ask in [true, false] {
        let lengths = if ask { [-1, -1] } else { [dimension(work.len())?, dimension(integers.len())?] };
        // SAFETY: LAPACK sees the rows of `matrix` as columns, so that the lower triangle is its upper one ("U"); all
        // lengths are those of the slices, and the two of the work space are -1 where it is only asked for.
        unsafe {
            dsyevd_(
                c"V".as_ptr(),
                c"U".as_ptr(),
                &raw const order,
                matrix.as_mut_ptr(),
                &raw const order,
                values.as_mut_ptr(),
                work.as_mut_ptr(),
                &raw const lengths[0],
                integers.as_mut_ptr(),
                &raw const lengths[1],
                &raw mut info,
            );
        }
        if info != 0 {
            return Err(Error::internal(format!("the eigenvectors of a covariance were not found (dsyevd: {info})")));
        }
        if ask {
            work = vec![0.0; work[0] as usize];
            integers = vec![0; usize::try_from(integers[0]).unwrap_or(0)];
        }
    }
    Ok((values, lower))
}

fn dimension(length: usize) -> Result<c_int> {
    c_int::try_from(length).map_err(|cause| Error::input(format!("{length} features are too many")).caused_by(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eigenproblem_is_solved_by_openblas() {
        let blas = blas().unwrap();
        assert!(blas.config.starts_with("OpenBLAS"), "{blas:?}");
        assert!(blas.threads >= 1 && !blas.kernels.is_empty());
    }

    #[test]
    fn faster_kernels_are_named_only_where_the_library_did_not_know_the_processor() {
        let blas = |kernels: &str| Blas { config: String::new(), kernels: kernels.to_owned(), threads: 1 };
        assert_eq!(blas("Zen").faster_kernels(), None);
        assert_eq!(blas("Prescott").faster_kernels(), widest_kernels());
    }

    #[test]
    fn only_the_lower_triangle_is_written_and_read() {
        let mut matrix = Array2::zeros((2, 2));
        add_outer_products(&mut matrix, 2.0, array![[1.0, 3.0], [0.0, -1.0]].view()).unwrap();
        assert_eq!(matrix, array![[2.0, 0.0], [6.0, 20.0]]);
        matrix[[0, 1]] = f64::NAN;
        assert_eq!(symmetric_product(&matrix, &[1.0, 1.0]).unwrap(), [8.0, 26.0]);
        let (values, vectors) = eigenvectors(matrix).unwrap();
        let rebuilt = values[0] * vectors[[0, 0]].powi(2) + values[1] * vectors[[1, 0]].powi(2);
        assert!((values[0] + values[1] - 22.0).abs() < 1e-12 && (rebuilt - 2.0).abs() < 1e-12, "{values:?}");
        assert!(add_outer_products(&mut Array2::zeros((3, 3)), 1.0, array![[1.0]].view()).is_err());
    }
}
