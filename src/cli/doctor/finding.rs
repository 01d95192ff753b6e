//! What one look found: fine, or what is wrong and the fix.

use serde::Serialize;

/// One line of the doctor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub check: String,
    pub ok: bool,
    /// What it is, or what is wrong with it.
    pub found: String,
    /// What to do; none where it is fine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), ok: true, found: found.into(), fix: None }
    }

    pub fn wrong(check: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check: check.into(), ok: false, found: found.into(), fix: Some(fix.into()) }
    }

    /// The line a person reads.
    pub fn line(&self) -> String {
        let verdict = if self.ok { "ok" } else { "wrong" };
        let fix = self.fix.as_ref().map_or(String::new(), |fix| format!("; fix: {fix}"));
        super::plain(&format!("{verdict:<5}  {}: {}{fix}", self.check, self.found)) + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_it_quotes() {
        assert_eq!(Finding::ok("jail", "full").line(), "ok     jail: full\n");
        let wrong = Finding::wrong("store media", "refused:\n<Error>", "let it list");
        assert_eq!(wrong.line(), "wrong  store media: refused: <Error>; fix: let it list\n");
    }
}
