//! What may be said of a failure: words of the service, never a signature, a token or a query.

use opendal::ErrorKind;

/// Longest text of a service that is passed on, characters.
const MAX_CHARS: usize = 300;
/// Words before a secret, in lower case; what follows up to the next delimiter is cut out.
const MARKERS: [&str; 13] = [
    "signature=",
    "x-amz-signature=",
    "x-amz-credential=",
    "x-amz-security-token=",
    "credential=",
    "signature provided",
    "sig=",
    "token=",
    "bearer ",
    "authorization:",
    "authorization\":",
    "accountkey=",
    "secret=",
];
/// What stands for something cut out.
const CUT: &str = "[cut]";

/// An error of the object layer, without the request and the response that it carries along.
pub(super) fn reason(error: &opendal::Error) -> String {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::RateLimited => "too many requests",
        ErrorKind::ConditionNotMatch => "changed while it was being read",
        ErrorKind::RangeNotSatisfied => "became shorter while it was being read",
        ErrorKind::ConfigInvalid => "wrong configuration",
        ErrorKind::NotFound => "not found",
        ErrorKind::Unexpected => "",
        other => other.into_static(),
    };
    let words = service_words(error.message()).unwrap_or_else(|| error.message().to_string());
    let mut parts = vec![kind.to_string(), clean(&words)];
    if let Some(source) = std::error::Error::source(error) {
        parts.push(chain(source));
    }
    parts.retain(|part| !part.is_empty());
    parts.dedup();
    if parts.is_empty() { "the store failed without a word".into() } else { parts.join(": ") }
}

/// An error and what it came from, cleaned.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !words.last().is_some_and(|last| last.contains(&text)) {
            words.push(text);
        }
        next = error.source();
    }
    clean(&words.join(": "))
}

/// Code and message of a service's error, as the object layer shows it or as it came.
fn service_words(message: &str) -> Option<String> {
    let (code, said) = (code(message)?, field(message, "message").or_else(|| element(message, "Message"))?);
    // Azure goes on with the number and the time of the request.
    let said = said.split(" RequestId:").next().unwrap_or_default();
    Some(if said.is_empty() { code } else { format!("{code}, {said}") })
}

/// The code in an error of a service: `S3Error { code: "NoSuchKey", message: "…", …`, the same of Azure, with a number of
/// Google's JSON, or `<Code>` in XML that the object layer did not read.
pub(super) fn code(message: &str) -> Option<String> {
    let number = || {
        let digits = message.split_once("code: ")?.1;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        (end > 0).then(|| digits[..end].to_string())
    };
    field(message, "code").map(str::to_string).or_else(number).or_else(|| element(message, "Code").map(str::to_string))
}

/// The text of a field in the object layer's way of showing an error.
fn field<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    let rest = message.split_once(&format!("{name}: \""))?.1;
    // The last field has no comma behind it.
    Some(rest.split_once("\",").or_else(|| rest.split_once("\" }")).map_or(rest, |(value, _)| value))
}

/// The text of an element of XML that has no others in it.
fn element<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    let rest = message.split_once(&format!("<{name}>"))?.1;
    Some(rest.split_once("</")?.0)
}

/// The text in one line, at most [`MAX_CHARS`] long, without what could let anybody in.
pub(super) fn clean(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = line.split(' ').map(without_query).collect::<Vec<_>>().join(" ");
    let mut words = without_marked(&words);
    if let Some((at, _)) = words.char_indices().nth(MAX_CHARS) {
        words.truncate(at);
        words.push('…');
    }
    words
}

/// A URL in a word loses its query and the user in it.
fn without_query(word: &str) -> String {
    let Some(at) = word.find("://") else { return word.to_string() };
    let start = word[..at].rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |n| n + 1);
    let end = word[at..].find(['"', '\'', '>', ')', ',']).map_or(word.len(), |n| at + n);
    format!("{}{}{}", &word[..start], super::uri::shown(&word[start..end]), &word[end..])
}

fn without_marked(text: &str) -> String {
    let (lower, mut out, mut at) = (text.to_ascii_lowercase(), String::new(), 0);
    while let Some((from, marker)) = MARKERS.iter().filter_map(|m| Some((at + lower[at..].find(m)?, *m))).min() {
        let value = from + marker.len();
        let skipped = text[value..].len() - text[value..].trim_start_matches([' ', '"']).len();
        let rest = &text[value + skipped..];
        let end = value + skipped + rest.find([' ', '&', '"', '\'', '<', '>', ',', ';', ')']).unwrap_or(rest.len());
        out.push_str(&text[at..value]);
        out.push_str(CUT);
        at = end;
    }
    out + &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use opendal::Error;

    #[test]
    fn the_words_of_a_service_come_through() {
        let message =
            r#"S3Error { code: "AccessDenied", message: "Forbidden: No such key: GK1", resource: "/b/", request_id: "" }"#;
        let error = Error::new(ErrorKind::PermissionDenied, message).with_context("uri", "http://h/b?x=hush");
        assert_eq!(reason(&error), "permission denied: AccessDenied, Forbidden: No such key: GK1");
        let azure =
            r#"AzblobError { code: "AuthenticationFailed", message: "Server failed to authenticate. RequestId:7 Time:now" }"#;
        let error = Error::new(ErrorKind::PermissionDenied, azure);
        assert_eq!(reason(&error), "permission denied: AuthenticationFailed, Server failed to authenticate.");
        let google = r#"GcsErrorResponse { error: GcsError { code: 403, message: "a@b lacks it", errors: [GcsErrorDetail { message: "again" }] } }"#;
        let error = Error::new(ErrorKind::PermissionDenied, google);
        assert_eq!(reason(&error), "permission denied: 403, a@b lacks it");
        let xml = "<Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>hush</Details></Error>";
        let error = Error::new(ErrorKind::PermissionDenied, xml);
        assert_eq!(reason(&error), "permission denied: AccessDenied, Access denied.");
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let error = Error::new(ErrorKind::Unexpected, "send http request").set_source(refused);
        assert_eq!(reason(&error), "send http request: connection refused");
    }

    #[test]
    fn nothing_that_lets_anybody_in_is_passed_on() {
        for text in [
            "GET https://user:hush@h/b/a?X-Amz-Signature=hush&X-Amz-Credential=hush failed",
            "url (\"http://h/a?sig=hush\")",
            "<StringToSign>…</StringToSign> Signature=hush, done",
            "Authorization: hush",
            "{\"authorization\": \"hush\"}",
            "Bearer hush",
            "AccountKey=hush;EndpointSuffix=core",
            "token=hush&a=b",
        ] {
            let said = clean(text);
            assert!(!said.contains("hush"), "{said}");
        }
        assert_eq!(clean("at https://h/b/a?X=1 now"), "at https://h/b/a now");
    }

    #[test]
    fn a_long_page_is_cut_and_stays_whole_characters() {
        let said = clean(&"ä\n".repeat(1000));
        assert_eq!(said.chars().count(), MAX_CHARS + 1);
    }
}
