//! The integration tests: one binary, one module per promise.

mod adapters;
mod architecture;
mod bad_input;
mod cli;
mod evaluation;
mod export;
mod foreign;
mod formats;
mod method_runs;
mod methods;
mod miniature;
mod model_gradients;
mod operators;
mod parity;
mod pixels;
mod resume;
mod saving;
mod score;
mod sessions;
mod store;
mod support;
mod train;
mod training;
mod tuning;
