//! The integration tests: one binary, one module per promise.

mod adapters;
mod architecture;
mod bad_input;
mod cli;
mod datasets;
mod evaluation;
mod export;
mod foreign;
mod formats;
mod measures;
mod method_runs;
mod methods;
mod model_gradients;
mod operators;
mod parity;
mod pixels;
mod resume;
mod saving;
mod score;
mod sessions;
mod store;
mod suites;
mod support;
mod train;
mod training;
mod tuning;
