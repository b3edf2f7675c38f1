//! Arguments, one function per verb, and the only printing.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use digrap_bench::error::{Error, Kind, Result, shell_word};
use digrap_bench::store::Maker;

mod compare;
mod doctor;
mod export;
mod features;
mod fetch;
mod fetch_miniature;
mod figures;
mod kernels;
mod known;
mod leaderboard;
mod list;
mod machine;
mod progress;
mod runs;
mod runs_export;
mod score;
mod select_miniature;
mod shards;
mod shell;
mod shift;
mod shift_models;
mod source;
mod train;
mod train_display;
mod vqa;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 a comparison fails; 2 wrong arguments or input; \
    3 not comparable or incomplete; 4 internal failure.";

/// Measures how robust visual question answering models are.
#[derive(Debug, Parser)]
#[command(name = "digrap-bench", version, after_help = EXIT_CODES, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    /// Print results as JSON, and nothing else, on standard output
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Evaluate models on questions about images
    Vqa(Box<vqa::VqaArgs>),
    /// Fine-tune a model on questions about images
    Train(Box<train::TrainArgs>),
    /// Score a results file
    Score(score::ScoreArgs),
    /// Compare a model with a baseline, and exit with 1 where it has become worse
    Compare(Box<compare::CompareArgs>),
    /// Rank the models whose results stores hold, with counts, intervals and where all comes from; reads no model
    Leaderboard(leaderboard::LeaderboardArgs),
    /// Draw what stores hold about shift and training, with a page; reads no model
    Figures(figures::FiguresArgs),
    /// Measure how far datasets have shifted: a model's features of a suite, or features in files
    Shift(Box<shift::ShiftArgs>),
    /// List, show, remove, export and import what stores hold
    Runs(runs::RunsArgs),
    /// Write models as ONNX files
    Export(export::ExportArgs),
    /// Download models and datasets, or check what was used of the Hub
    Fetch(fetch::FetchArgs),
    /// The known datasets, encoders, measures, methods, metrics, modalities, models, prompts, suites and variants of distance
    List(list::ListArgs),
    /// Select questions of the miniature world from a pool; made once for each version of the world
    #[command(hide = true)]
    SelectMiniature(select_miniature::SelectArgs),
    /// What this machine can run, and what is missing
    Doctor,
    /// Print completions of the arguments for a shell
    Completions(shell::CompletionsArgs),
    /// Write manual pages, one for the program and one for each verb
    Man(shell::ManArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // ONNX Runtime reports each process over the network unless told so before it is loaded.
    // SAFETY: no other thread has been started that could read the environment.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    let cli = match Cli::try_parse_from(normalise(std::env::args_os())) {
        Ok(cli) => cli,
        Err(usage) => {
            // A closed standard output is the reader's choice, not a failure.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    match std::panic::catch_unwind(|| run(&cli)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            print_error(&error);
            exit_code(error.kind())
        }
        // The panic hook has printed what happened.
        Err(_) => exit_code(Kind::Internal),
    }
}

/// Success, unless a comparison says otherwise.
fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.verb {
        Verb::Compare(args) => return compare::run(args, cli.json),
        Verb::Vqa(args) => vqa::run(args, cli.json),
        Verb::Train(args) => train::run(args, cli.json),
        Verb::Score(args) => score::run(args, cli.json),
        Verb::Leaderboard(args) => leaderboard::run(args, cli.json),
        Verb::Figures(args) => figures::run(args, cli.json),
        Verb::Shift(args) => shift::run(args, cli.json),
        Verb::Runs(args) => runs::run(args, cli.json),
        Verb::Export(args) => export::run(args, cli.json),
        Verb::Fetch(args) => fetch::run(args, cli.json),
        Verb::List(args) => list::run(args, cli.json),
        Verb::SelectMiniature(args) => select_miniature::run(args),
        Verb::Doctor => doctor::run(cli.json),
        Verb::Completions(args) => shell::completions(args, &Cli::command(), cli.json),
        Verb::Man(args) => shell::man(args, &Cli::command(), cli.json),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn exit_code(kind: Kind) -> ExitCode {
    ExitCode::from(match kind {
        Kind::Input => 2,
        Kind::Incomplete => 3,
        Kind::Internal => 4,
    })
}

/// The commit this program was built from, where the build has told it.
const COMMIT: Option<&str> = option_env!("DIGRAP_BENCH_COMMIT");

/// This program, as it was started.
fn maker() -> Maker {
    let arguments = std::env::args_os().skip(1).map(|argument| shell_word(&argument.to_string_lossy()));
    let command: Vec<String> = std::iter::once("digrap-bench".to_owned()).chain(arguments).collect();
    Maker {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: COMMIT.filter(|commit| !commit.is_empty()).map(str::to_owned),
        command: command.join(" "),
    }
}

/// `--batch_size` and `--batch-size` are the same flag; values, and all after a bare `--`, stay as they are.
fn normalise(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut flags_end = false;
    let flag = |argument: OsString| {
        flags_end |= argument == "--";
        match argument.to_str().filter(|text| text.starts_with("--") && !flags_end) {
            Some(text) => {
                let (name, value) = text.split_at(text.find('=').unwrap_or(text.len()));
                (name.replace('_', "-") + value).into()
            }
            None => argument,
        }
    };
    arguments.map(flag).collect()
}

/// Writes results to standard output. A reader that has gone away is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != ErrorKind::BrokenPipe => {
            Err(Error::input("cannot write the results to standard output").caused_by(cause))
        }
        _ => Ok(()),
    }
}

/// Writes one JSON document to standard output.
pub fn print_json(document: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|cause| Error::internal("cannot write the results as JSON").caused_by(cause))?;
    print(&(text + "\n"))
}

/// The message of an error and those of its causes, without repetitions.
fn messages(error: &Error) -> Vec<String> {
    let mut messages = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let message = error.to_string();
        // Some crates repeat the text of the source in that of the error.
        if !messages.last().is_some_and(|last| last.contains(&message) || message.ends_with(last)) {
            messages.push(message);
        }
        cause = error.source();
    }
    messages
}

fn print_error(error: &Error) {
    print_message(&format!("error: {}\n", lines(error).join("\n")));
}

/// Tells of something that does not keep the program from its work.
fn warn(error: &Error) {
    print_message(&format!("warning: {}\n", lines(error).join("\n")));
}

/// An error as it is told, line by line.
fn lines(error: &Error) -> Vec<String> {
    let mut lines = messages(error);
    lines.iter_mut().skip(1).for_each(|line| line.insert_str(0, "caused by: "));
    lines.extend(error.next_step().map(|hint| format!("hint: {hint}")));
    lines
}

fn print_message(text: &str) {
    // Nothing is left to say where standard error itself is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn underscores_in_flag_names_are_dashes() {
        let given = ["digrap-bench", "vqa", "--batch_size", "4", "--image_name=a_b_{}", "a_b", "-x_y", "--", "--c_d"];
        let expected =
            ["digrap-bench", "vqa", "--batch-size", "4", "--image-name=a_b_{}", "a_b", "-x_y", "--", "--c_d"];
        assert_eq!(normalise(given.into_iter().map(OsString::from)), expected.map(OsString::from));
    }
}
