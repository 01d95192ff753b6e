//! Reads Rust source just well enough for rules: what is code, what is comment, which paths it names.

use std::collections::BTreeSet;

/// One text file of the project.
pub struct Source {
    /// Relative to the root, with `/`.
    pub path: String,
    pub text: String,
    /// The text with comments and the contents of literals blanked; same lines, same columns.
    pub code: String,
    /// The text with everything but comments blanked.
    pub comments: String,
    /// Only tests compile it: its `mod` stands under `#[cfg(test)]`.
    pub test_only: bool,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let (code, comments) = if path.ends_with(".rs") { split(text) } else { (String::new(), String::new()) };
        Self { path: path.into(), text: text.into(), code, comments, test_only: false }
    }

    /// A Rust file of the library or program, not of its tests.
    pub fn is_product(&self) -> bool {
        self.path.starts_with("src/") && self.is_rust() && !self.test_only
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The code without what only tests compile.
    pub fn product_code(&self) -> String {
        without_tests(&self.code)
    }
}

/// The files behind every `#[cfg(test)] mod name;`.
pub fn test_only_files(files: &[Source]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|f| f.is_rust()) {
        let folder = match file.path.rsplit_once('/') {
            Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder,
            _ => file.path.trim_end_matches(".rs"),
        };
        for item in file.code.split("#[cfg(test)]").skip(1) {
            let words = item.split_once(';').map_or("", |(head, _)| head).trim();
            let (visible, name) = words.rsplit_once("mod ").unwrap_or_default();
            let name = if visible.is_empty() || visible.starts_with("pub") { name.trim() } else { "" };
            if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                found.extend([format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")]);
            }
        }
    }
    // What belongs to a test is one, too.
    let folders: Vec<String> =
        found.iter().map(|file| file.trim_end_matches("mod.rs").trim_end_matches(".rs").to_string()).collect();
    let inner = files.iter().filter(|file| {
        folders
            .iter()
            .any(|folder| file.path.strip_prefix(folder.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/')))
    });
    found.extend(inner.map(|file| file.path.clone()));
    found
}

/// `(line from 1, text of the line)`.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line))
}

/// The line, counted from 1, in which a byte lies.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count() + 1
}

/// `word` stands in `line`, not as a part of a longer identifier.
pub fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| !part(line[..at].chars().next_back()) && !part(line[at + word.len()..].chars().next()))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Code and comments, each with the rest blanked.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let mut kinds = vec![Kind::Code; chars.len()];
    let mut i = 0;
    while i < chars.len() {
        let (kind, end) = token(&chars, i);
        kinds[i..end].fill(kind);
        i = end;
    }
    let keep = |want: Kind| {
        chars.iter().zip(&kinds).map(|(&c, &kind)| if kind == want || c == '\n' { c } else { ' ' }).collect::<String>()
    };
    (keep(Kind::Code), keep(Kind::Comment))
}

/// What begins at `i`, and where it ends.
fn token(chars: &[char], i: usize) -> (Kind, usize) {
    let at = |n: usize| chars.get(n).copied().unwrap_or('\0');
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    match at(i) {
        '/' if at(i + 1) == '/' => {
            let end = (i..chars.len()).find(|&n| chars[n] == '\n').unwrap_or(chars.len());
            (Kind::Comment, end)
        }
        '/' if at(i + 1) == '*' => (Kind::Comment, block_comment_end(chars, i)),
        'r' | 'b' | 'c' if i == 0 || !ident(at(i - 1)) => {
            let mut n = i + 1;
            if at(n) == 'r' {
                n += 1;
            }
            let hashes = (n..).take_while(|&n| at(n) == '#').count();
            if at(n + hashes) != '"' {
                return (Kind::Code, i + 1);
            }
            let raw = at(n - 1) == 'r';
            (Kind::Literal, if raw { raw_string_end(chars, n + hashes, hashes) } else { string_end(chars, n) })
        }
        '"' => (Kind::Literal, string_end(chars, i)),
        // A char literal, not a lifetime: 'x' or '\...'.
        '\'' if at(i + 1) == '\\' => {
            let end = (i + 3..chars.len()).find(|&n| chars[n] == '\'').map_or(chars.len(), |n| n + 1);
            (Kind::Literal, end)
        }
        '\'' if at(i + 2) == '\'' => (Kind::Literal, i + 3),
        _ => (Kind::Code, i + 1),
    }
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut i = start;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

fn raw_string_end(chars: &[char], quote: usize, hashes: usize) -> usize {
    let closes = |n: usize| chars[n] == '"' && chars[n + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
    (quote + 1..chars.len()).find(|&n| closes(n)).map_or(chars.len(), |n| n + 1 + hashes)
}

/// Blanks every item that `#[cfg(test)]` stands before.
pub fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = item_end(code.as_bytes(), start + "#[cfg(test)]".len());
        bytes[start..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
        from = end;
    }
    String::from_utf8(bytes).expect("whole items were blanked")
}

/// Where the item ends: at its first `;` outside brackets, or at the brace that closes its first one.
fn item_end(code: &[u8], from: usize) -> usize {
    let mut depth = 0;
    for (i, b) in code.iter().enumerate().skip(from) {
        match b {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(b, b'}' | b';') {
            return i + 1;
        }
    }
    code.len()
}

/// Every path of two or more elements that the code names, with its line; `use` trees are written out.
pub fn paths(code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let starts = is_ident(&tokens, i) && text(&tokens, i + 1) == "::";
        i = if starts { tree(&tokens, i, "", &mut found) } else { i + 1 };
    }
    found.into_iter().map(|(at, path)| (line_of(code, at), path)).collect()
}

type Token<'a> = (usize, &'a str);

