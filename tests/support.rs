//! What tests share: the fixtures, the runtime, a program to run.

use std::path::{Path, PathBuf};
use std::process::Command;

use digrap_bench::model::Loading;
use digrap_bench::runtime::library::{Library, SearchPath, load, locate};
use digrap_bench::runtime::{Device, Runtime, SessionOptions, Sharing};
use digrap_bench::store::{AnswerSettings, DistanceSettings, FeatureSettings, ReferenceSettings};

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

/// The ONNX Runtime library that the set-up installed.
pub fn library() -> Library {
    let search = SearchPath {
        library: std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from),
        cache: cache_folder(),
        ..SearchPath::default()
    };
    locate(&search).unwrap()
}

/// ONNX Runtime as the set-up installed it.
pub fn runtime() -> Runtime {
    load(&library(), 2).unwrap()
}

/// The easy-VQA folder that the set-up installed.
pub fn easy_vqa() -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".local/share"));
    data.join("digrap-bench/datasets/easy-vqa")
}

/// The program, in a folder that is also the home of its user, with the installed ONNX Runtime.
pub fn program_at(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_digrap-bench"));
    command.current_dir(home).env("ORT_DYLIB_PATH", library().path).env_remove("ORT_DISABLE_TELEMETRY");
    for name in ["HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
        command.env(name, home);
    }
    forget_surroundings(&mut command);
    command
}

/// Takes away what a launcher or a CI service has told the process that runs the tests.
pub fn forget_surroundings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let of_launcher = ["OMPI_", "PMI_", "SLURM_"].iter().any(|prefix| text.starts_with(prefix));
        // Help has colours by these, some of them whatever the terminal.
        let of_colours = ["CI", "CLICOLOR", "CLICOLOR_FORCE", "NO_COLOR"].contains(&&*text);
        if of_launcher || of_colours || ["RANK", "WORLD_SIZE", "GITHUB_STEP_SUMMARY"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
}

/// Makes `file` another name of an existing one, or a copy where that cannot be.
pub fn link(existing: &Path, file: &Path) {
    // A fixture may itself be a link to a file that several share.
    let existing = existing.canonicalize().unwrap();
    std::fs::hard_link(&existing, file).or_else(|_| std::fs::copy(&existing, file).map(drop)).unwrap();
}

/// As small models run on the CPU.
pub fn session_options() -> SessionOptions {
    SessionOptions { device: Device::Cpu, sharing: Sharing::Replicas }
}

/// Replicas that answer and have no features.
pub fn loading(session: SessionOptions, replicas: usize) -> Loading {
    Loading { session, replicas, features: None }
}

/// As the threads of one session share its operators.
pub fn shared_operators() -> SessionOptions {
    SessionOptions { device: Device::Cpu, sharing: Sharing::Operators }
}

/// What answers in made stores were given under.
pub fn answer_settings() -> AnswerSettings {
    let text = |value: &str| value.to_owned();
    AnswerSettings {
        weights: text("0123456789abcdef"),
        configuration: text("c"),
        tokenizer: text("t"),
        prompt: text("{q}"),
        decoding: text("greedy"),
        max_new_tokens: 20,
        dtype: text("f32"),
        provider: text("cpu"),
        runtime_version: text("1.31.0"),
        preprocessing: text("p"),
        program_version: text("0.1.0"),
    }
}

/// What distances in made stores were measured with, by a model of these weights.
pub fn distance_settings(weights: &str) -> DistanceSettings {
    let text = |value: &str| value.to_owned();
    DistanceSettings {
        features: FeatureSettings {
            weights: text(weights),
            configuration: text("c"),
            tokenizer: text("t"),
            prompt: text("{q}"),
            vision_layer: text("last"),
            language_layer: text("last"),
            dtype: text("f32"),
            provider: text("cpu"),
            runtime_version: text("1"),
            preprocessing: text("p"),
            program_version: text("0"),
        },
        reference: ReferenceSettings { dataset: text("train"), questions: text("d"), n: 3 },
        estimator: text("marginal"),
    }
}

/// Seeded numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number between 0 and 1.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal number.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// An integer below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Puts the values into a random order.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for index in (1..values.len()).rev() {
            values.swap(index, self.below(index + 1));
        }
    }
}
