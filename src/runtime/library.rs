//! Finding and loading the ONNX Runtime shared library.
//!
//! Nothing here reads the process environment: the binary says where to look ([`SearchPath`]). A process holds at
//! most one ONNX Runtime, so the loaded library is kept for its lifetime.

use std::ffi::{CStr, CString};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::ep::ExecutionProvider;

use super::Activity;
use crate::error::{Error, Result};

/// The oldest ONNX Runtime that works is 1.24: its C API of that number is what sessions are built on.
pub const OLDEST_MINOR: u32 = 24;

const SETUP: &str = "run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime of version 1.24 or later";

/// Where to look for the library, in this order.
#[derive(Debug, Clone, Default)]
pub struct SearchPath {
    /// The library itself, as given by the user (`ORT_DYLIB_PATH`); if set, nothing else is looked at.
    pub library: Option<PathBuf>,
    /// The cache folder of this program, which holds `onnxruntime-<version>/`.
    pub cache: PathBuf,
    /// Prefixes of Python installations: the library of an installed `onnxruntime` or `onnxruntime-gpu` package is
    /// `<prefix>/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime*`.
    pub python_prefixes: Vec<PathBuf>,
    /// Folders that hold shared libraries of the system.
    pub system: Vec<PathBuf>,
}

/// How a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Named by the user.
    Variable,
    /// Unpacked by the set-up.
    Cache,
    /// Part of a Python package.
    Python,
    /// In a library folder of the system.
    System,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Variable => "ORT_DYLIB_PATH",
            Self::Cache => "cache folder",
            Self::Python => "Python package",
            Self::System => "system",
        })
    }
}

/// An ONNX Runtime library on disk, not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// Absolute path without symbolic links.
    pub path: PathBuf,
    /// How it was found.
    pub source: Source,
}

/// What is known about the loaded ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// The library file.
    pub path: PathBuf,
    /// As the library itself reports it, for example `1.31.1`.
    pub version: String,
    /// Names of the execution providers this program can use with it, in ONNX Runtime's spelling.
    pub providers: Vec<String>,
}

/// The loaded ONNX Runtime; sessions are created from it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Path, version and providers.
    pub info: RuntimeInfo,
    pub(super) environment: ort::environment::Environment,
    pub(super) activity: Arc<Activity>,
}

impl Runtime {
    /// How long it has been at work.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }
}

/// Finds the library to load: the first one on the search path whose file name does not say that it is too old.
///
/// # Errors
///
/// Input error if the user's library does not exist, if there is none anywhere, or if all found are too old.
pub fn locate(search: &SearchPath) -> Result<Library> {
    if let Some(given) = &search.library {
        let path = given.canonicalize().map_err(|cause| {
            Error::input(format!(
                "cannot find the ONNX Runtime library `{}` that ORT_DYLIB_PATH names",
                given.display()
            ))
            .caused_by(cause)
            .hint("correct ORT_DYLIB_PATH, or unset it and run `make setup`")
        })?;
        return Ok(Library { path, source: Source::Variable });
    }
    let mut too_old = None;
    for (source, folders) in [
        (Source::Cache, children(&search.cache, "onnxruntime-")),
        (Source::Python, search.python_prefixes.iter().flat_map(|prefix| package_folders(prefix)).collect()),
        (Source::System, search.system.clone()),
    ] {
        let found = folders.iter().flat_map(|folder| libraries_in(folder));
        match newest(source, found) {
            Some((Some((1, minor)), library)) if minor < OLDEST_MINOR => {
                too_old.get_or_insert((format!("1.{minor}"), library));
            }
            Some((_, library)) => return Ok(library),
            None => {}
        }
    }
    Err(match too_old {
        Some((version, library)) => too_old_error(&version, &library),
        None => Error::input("cannot find the ONNX Runtime library").hint(SETUP),
    })
}