fn text<'a>(tokens: &[Token<'a>], i: usize) -> &'a str {
    tokens.get(i).map_or("", |(_, text)| text)
}

fn is_ident(tokens: &[Token], i: usize) -> bool {
    text(tokens, i).starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads one path or `use` tree, and says which token comes after it.
fn tree(tokens: &[Token], start: usize, prefix: &str, found: &mut Vec<(usize, String)>) -> usize {
    let join = |prefix: &str, name: &str| if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") };
    let mut path = join(prefix, text(tokens, start));
    let mut i = start + 1;
    while text(tokens, i) == "::" {
        if is_ident(tokens, i + 1) || text(tokens, i + 1) == "*" {
            path = join(&path, text(tokens, i + 1));
            i += 2;
        } else if text(tokens, i + 1) == "{" {
            i += 2;
            while i < tokens.len() && text(tokens, i) != "}" {
                let skip = !is_ident(tokens, i) && text(tokens, i) != "*";
                i = if skip { i + 1 } else { tree(tokens, i, &path, found) };
            }
            return i + 1;
        } else {
            i += 1;
        }
    }
    found.push((tokens[start].0, path));
    if text(tokens, i) == "as" { i + 2 } else { i }
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(c) = rest.chars().next() {
        let at = code.len() - rest.len();
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let length = if word > 0 {
            word
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        if !c.is_whitespace() {
            tokens.push((at, &rest[..length]));
        }
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let source = Source::new(
            "src/x.rs",
            "let a = \"unsafe // no\"; // unsafe said\nlet b = 'u'; let c: &'a str = r#\"a \" unsafe\"#; /* x /* y */ z */ end();\nlet q = '\\''; b\"bytes\"; rest",
        );
        assert!(!has_word(&source.code, "unsafe"), "{}", source.code);
        assert!(source.comments.contains("unsafe said") && source.comments.contains('z'));
        assert!(source.code.contains("end();") && source.code.contains("&'a str") && source.code.contains("rest"));
        assert_eq!(source.code.lines().count(), 3);
    }

    #[test]
    fn use_trees_are_written_out() {
        let code =
            "use std::{fs, time::{Duration, Instant as Now}};\nuse crate::plan::*;\nlet x = crate::job::Job::<u8>::parse(y);";
        let found: Vec<_> = paths(code).into_iter().collect();
        let want = [
            (1, "std::fs"),
            (1, "std::time::Duration"),
            (1, "std::time::Instant"),
            (2, "crate::plan::*"),
            (3, "crate::job::Job"),
        ];
        for (line, path) in want {
            assert!(found.contains(&(line, path.to_string())), "{path} is not in {found:?}");
        }
    }

    #[test]
    fn what_only_tests_compile_is_left_out() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { c(); }\n}\n#[cfg(test)]\nuse d::e;\nfn f() {}";
        let left = without_tests(code);
        assert!(left.contains("fn a") && left.contains("fn f"));
        assert!(!left.contains("mod tests") && !left.contains("c()") && !left.contains("d::e"));
        assert_eq!(left.lines().count(), code.lines().count());
    }

    #[test]
    fn modules_that_only_tests_compile_are_known() {
        let files = [
            Source::new("src/broker/mod.rs", "#[cfg(test)]\nmod contract;\nmod memory;"),
            Source::new("src/plan/make.rs", "#[cfg(test)]\npub(super) mod tests;\n#[cfg(test)]\nmod inline { }"),
        ];
        let found = test_only_files(&files);
        assert!(found.contains("src/broker/contract.rs") && found.contains("src/plan/make/tests.rs"), "{found:?}");
        assert_eq!(found.len(), 4, "{found:?}");
    }
}
