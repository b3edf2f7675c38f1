//! What the environment of this process says: folders, how to reach the Hub, and where to look for ONNX Runtime.

use std::env;
use std::path::{Path, PathBuf};

use digrap_bench::error::{Error, Result};
use digrap_bench::hub::{Hub, Settings, Token};
use digrap_bench::runtime::library::SearchPath;
use digrap_bench::suite::Shard;

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

/// The variables by which launchers tell a process its number, from 0 on, and how many there are: torchrun, Open MPI, other
/// MPI, Slurm's srun. The batch script itself has a `SLURM_PROCID` too, but the tasks of a step are counted for srun's alone.
const LAUNCHERS: [[&str; 2]; 4] = [
    ["RANK", "WORLD_SIZE"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["PMI_RANK", "PMI_SIZE"],
    ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS"],
];

/// The part of a run that falls to this process by what launched it, and the variable that says so; none where the process
/// is alone.
pub fn shard() -> Result<Option<(Shard, &'static str)>> {
    shard_by(&|name| variable(name).and_then(|value| value.into_string().ok()))
}

fn shard_by(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(Shard, &'static str)>> {
    let number = |name: &str| {
        let parse = |text: String| {
            text.trim().parse::<usize>().map_err(|cause| {
                Error::input(format!("the environment variable {name} is `{text}`, which is no number of a process"))
                    .caused_by(cause)
                    .hint("unset it, or say which part to answer: --shard 1/1 is all of it")
            })
        };
        variable(name).map(parse).transpose()
    };
    for [rank, size] in LAUNCHERS {
        if let (Some(own), Some(all @ 2..)) = (number(rank)?, number(size)?) {
            let shard = own.checked_add(1).map_or_else(|| Shard::new(0, all), |index| Shard::new(index, all));
            let shard = shard.map_err(|error| {
                let what = format!("the environment variables {rank}={own} and {size}={all} choose no part of the questions");
                error.within(what).hint(format!(
                    "{rank} counts from 0 and is less than {size}; unset both, or say which part to answer: --shard 1/1 is all \
                     of it"
                ))
            })?;
            return Ok(Some((shard, rank)));
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_say_which_part_falls_to_a_process() {
        let shard = |given: &[(&str, &str)]| {
            let find =
                |name: &str| given.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            let found = shard_by(&find).map_err(|error| error.to_string())?;
            Ok(found.map(|(shard, told)| format!("{shard} by {told}")))
        };
        type Variables<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Variables, Option<&str>)] = &[
            (&[], None),
            (&[("RANK", "0"), ("WORLD_SIZE", "1")], None),
            (&[("RANK", "3"), ("WORLD_SIZE", "4")], Some("4/4 by RANK")),
            (&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")], Some("1/2 by OMPI_COMM_WORLD_RANK")),
            (
                &[("PMI_RANK", "1"), ("PMI_SIZE", "2"), ("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")],
                Some("2/2 by PMI_RANK"),
            ),
            (&[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "8")], Some("2/8 by SLURM_PROCID")),
            // An allocation is no launch: its batch script is one process, whose number is 0.
            (&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")], None),
            // The tasks of an array may be different runs.
            (&[("SLURM_ARRAY_TASK_ID", "1"), ("SLURM_ARRAY_TASK_COUNT", "3"), ("SLURM_ARRAY_TASK_MIN", "1")], None),
        ];
        for (given, expected) in cases {
            assert_eq!(shard(given), Ok::<_, String>(expected.map(str::to_owned)), "{given:?}");
        }
        assert!(shard(&[("RANK", "one"), ("WORLD_SIZE", "4")]).unwrap_err().contains("RANK is `one`"));
        let error = shard(&[("RANK", "4"), ("WORLD_SIZE", "4")]).unwrap_err();
        assert_eq!(error, "the environment variables RANK=4 and WORLD_SIZE=4 choose no part of the questions");
    }
}
