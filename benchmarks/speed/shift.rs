//! Fitting and measuring features of PaliGemma's size, and the matrix products in them alone, in one process.
//!
//! `shift_side_by_side.py` compares the times of these pairs.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::LazyLock;

use cblas_sys::{CblasLower, CblasNoTrans, CblasRowMajor, CblasTrans, cblas_dgemm, cblas_dsyrk};
use digrap_bench::shift::{Fitting, Gaussian, GaussianOptions};
use divan::counter::ItemsCount;

/// Rows of a product, as many as the library takes.
const BLOCK: usize = 1024;

static DIMENSION: LazyLock<usize> = LazyLock::new(|| crate::size(2048, 8));
static COUNT: LazyLock<usize> = LazyLock::new(|| crate::size(32, 1) * BLOCK);

/// Numbers between -1 and 1 (Knuth's MMIX generator).
static FEATURES: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut state = 1_u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..*COUNT * *DIMENSION).map(|_| number()).collect()
});

static DOUBLES: LazyLock<Vec<f64>> =
    LazyLock::new(|| FEATURES[..BLOCK * *DIMENSION].iter().map(|&value| f64::from(value)).collect());

static GAUSSIAN: LazyLock<Gaussian> = LazyLock::new(|| {
    let mut fitting = Fitting::new(*DIMENSION);
    fitting.add(&FEATURES).expect("the numbers are finite");
    let moments = fitting.finish(BTreeMap::new()).expect("products work");
    Gaussian::new(&moments, GaussianOptions::default()).expect("the features vary")
});

fn length(length: usize) -> c_int {
    c_int::try_from(length).expect("it is small")
}

#[divan::bench(sample_count = 3)]
fn fit(bencher: divan::Bencher<'_, '_>) {
    let features = &*FEATURES;
    bencher.counter(ItemsCount::new(*COUNT)).bench(|| {
        let mut fitting = Fitting::new(*DIMENSION);
        fitting.add(features).expect("the numbers are finite");
        fitting.finish(BTreeMap::new())
    });
}

/// The rank-k updates of as many rows alone.
#[divan::bench(sample_count = 3)]
fn fit_products_alone(bencher: divan::Bencher<'_, '_>) {
    let (rows, d) = (&*DOUBLES, *DIMENSION);
    let mut scatter = vec![0.0; d * d];
    let (order, count) = (length(d), length(BLOCK));
    bencher.counter(ItemsCount::new(*COUNT)).bench_local(|| {
        for _ in 0..*COUNT / BLOCK {
            let (from, to) = (rows.as_ptr(), scatter.as_mut_ptr());
            // SAFETY: `rows` holds BLOCK * d numbers and `scatter` d * d.
            unsafe {
                cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, order, count, 1.0, from, order, 1.0, to, order)
            };
        }
    });
}

#[divan::bench(sample_count = 3)]
fn measure(bencher: divan::Bencher<'_, '_>) {
    let (features, gaussian) = (&*FEATURES, &*GAUSSIAN);
    bencher.counter(ItemsCount::new(*COUNT)).bench(|| gaussian.distances(features));
}

/// The products of as many rows with a whole matrix alone; measuring skips about half of them.
#[divan::bench(sample_count = 3)]
fn measure_products_alone(bencher: divan::Bencher<'_, '_>) {
    let (rows, d) = (&*DOUBLES, *DIMENSION);
    let (factor, mut white) = (vec![0.5; d * d], vec![0.0; BLOCK * d]);
    let (order, count) = (length(d), length(BLOCK));
    bencher.counter(ItemsCount::new(*COUNT)).bench_local(|| {
        for _ in 0..*COUNT / BLOCK {
            let (rows, factor, to) = (rows.as_ptr(), factor.as_ptr(), white.as_mut_ptr());
            // SAFETY: `rows` and `white` hold BLOCK * d numbers, `factor` d * d.
            unsafe {
                cblas_dgemm(
                    CblasRowMajor,
                    CblasNoTrans,
                    CblasTrans,
                    count,
                    order,
                    order,
                    1.0,
                    rows,
                    order,
                    factor,
                    order,
                    0.0,
                    to,
                    order,
                );
            }
        }
    });
}