/// Loads the library into this process, for good, with a pool of `threads` that all sessions share. Loading the same
/// one again returns the same runtime with its first number of threads.
///
/// Libraries of Microsoft's packages report the process over the network while they are loaded, and write an identifier
/// to the user's cache, unless the environment variable `ORT_DISABLE_TELEMETRY` is `1` by then. The binary sets it.
///
/// # Errors
///
/// Input error if the file is damaged, is no ONNX Runtime, is too old, or if another one is loaded already.
pub fn load(library: &Library, threads: usize) -> Result<Runtime> {
    static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*loaded {
        Some(runtime) if runtime.info.path == library.path => return Ok(runtime.clone()),
        Some(runtime) => {
            let (path, other) = (library.path.display(), runtime.info.path.display());
            return Err(Error::input(format!("cannot load `{path}`: ONNX Runtime is already loaded from `{other}`")));
        }
        None => {}
    }
    let runtime = open(library, threads)?;
    *loaded = Some(runtime.clone());
    Ok(runtime)
}

fn open(library: &Library, threads: usize) -> Result<Runtime> {
    check_whole(&library.path).map_err(|reason| load_error(library, reason))?;
    let builder = ort::init_from(&library.path).map_err(|error| match error {
        ort::LoadDynamicError::BadVersion { version_str, .. } => too_old_error(&version_str, library),
        other => load_error(library, other.to_string()),
    })?;
    let version = version_of(&library.path).map_err(|reason| load_error(library, reason))?;
    let pool = || {
        let options = ort::environment::GlobalThreadPoolOptions::default();
        // Threads that spin while idle take the cores from those that prepare images and prompts.
        options.with_intra_threads(threads)?.with_spin_control(false)
    };
    let environment = pool()
        .and_then(|pool| builder.with_name("digrap-bench").with_telemetry(false).with_global_thread_pool(pool).build())
        .map_err(|error| load_error(library, error.to_string()))?;
    // What it logs as an error it also returns as one.
    environment.set_log_level(ort::logging::LogLevel::Fatal);
    let providers = [available::<ort::ep::CPU>(), available::<ort::ep::CUDA>()].into_iter().flatten().collect();
    Ok(Runtime {
        info: RuntimeInfo { path: library.path.clone(), version, providers },
        environment,
        activity: Arc::default(),
    })
}

/// Name of the provider if the library contains it.
fn available<P: ExecutionProvider>() -> Option<String> {
    P::is_available().is_ok_and(|yes| yes).then(|| P::NAME.to_owned())
}

fn load_error(library: &Library, reason: impl Into<String>) -> Error {
    let found = match library.source {
        Source::Variable => "named by ORT_DYLIB_PATH",
        Source::Cache => "from the cache folder",
        Source::Python => "from a Python package",
        Source::System => "from the system",
    };
    Error::input(format!("cannot load the ONNX Runtime library `{}` ({found})", library.path.display()))
        .caused_by(reason.into())
        .hint(SETUP)
}

fn too_old_error(version: &str, library: &Library) -> Error {
    let path = library.path.display();
    Error::input(format!("ONNX Runtime {version} at `{path}` is too old: 1.{OLDEST_MINOR} or later is needed"))
        .hint(SETUP)
}

/// Refuses what is not a whole shared library. The dynamic loader maps the file as its header says, so a truncated one
/// would end the process with SIGBUS instead of an error.
fn check_whole(path: &Path) -> Result<(), String> {
    let mut header = [0; 64];
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    if file.read_exact(&mut header).is_err() {
        return Err(format!("the file has only {size} bytes"));
    }
    let is_elf64 = header.starts_with(b"\x7fELF\x02\x01");
    if !is_elf64 {
        return if cfg!(target_os = "linux") { Err("the file is not a 64-bit ELF library".into()) } else { Ok(()) };
    }
    let number =
        |at: usize, width: usize| header[at..at + width].iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
    let (table, entry_size, entries) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    let end = table.saturating_add(entry_size * entries);
    if size < end { Err(format!("the file is truncated: {size} of {end} bytes")) } else { Ok(()) }
}

