//! `completions` and `man`: what shells and `man` are told about the arguments, made from their declaration.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use digrap_bench::error::{Error, Result};

use super::vqa::{create_output, write_whole};

/// Name of the program.
const PROGRAM: &str = "digrap-bench";

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that the completions are for
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder for the pages, such as ~/.local/share/man/man1
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

/// Prints completions of the program's arguments.
pub fn completions(args: &CompletionsArgs, program: &Command, json: bool) -> Result<()> {
    if json {
        return Err(
            Error::input("completions are a script for a shell, which --json cannot print").hint("leave out --json")
        );
    }
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut shown(program), PROGRAM, &mut text);
    let text =
        String::from_utf8(text).map_err(|cause| Error::internal("the completions are no text").caused_by(cause))?;
    // Of a program with a `-` in its name, options of verbs are looked for under another spelling than they are kept
    // under (https://github.com/clap-rs/clap/issues/6421).
    let text = if args.shell == Shell::Bash { text.replace("digrap__subcmd__bench", "digrap__bench") } else { text };
    super::print(&text)
}

/// Writes a page for the program and one for each of its verbs, and tells their names.
pub fn man(args: &ManArgs, program: &Command, json: bool) -> Result<()> {
    let mut program = shown(program);
    // Gives verbs their whole names.
    program.build();
    create_output(&args.output)?;
    let mut written = Vec::new();
    write_pages(program, &args.output, &mut written)?;
    if json {
        return super::print_json(&serde_json::json!({ "pages": written }));
    }
    super::print(&written.iter().map(|path| format!("{}\n", path.display())).collect::<String>())
}

/// The program without the verbs that its help does not show either.
fn shown(program: &Command) -> Command {
    let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about(program.get_about().cloned().unwrap_or_default())
        .after_help(program.get_after_help().cloned().unwrap_or_default())
        .disable_help_subcommand(true)
        .subcommand_required(true)
        .args(program.get_arguments().cloned())
        .subcommands(verbs)
}

fn write_pages(command: Command, folder: &Path, written: &mut Vec<PathBuf>) -> Result<()> {
    let verbs: Vec<Command> = command.get_subcommands().cloned().collect();
    let page = Man::new(command).source(concat!("digrap-bench ", env!("CARGO_PKG_VERSION"))).manual("User Commands");
    let path = folder.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text).map_err(|cause| Error::internal("cannot write a manual page").caused_by(cause))?;
    write_whole(&path, &text)?;
    written.push(path);
    verbs.into_iter().try_for_each(|verb| write_pages(verb, folder, written))
}
