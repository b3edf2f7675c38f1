//! The integration tests: one binary, one module per promise.

mod architecture;
mod cli;
mod formats;
mod score;
