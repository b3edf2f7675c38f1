//! The one integration test binary: each module is a topic.

mod formats;
mod score;