/// The version the library itself reports. `ort` checks it but does not hand it out.
fn version_of(path: &Path) -> Result<String, String> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the library is loaded already and stays loaded, so this only finds it again; the symbol has the
    // signature that `ort` relies on as well, and the strings it returns are static.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
        let symbol = if handle.is_null() { handle } else { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
        if symbol.is_null() {
            return Err("the file does not export `OrtGetApiBase`".into());
        }
        let get_base: unsafe extern "C" fn() -> *const ort::sys::OrtApiBase = std::mem::transmute(symbol);
        let base = get_base();
        if base.is_null() || ((*base).GetApi)(ort::sys::ORT_API_VERSION).is_null() {
            return Err(format!("the library does not offer API version {}", ort::sys::ORT_API_VERSION));
        }
        Ok(CStr::from_ptr(((*base).GetVersionString)()).to_string_lossy().into_owned())
    }
}

/// Folders in `folder` whose name starts with `prefix`, sorted; none if it cannot be read.
fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn package_folders(prefix: &Path) -> Vec<PathBuf> {
    let versions = ["lib", "lib64"].into_iter().flat_map(|lib| children(&prefix.join(lib), "python3"));
    versions
        .flat_map(|python| ["site-packages", "dist-packages"].map(|packages| python.join(packages)))
        .map(|packages| packages.join("onnxruntime/capi"))
        .collect()
}

fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let candidates = children(folder, "libonnxruntime.").into_iter();
    candidates.filter(|path| file_version(path).is_some()).filter_map(|path| path.canonicalize().ok()).collect()
}

/// Major and minor version.
type Version = (u32, u32);

/// The library of the highest version; one without a version in its name comes last.
fn newest(source: Source, paths: impl Iterator<Item = PathBuf>) -> Option<(Option<Version>, Library)> {
    let versioned = paths.map(|path| (file_version(&path).flatten(), Library { path, source }));
    // `max_by_key` prefers the last of equals, the search path the first.
    versioned.collect::<Vec<_>>().into_iter().rev().max_by_key(|(version, _)| *version)
}

