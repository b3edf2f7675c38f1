//! The program in shells and terminals: completions, manual pages, colours, width, and what is drawn where.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{fixture, forget_surroundings, program_at};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_digrap-bench"));
    forget_surroundings(&mut command);
    command
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs that help lists.
fn verbs() -> Vec<String> {
    let help = stdout(program().arg("--help").env("COLUMNS", "200"));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What an explanation goes on with stands further to the right.
    let verb = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).map(str::to_owned);
    let verbs: Vec<String> =
        listed.filter_map(verb).map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(verbs.len() > 8 && verbs.contains(&"completions".to_owned()), "{help}");
    verbs
}

#[test]
fn completions_of_every_shell_know_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = stdout(program().args(["completions", shell]));
        assert_eq!(text, stdout(program().args(["completions", shell])), "{shell}");
        for verb in verbs() {
            assert!(text.contains(&verb), "{shell} does not know {verb}");
        }
        assert!(text.contains("max-new-tokens"), "{shell} knows no options");
        assert!(!text.contains("select-miniature"), "{shell} shows what is hidden");
    }
}

#[test]
fn bash_completes_verbs_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let refused = program().args(["completions", "bash", "--json"]).output().unwrap();
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0), "a script is no JSON");
    fs::write(folder.path().join("completions"), stdout(program().args(["completions", "bash"]))).unwrap();
    let complete = |words: &str| {
        let script = format!(
            "source completions && complete -p digrap-bench >&2 && COMP_WORDS=({words}) && \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) && completer=$(complete -p digrap-bench) && \
             completer=${{completer#* -F }} && \
             ${{completer%% *}} digrap-bench \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).current_dir(folder.path()).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.starts_with("complete ") && errors.ends_with(" digrap-bench\n"), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(complete("digrap-bench vq"), "vqa\n");
    assert_eq!(complete("digrap-bench vqa --max-n"), "--max-new-tokens\n");
    assert_eq!(complete("digrap-bench completions ba"), "bash\n");
    assert_eq!(complete("digrap-bench list pro"), "prompts\n");
}

#[test]
fn every_verb_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let names = stdout(program().arg("man").arg("--output").arg(&one));
    stdout(program().arg("man").arg("--output").arg(&two));
    let mut pages: Vec<String> =
        fs::read_dir(&one).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    assert_eq!(names.lines().count(), pages.len());
    assert!(pages.contains(&"digrap-bench.1".to_owned()));
    for verb in verbs() {
        assert!(pages.contains(&format!("digrap-bench-{verb}.1")), "{verb}: {pages:?}");
    }
    assert!(!pages.iter().any(|page| page.contains("select-miniature")), "{pages:?}");
    for page in &pages {
        let text = fs::read_to_string(one.join(page)).unwrap();
        assert_eq!(text, fs::read_to_string(two.join(page)).unwrap(), "{page}");
        let heads: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(".SH ")).collect();
        assert_eq!(heads[..3], ["NAME", "SYNOPSIS", "DESCRIPTION"], "{page}");
        let title = format!(".TH {} 1  ", page.trim_end_matches(".1"));
        assert!(text.lines().any(|line| line.starts_with(&title)), "{page}: {text}");
    }
    let Some(rendered) = rendered(&one.join("digrap-bench-vqa.1")) else { return };
    assert!(rendered.contains("digrap-bench-vqa - Evaluate models on questions about images"), "{rendered}");
    assert!(rendered.contains("--max-new-tokens <N>"), "{rendered}");
}

/// A page as `man` shows it, where it is installed; whatever it warns of is a failure.
fn rendered(page: &Path) -> Option<String> {
    let mut man = Command::new("man");
    man.args(["--warnings", "--local-file"]).arg(page).env("MANWIDTH", "80").env("LC_ALL", "C").env("MANPAGER", "cat");
    let output = man.output().ok()?;
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn help_fits_a_narrow_terminal() {
    for arguments in [&["--help"][..], &["vqa", "--help"], &["train", "--help"]] {
        let wide = stdout(program().args(arguments).env("COLUMNS", "100"));
        let narrow = stdout(program().args(arguments).env("COLUMNS", "40"));
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&wide), words(&narrow), "{arguments:?}");
        assert!(narrow.lines().count() > wide.lines().count());
        // Usage and names of options are not broken; sentences are.
        let long = |line: &&str| line.chars().count() > 40 && line.trim().contains(' ') && !line.contains("--");
        let usage = |line: &&str| line.starts_with("Usage: ");
        let found: Vec<&str> = narrow.lines().filter(|line| long(line) && !usage(line)).collect();
        assert!(found.is_empty(), "{arguments:?}: {found:?}");
    }
}

