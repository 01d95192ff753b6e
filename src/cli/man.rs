//! `narrows man`: the manual, one page for each command, made of the definition of the command line.

use super::Cli;
use super::exit::{Exit, Failed};
use super::presets::write_out;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use std::io;
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  narrows man | man -l -
  narrows man tenant freeze | man -l -
  narrows man --into /usr/local/share/man/man1

Exit codes: 0 done; 2 misuse; 70 the folder cannot be written.";

/// Section of the manual for commands.
const SECTION: &str = "1";
/// How the last blocks of a command's help begin, and the sections they are in its page. What begins otherwise is a note.
const EXAMPLES_BEGIN: &str = "Examples:";
const EXIT_CODES_BEGIN: &str = "Exit codes:";

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The command whose page is printed; left out, that of the program.
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
    /// Write all pages into this folder, which is made, and print none.
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    into: Option<PathBuf>,
}

/// A page: the name by which `man` finds it, and its text in the language of man(7).
struct Page {
    name: String,
    text: String,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failed> {
    let broken = |e: io::Error| Exit::Internal.because(format!("a page cannot be made: {e}"));
    let pages = pages().map_err(broken)?;
    if let Some(folder) = &args.into {
        let wrong = |e: io::Error| Exit::Internal.because(format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(wrong)?;
        for page in &pages {
            std::fs::write(folder.join(format!("{}.{SECTION}", page.name)), &page.text).map_err(wrong)?;
        }
        return Ok(Exit::Done);
    }
    let words: Vec<&str> = [super::NAME].into_iter().chain(args.command.iter().map(String::as_str)).collect();
    let name = words.join("-");
    let unknown = || Exit::Misuse.because(format!("there is no command '{}'", args.command.join(" ")));
    write_out(&pages.iter().find(|page| page.name == name).ok_or_else(unknown)?.text)
}

/// The pages of the program and of every command in it that is no secret, those of a command after its own.
fn pages() -> io::Result<Vec<Page>> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Hands down what is the same everywhere, and gives every command its whole name.
    program.build();
    let mut pages = Vec::new();
    let mut commands = vec![program];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
        pages.push(page(command)?);
    }
    Ok(pages)
}

fn page(command: Command) -> io::Result<Page> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_string();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let has_commands = command.get_subcommands().any(|inner| !inner.is_hide_set());
    let man = Man::new(command).title(name.to_uppercase()).section(SECTION).manual("narrows");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if has_commands {
        man.render_subcommands_section(&mut text)?;
    }
    let mut text = String::from_utf8(text).map_err(io::Error::other)?;
    text += &closing(&help);
    Ok(Page { name, text })
}

/// The sections that the end of a command's help makes.
fn closing(help: &str) -> String {
    let blocks = || help.split("\n\n").map(str::trim_end).filter(|block| !block.is_empty());
    let notes = blocks().filter(|block| !block.starts_with(EXAMPLES_BEGIN) && !block.starts_with(EXIT_CODES_BEGIN));
    let mut text = String::new();
    for (number, note) in notes.enumerate() {
        text += if number == 0 { ".SH NOTES\n" } else { ".PP\n" };
        text += &roff(note);
    }
    for examples in blocks().filter_map(|block| block.strip_prefix(EXAMPLES_BEGIN)) {
        // As it stands, line by line.
        text += &format!(".SH EXAMPLES\n.nf\n{}.fi\n", roff(examples.trim_start_matches('\n')));
    }
    for codes in blocks().filter_map(|block| block.strip_prefix(EXIT_CODES_BEGIN)) {
        // One a line; in the help they stand in one sentence.
        let sentence = codes.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = sentence.trim_end_matches('.').split("; ").map(roff).collect();
        text += &format!(".SH \"EXIT STATUS\"\n{}", lines.join(".br\n"));
    }
    text
}

/// Text in which nothing is an order of roff's: backslashes, hyphens as they are typed, and no line that begins with a dot
/// or an apostrophe. Ends its last line.
fn roff(text: &str) -> String {
    let mut escaped = String::new();
    for line in text.lines() {
        if line.starts_with(['.', '\'']) {
            escaped += "\\&";
        }
        for letter in line.chars() {
            match letter {
                '\\' => escaped += "\\e",
                '-' => escaped += "\\-",
                letter => escaped.push(letter),
            }
        }
        escaped.push('\n');
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_help_becomes_sections_and_no_line_of_it_an_order() {
        let help =
            "Examples:\n  narrows x --y\n  narrows z\n\nA note.\n.so it goes on.\n\nAnother.\n\nExit codes: 0 done; 2 mis\nuse.";
        let expected = ".SH NOTES\nA note.\n\\&.so it goes on.\n.PP\nAnother.\n.SH EXAMPLES\n.nf\n  narrows x \\-\\-y\n  narrows z\n.fi\n\
                        .SH \"EXIT STATUS\"\n0 done\n.br\n2 mis use\n";
        assert_eq!(closing(help), expected);
        assert_eq!(closing(""), "");
        assert_eq!(roff("a\\b"), "a\\eb\n");
    }

    #[test]
    fn every_command_has_one_page() {
        let names: Vec<String> = pages().unwrap().into_iter().map(|page| page.name).collect();
        for name in ["narrows", "narrows-transcode", "narrows-tenant", "narrows-tenant-freeze", "narrows-man"] {
            assert_eq!(names.iter().filter(|known| *known == name).count(), 1, "{name}: {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("child") || name.ends_with("help")), "{names:?}");
    }
}
