//! `docs/cli.md` is the reference of the command line, written from the definitions that parse it.
//! `UPDATE_EXPECT=1` writes it anew.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use expect_test::expect_file;

const INTRODUCTION: &str = include_str!("reference.md");

#[test]
fn the_reference_is_what_the_program_takes() {
    let mut root = node_agent::cli::Cli::command();
    root.build();
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n## Options of every command\n\n");
    options(&mut text, root.get_arguments().filter(|arg| arg.is_global_set()));
    commands(&mut text, "pairway", &root);
    expect_file!["../../../docs/cli.md"].assert_eq(&text);
}

fn commands(text: &mut String, path: &str, command: &Command) {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            commands(text, &path, command);
            continue;
        }
        let positionals: Vec<String> = command.get_positionals().map(positional).collect();
        let usage = [std::slice::from_ref(&path), &positionals].concat().join(" ");
        let about = command
            .get_long_about()
            .or(command.get_about())
            .expect("every command says what it does")
            .to_string();
        let about = about.trim_end_matches('.');
        write!(text, "\n## `{usage}`\n\n{about}.\n").expect("a string");
        let own: Vec<&Arg> =
            command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help").collect();
        if !own.is_empty() {
            text.push('\n');
            options(text, own.into_iter());
        }
    }
}

fn positional(arg: &Arg) -> String {
    let name = arg.get_id().as_str().to_uppercase();
    if arg.is_required_set() { name } else { format!("[{name}]") }
}

fn options<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    text.push_str("| | |\n|---|---|\n");
    for arg in arguments {
        let mut name = if arg.is_positional() { positional(arg) } else { String::new() };
        if let Some(short) = arg.get_short() {
            write!(name, "-{short}, ").expect("a string");
        }
        if let Some(long) = arg.get_long() {
            write!(name, "--{long}").expect("a string");
        }
        if !arg.is_positional() && arg.get_action().takes_values() {
            for value in arg.get_value_names().unwrap_or_default() {
                write!(name, " {value}").expect("a string");
            }
        }
        let help = arg.get_long_help().or(arg.get_help()).expect("every argument says what it means");
        let mut notes = format!("{help}.");
        if arg.is_required_set() && !arg.is_positional() {
            notes.push_str(" Required.");
        }
        let values: Vec<String> =
            arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        if !values.is_empty() && arg.get_action().takes_values() {
            write!(notes, " One of {}.", values.join(", ")).expect("a string");
        }
        if let Some(variable) = arg.get_env() {
            write!(notes, " Also `${}`.", variable.to_string_lossy()).expect("a string");
        }
        if let [default] = arg.get_default_values()
            && arg.get_action().takes_values()
        {
            write!(notes, " Default: `{}`.", default.to_string_lossy()).expect("a string");
        }
        writeln!(text, "| `{name}` | {} |", notes.replace('\n', " ")).expect("a string");
    }
}