/// A table is the same text wherever it goes: it can be cut and pasted, and a narrow terminal breaks its rows.
#[test]
fn results_do_not_depend_on_the_terminal() {
    let list = |columns: &str| stdout(program().args(["list", "metrics"]).env("COLUMNS", columns));
    assert_eq!(list("40"), list("200"));
}

/// What the program writes to a terminal of so many columns.
#[cfg(target_os = "linux")]
fn in_terminal(home: &Path, columns: usize, environment: &[(&str, &str)], arguments: &str) -> (Output, String) {
    let mut command = Command::new("script");
    let plain = program_at(home);
    command.current_dir(home).env("TERM", "xterm");
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.envs(environment.iter().copied());
    let program = env!("CARGO_BIN_EXE_digrap-bench");
    command.args(["-qec", &format!("stty cols {columns} rows 24; exec '{program}' {arguments}"), "/dev/null"]);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}");
    (output, text)
}

#[cfg(target_os = "linux")]
#[test]
fn colours_are_for_terminals_that_want_them() {
    let home = tempfile::tempdir().unwrap();
    let escapes =
        |environment: &[(&str, &str)]| in_terminal(home.path(), 80, environment, "--help").1.contains('\u{1b}');
    assert!(escapes(&[]));
    assert!(!escapes(&[("NO_COLOR", "1")]));
    assert!(!escapes(&[("TERM", "dumb")]));
    assert!(!stdout(program().arg("--help")).contains('\u{1b}'));
}

/// Evaluates a small model on few questions.
const FEW: &str = "vqa --model model --suite miniature --limit 20 --threads 1 --output output";

#[cfg(target_os = "linux")]
#[test]
fn progress_fits_the_terminal_and_leaves_results_alone() {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(fixture("models/miniature-pt"), home.path().join("model")).unwrap();
    let (_, narrow) = in_terminal(home.path(), 40, &[], FEW);
    assert!(narrow.contains("20/20 questions"), "{narrow}");
    // A row that is drawn anew begins at a carriage return, and what moves the cursor is not seen. A row that is full ends
    // by itself: the next one is another display, not what did not fit.
    let progress = narrow.split('|').next().unwrap();
    for row in progress.split(['\r', '\n']).map(without_escapes) {
        let signs: Vec<char> = row.chars().collect();
        for row in signs.chunks(40).map(|row| row.iter().collect::<String>()) {
            let position = row.split(' ').next().unwrap();
            assert!(row.trim().is_empty() || position.ends_with("/20"), "not the beginning of a row: {row}");
        }
    }
    assert!(progress.contains('\u{1b}'), "nothing is drawn anew");
    let dumb = in_terminal(home.path(), 40, &[("TERM", "dumb")], FEW).1;
    assert!(!dumb.contains('\u{1b}') && dumb.contains("20/20 questions"), "{dumb}");
    let output = program_at(home.path()).args(FEW.split(' ')).output().unwrap();
    assert!(output.status.success());
    let [results, progress] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    assert!(!results.contains("questions/s") && results.starts_with("| model "), "{results}");
    assert!(!progress.contains('\u{1b}') && progress.contains("20/20 questions"), "{progress}");
    assert!(dumb.replace('\r', "").ends_with(&results), "{dumb}");
}

/// A text without control sequences (ECMA-48, 5.4).
#[cfg(target_os = "linux")]
fn without_escapes(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |seen, piece| {
        let end = piece.find(|sign: char| ('@'..='~').contains(&sign)).map_or(piece.len(), |at| at + 1);
        seen + &piece[end..]
    })
}
