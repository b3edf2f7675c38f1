//! The integration tests: one binary, one module per promise.

mod architecture;
mod bad_input;
mod cli;
mod formats;
mod parity;
mod pixels;
mod score;
mod store;
mod support;
