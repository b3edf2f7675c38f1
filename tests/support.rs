//! What tests share: the fixtures, the runtime, a program to run.

use std::path::{Path, PathBuf};

use digrap_bench::runtime::library::{SearchPath, load, locate};
use digrap_bench::runtime::{Device, Runtime, SessionOptions, Sharing};

/// A file or folder below `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// A JSON file below `fixtures/`.
pub fn fixture_json(name: &str) -> serde_json::Value {
    let path = fixture(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The user's cache folder of the program, where the set-up puts the ONNX Runtime library.
pub fn cache_folder() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache")).join("digrap-bench")
}

/// ONNX Runtime as the set-up installed it.
pub fn runtime() -> Runtime {
    let search = SearchPath {
        library: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from),
        cache: cache_folder(),
        ..SearchPath::default()
    };
    load(&locate(&search).unwrap(), 2).unwrap()
}

/// As small models run on the CPU.
pub fn session_options() -> SessionOptions {
    SessionOptions { device: Device::Cpu, sharing: Sharing::Replicas }
}
