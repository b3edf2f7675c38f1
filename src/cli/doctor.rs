//! `doctor`: what this machine can run, and what to do about what is missing.

use std::fmt::Write;
use std::path::Path;

use digrap_bench::error::{Error, Result};
use digrap_bench::runtime::library::{self, RuntimeInfo, Source};
use digrap_bench::shift::{self, Blas};
use serde::Serialize;

use super::machine::{self, Folders};

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Present and working.
    Ok,
    /// Absent, and evaluation runs without it.
    Optional,
    /// Absent or broken, and evaluation cannot run.
    Missing,
}

#[derive(Debug, Serialize)]
struct Report {
    ready: bool,
    checks: Vec<Check>,
}

/// Prints the report; an input error if evaluation cannot run.
pub fn run(json: bool) -> Result<()> {
    let checks = checks(&machine::folders()?);
    let missing: Vec<&str> =
        checks.iter().filter(|check| check.state == State::Missing).map(|check| check.name).collect();
    let verdict = match missing.as_slice() {
        [] => Ok(()),
        names => Err(Error::input(format!("this machine cannot run an evaluation: {}", names.join(", ")))
            .hint("the lines marked `missing` say what to do")),
    };
    if json {
        super::print_json(&Report { ready: verdict.is_ok(), checks })?;
    } else {
        super::print(&table(&checks))?;
    }
    verdict
}

fn checks(folders: &Folders) -> Vec<Check> {
    let mut checks = vec![ok("version", env!("CARGO_PKG_VERSION"))];
    checks.extend(runtime_checks(folders));
    checks.push(linear_algebra(shift::blas()));
    checks.push(match std::thread::available_parallelism() {
        Ok(threads) => ok("processor threads", threads.to_string()),
        Err(error) => optional("processor threads", error.to_string(), "one thread will be used"),
    });
    checks.push(match available_memory() {
        Some(bytes) => ok("free memory", format!("{:.1} GB", bytes as f64 / 1e9)),
        None => optional("free memory", "not known on this system".into(), "watch it yourself with large models"),
    });
    checks.push(folder("cache folder", &folders.cache, "`make setup` creates it"));
    checks.push(folder("data folder", &folders.data, "`make setup` creates it"));
    checks.push(folder("Hub cache", &folders.hub, "set HF_HUB_CACHE or HF_HOME if your models are elsewhere"));
    checks
}

fn linear_algebra(found: Result<Blas>) -> Check {
    match found {
        Ok(blas) => ok("linear algebra", format!("{}, {} threads", blas.config, blas.threads)),
        Err(error) => {
            optional("linear algebra", reason(&error), "`vqa` and `score` do without; `make setup` installs OpenBLAS")
        }
    }
}

fn runtime_checks(folders: &Folders) -> Vec<Check> {
    let search = machine::search_path(folders);
    let loaded = library::locate(&search).and_then(|found| Ok((found.source, library::load(&found, 1)?)));
    match loaded {
        Ok((source, runtime)) => described(source, &runtime.info),
        Err(error) => {
            let hint = error.next_step().unwrap_or("run `make setup`").to_owned();
            vec![missing("ONNX Runtime", reason(&error), &hint)]
        }
    }
}

fn described(source: Source, info: &RuntimeInfo) -> Vec<Check> {
    let cuda = info.path.with_file_name("libonnxruntime_providers_cuda.so");
    let gpu = if info.providers.iter().any(|name| name == "CUDAExecutionProvider") && cuda.is_file() {
        ok("GPU", format!("CUDA provider at {}; `--device cuda` uses it", cuda.display()))
    } else {
        let hint = "for `--device cuda`, point ORT_DYLIB_PATH at the library of an installed onnxruntime-gpu package";
        optional("GPU", "this ONNX Runtime has no CUDA provider".into(), hint)
    };
    vec![
        ok("ONNX Runtime", format!("{} at {} (found by: {source})", info.version, info.path.display())),
        ok("providers", info.providers.join(", ")),
        gpu,
    ]
}

/// An error in one line.
fn reason(error: &Error) -> String {
    super::messages(error).join(": ")
}

fn folder(name: &'static str, path: &Path, hint: &str) -> Check {
    let shown = path.display().to_string();
    if path.is_dir() { ok(name, shown) } else { optional(name, format!("{shown} does not exist"), hint) }
}

/// Bytes that can be used without swapping, where the kernel tells.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn ok(name: &'static str, value: impl Into<String>) -> Check {
    Check { name, state: State::Ok, value: value.into(), hint: None }
}

fn optional(name: &'static str, value: String, hint: &str) -> Check {
    Check { name, state: State::Optional, value, hint: Some(hint.to_owned()) }
}

fn missing(name: &'static str, value: String, hint: &str) -> Check {
    Check { name, state: State::Missing, value, hint: Some(hint.to_owned()) }
}

fn table(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Optional => "-",
            State::Missing => "missing",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{state:<8} {:<18} {}", check.name, check.value);
        if let Some(hint) = &check.hint {
            let _ = writeln!(text, "{:<27} {hint}", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_runs_without_linear_algebra() {
        let error = Error::internal("no eigenvalues").caused_by(Error::internal("no memory"));
        let check = linear_algebra(Err(error));
        assert_eq!((check.state, &*check.value), (State::Optional, "no eigenvalues: no memory"));
        let found = linear_algebra(Ok(Blas { config: "OpenBLAS 0.3".into(), kernels: "Zen".into(), threads: 2 }));
        assert_eq!((found.state, &*found.value), (State::Ok, "OpenBLAS 0.3, 2 threads"));
    }
}
