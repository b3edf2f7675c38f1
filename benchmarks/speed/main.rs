//! Timings of the hot paths.

mod images;
mod store;

fn main() {
    divan::main();
}