/// None if the file name is not that of the library; the inner option is the version, if the name holds it.
fn file_version(path: &Path) -> Option<Option<Version>> {
    let name = path.file_name()?.to_str()?.strip_prefix("libonnxruntime")?;
    let version = if cfg!(target_os = "macos") { name.strip_suffix(".dylib")? } else { name.strip_prefix(".so")? };
    let mut numbers = version.strip_prefix('.').unwrap_or_default().split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some(Some((major, minor))),
        _ if version.chars().all(|c| c == '.' || c.is_ascii_digit()) => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, file: &str) -> PathBuf {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"x").unwrap();
        path.canonicalize().unwrap()
    }

    fn named(version: &str) -> String {
        if cfg!(target_os = "macos") {
            format!("libonnxruntime.{version}.dylib")
        } else {
            format!("libonnxruntime.so.{version}")
        }
    }

    fn search(root: &Path) -> SearchPath {
        SearchPath {
            library: None,
            cache: root.join("cache"),
            python_prefixes: vec![root.join("venv"), root.join("usr")],
            system: vec![root.join("lib")],
        }
    }

    #[test]
    fn the_search_order_is_variable_cache_python_system() {
        let root = tempfile::tempdir().unwrap();
        let mut search = search(root.path());
        assert_eq!(locate(&search).unwrap_err().to_string(), "cannot find the ONNX Runtime library");
        let expect = |search: &SearchPath, path: PathBuf, source| {
            assert_eq!(locate(search).unwrap(), Library { path, source });
        };
        expect(&search, touch(root.path(), &format!("lib/{}", named("1.30.0"))), Source::System);
        let debian = format!("usr/lib/python3/dist-packages/onnxruntime/capi/{}", named("1.25.0"));
        expect(&search, touch(root.path(), &debian), Source::Python);
        touch(root.path(), "cache/onnxruntime-1.31.1/libonnxruntime_providers_shared.so");
        touch(root.path(), &format!("cache/onnxruntime-1.9.0/{}", named("1.9.0")));
        expect(&search, touch(root.path(), &format!("cache/onnxruntime-1.31.1/{}", named("1.31.1"))), Source::Cache);
        search.library = Some(touch(root.path(), "mine.so"));
        expect(&search, root.path().canonicalize().unwrap().join("mine.so"), Source::Variable);
    }

    #[test]
    fn a_library_too_old_is_passed_over_and_named_if_there_is_no_other() {
        let root = tempfile::tempdir().unwrap();
        let package = format!("venv/lib/python3.12/site-packages/onnxruntime/capi/{}", named("1.18.1"));
        let old = touch(root.path(), &package);
        let error = locate(&search(root.path())).unwrap_err();
        let expected = format!("ONNX Runtime 1.18 at `{}` is too old: 1.24 or later is needed", old.display());
        assert_eq!(error.to_string(), expected);
        let system = touch(root.path(), &format!("lib/{}", named("1.24.0")));
        assert_eq!(locate(&search(root.path())).unwrap().path, system);
    }

    #[test]
    fn a_missing_library_named_by_the_user_is_not_replaced_by_another() {
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), &format!("lib/{}", named("1.30.0")));
        let search = SearchPath { library: Some(root.path().join("none.so")), ..search(root.path()) };
        assert!(locate(&search).unwrap_err().to_string().contains("none.so` that ORT_DYLIB_PATH names"));
    }

    #[test]
    fn damaged_files_are_errors() {
        let root = tempfile::tempdir().unwrap();
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();
        let fail = |name: &str, bytes: &[u8]| {
            let path = root.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = load(&Library { path, source: Source::Cache }, 1).unwrap_err();
            assert_eq!(error.next_step(), Some(SETUP));
            format!("{error:?}")
        };
        assert!(fail("empty.so", b"").ends_with("the file has only 0 bytes"));
        if cfg!(target_os = "linux") {
            assert!(fail("text.so", &[b'x'; 100]).ends_with("the file is not a 64-bit ELF library"));
            assert!(fail("half.so", &program[..program.len() / 2]).contains("the file is truncated: "));
        }
    }

    /// A library that looks like ONNX Runtime of this version to whoever asks.
    fn imitation(folder: &Path, version: &str) -> PathBuf {
        let (source, path) = (folder.join("imitation.c"), folder.join(format!("imitation-{version}.so")));
        let code = format!(
            "static const void *api(unsigned v) {{ return 0; }}\n\
             static const char *version(void) {{ return \"{version}\"; }}\n\
             static const void *base[2] = {{ api, version }};\n\
             const void *OrtGetApiBase(void) {{ return base; }}\n"
        );
        fs::write(&source, code).unwrap();
        let compiler =
            std::process::Command::new("cc").args(["-w", "-shared", "-fPIC", "-o"]).arg(&path).arg(&source).status();
        assert!(compiler.unwrap().success());
        path
    }

    #[test]
    fn a_library_that_reports_an_old_version_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let path = imitation(root.path(), "1.18.1");
        let error = load(&Library { path, source: Source::Variable }, 1).unwrap_err();
        assert!(error.to_string().starts_with("ONNX Runtime 1.18.1 at `"), "{error}");
        assert!(error.to_string().ends_with("is too old: 1.24 or later is needed"), "{error}");
    }

    #[test]
    fn a_library_without_the_entry_point_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let (source, path) = (root.path().join("none.c"), root.path().join("none.so"));
        fs::write(&source, "int nothing;").unwrap();
        std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&path).arg(&source).status().unwrap();
        let error = load(&Library { path, source: Source::System }, 1).unwrap_err();
        assert!(format!("{error:?}").contains("does not export `OrtGetApiBase`"), "{error:?}");
    }
}
