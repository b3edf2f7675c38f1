//! Timings of hot paths: `cargo bench` measures, `cargo test --benches` only runs small cases.

mod images;
mod scoring;
mod shift;
mod store;

fn main() {
    divan::main();
}

/// The size to measure with, or the small one where benchmarks run as tests.
fn size(full: usize, small: usize) -> usize {
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let testing = std::env::args().any(|argument| argument == "--test");
    if measuring && !testing { full } else { small }
}
