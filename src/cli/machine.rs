//! What the environment of this process says: folders, how to reach the Hub, and where to look for ONNX Runtime.

use std::env;
use std::path::{Path, PathBuf};

use digrap_bench::error::{Error, Result};
use digrap_bench::hub::{Hub, Settings, Token};
use digrap_bench::runtime::library::SearchPath;

/// The folders of this user.
#[derive(Debug, Clone)]
pub struct Folders {
    /// What can be made again: the ONNX Runtime library.
    pub cache: PathBuf,
    /// Datasets, and the store of runs without `--output`.
    pub data: PathBuf,
    /// Models downloaded from the Hub, shared with other programs.
    pub hub: PathBuf,
    /// File with the token that `hf auth login` keeps.
    pub token: PathBuf,
}

/// The folders, by the XDG and Hub variables.
pub fn folders() -> Result<Folders> {
    let home = || {
        variable("HOME").map(PathBuf::from).ok_or_else(|| {
            Error::input("the environment variable HOME is not set")
                .hint("set it, or set XDG_CACHE_HOME and XDG_DATA_HOME")
        })
    };
    let base =
        |name, fallback| variable(name).map_or_else(|| Ok(home()?.join(fallback)), |path| Ok(PathBuf::from(path)));
    let cache = base("XDG_CACHE_HOME", ".cache")?;
    let hub_home = variable("HF_HOME").map_or_else(|| cache.join("huggingface"), PathBuf::from);
    let below = |name, fallback| variable(name).map_or_else(|| hub_home.join(fallback), PathBuf::from);
    let (hub, token) = (below("HF_HUB_CACHE", "hub"), below("HF_TOKEN_PATH", "token"));
    Ok(Folders {
        cache: cache.join("digrap-bench"),
        data: base("XDG_DATA_HOME", ".local/share")?.join("digrap-bench"),
        hub,
        token,
    })
}

/// The Hub by the variables that huggingface_hub knows too. `offline` is what the command line says.
pub fn hub(folders: &Folders, offline: bool) -> Result<Hub> {
    let text = |name| variable(name).and_then(|value| value.into_string().ok());
    let is_set = |name| text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase()));
    let token = text("HF_TOKEN").or_else(|| std::fs::read_to_string(&folders.token).ok()).unwrap_or_default();
    Hub::new(Settings {
        cache: folders.hub.clone(),
        endpoint: text("HF_ENDPOINT"),
        token: Token::new(&token)?,
        offline: offline || is_set("HF_HUB_OFFLINE"),
    })
}

/// Where to look for the ONNX Runtime library.
pub fn search_path(folders: &Folders) -> SearchPath {
    SearchPath {
        library: variable("ORT_DYLIB_PATH").map(PathBuf::from),
        cache: folders.cache.clone(),
        python_prefixes: python_prefixes(),
        system: system_folders(),
    }
}

/// An empty variable counts as unset, as the XDG specification has it.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Active environments first, then the user's packages, then the `python3` of the PATH, then the system's.
fn python_prefixes() -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONUSERBASE"].into_iter().filter_map(variable).map(PathBuf::from).collect();
    prefixes.extend(variable("HOME").map(|home| Path::new(&home).join(".local")));
    let folders = variable("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    if let Some(folder) = folders.iter().find(|folder| folder.join("python3").is_file()) {
        prefixes.extend(prefixes_of_python(folder));
    }
    prefixes.extend(["/usr/local", "/usr"].map(PathBuf::from));
    prefixes
}

/// Prefixes of the `python3` in a folder of the PATH: of the link itself (a virtual environment), of what it points
/// to, and of the versions that a pyenv shim chooses from.
fn prefixes_of_python(folder: &Path) -> Vec<PathBuf> {
    let prefix_of = |program: &Path| program.ancestors().nth(2).map(Path::to_path_buf);
    let program = folder.join("python3");
    let mut prefixes = Vec::from_iter(prefix_of(&program));
    prefixes.extend(program.canonicalize().ok().and_then(|program| prefix_of(&program)));
    if folder.file_name().is_some_and(|name| name == "shims")
        && let Some(root) = folder.parent()
    {
        let chosen = variable("PYENV_VERSION").and_then(|version| version.into_string().ok());
        let chosen = chosen.or_else(|| std::fs::read_to_string(root.join("version")).ok()).unwrap_or_default();
        prefixes
            .extend(chosen.split([':', '\n']).filter(|v| !v.is_empty()).map(|v| root.join("versions").join(v.trim())));
    }
    prefixes
}

fn system_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = ["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"]
        .into_iter()
        .filter_map(variable)
        .flat_map(|path| env::split_paths(&path).collect::<Vec<_>>())
        .collect();
    let triplet = format!("{}-linux-gnu", env::consts::ARCH);
    for base in ["/usr/local/lib", "/usr/lib", "/lib"] {
        folders.extend([Path::new(base).join(&triplet), PathBuf::from(base), PathBuf::from(format!("{base}64"))]);
    }
    folders.push("/opt/homebrew/lib".into());
    folders
}

/// The file whose Markdown GitHub shows with the job that this process is a step of.
pub fn step_summary() -> Option<PathBuf> {
    variable("GITHUB_STEP_SUMMARY").map(PathBuf::from)
}

/// Lets the peak of resident memory begin anew, where the system can (Linux).
pub fn forget_peak() {
    // Where it cannot, the peak is that of the whole process: an upper bound.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Resident memory of this process in MiB, now and at its peak, where the system tells (Linux).
pub fn resident_mib() -> Option<[f64; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().split(' ').next()?.parse::<f64>().ok()
    };
    Some([field("VmRSS")? / 1024.0, field("VmHWM")? / 1024.0])
}
