//! Asks before something is gone for good.

use super::exit::{Exit, Failed};
use std::io::{BufRead, IsTerminal, Write};

/// Longest answer read, bytes.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Lets a person at a terminal type `word` to go on. Elsewhere nobody can be asked, and `--yes` has to say it.
///
/// # Errors
/// The answer is another one, or there is nobody to ask: nothing is to be done.
pub(super) fn confirm(what: &str, word: &str) -> Result<(), Failed> {
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Exit::Misuse.because(format!("this would delete {what}; nobody can be asked here, so say --yes")));
    }
    let asked = write!(stderr, "This deletes {what}, for good.\nType {word} to go on: ").and_then(|()| stderr.flush());
    asked.map_err(|e| Exit::Misuse.because(format!("stderr: {e}")))?;
    answered(&mut stdin.lock(), word)
}

fn answered(from: &mut dyn BufRead, word: &str) -> Result<(), Failed> {
    let mut answer = String::new();
    let read = std::io::Read::take(from, MAX_ANSWER_BYTES).read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == word => Ok(()),
        Ok(_) => Err(Exit::Misuse.because(format!("that was not {word}: nothing was deleted"))),
        Err(e) => Err(Exit::Misuse.because(format!("stdin: {e}; nothing was deleted"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_word_lets_it_go_on() {
        let of = |text: &str| answered(&mut text.as_bytes(), "talk-1").map_err(|e| e.exit);
        assert_eq!(of("talk-1\n"), Ok(()));
        assert_eq!(of("  talk-1  \n"), Ok(()));
        for other in ["", "\n", "yes\n", "talk-10\n", "talk\n-1\n"] {
            assert_eq!(of(other), Err(Exit::Misuse), "{other:?}");
        }
    }
}
