//! What a refusal is about: the credentials, or the place. Services say it in words of their own, and the object layer
//! passes on what it does not know as it came.

use super::scrub;
use opendal::{Error, ErrorKind};

/// Azure's codes for requests whose credentials it could not even read; it has status 401 or 400 for them, not 403.
const UNREADABLE: [&str; 3] = ["NoAuthenticationInformation", "InvalidAuthenticationInfo", "AuthenticationFailed"];
/// What a token server says of a client that it will never serve (RFC 6749 5.2).
const NO_TOKEN: [&str; 4] = ["invalid_client", "invalid_grant", "unauthorized_client", "invalid_scope"];
/// Codes for a bucket or a container that is not there. Google has none; it has a sentence.
const NO_PLACE: [&str; 2] = ["ContainerNotFound", "NoSuchBucket"];
const NO_BUCKET: &str = "specified bucket does not exist";

/// Which settings of a store are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Who asks, or what he is allowed to do.
    Credentials,
    /// Bucket, endpoint, region, account.
    Place,
}

/// Whom an error blames, where it blames the configuration: trying again helps nobody then.
pub(super) fn of(error: &Error) -> Option<Blame> {
    let code = scrub::code(error.message());
    let is_one_of = |codes: &[&str]| code.as_deref().is_some_and(|code| codes.contains(&code));
    match error.kind() {
        ErrorKind::PermissionDenied => Some(Blame::Credentials),
        ErrorKind::ConfigInvalid => Some(Blame::Place),
        ErrorKind::NotFound if is_one_of(&NO_PLACE) || error.message().contains(NO_BUCKET) => Some(Blame::Place),
        ErrorKind::Unexpected if is_one_of(&UNREADABLE) || is_one_of(&["401"]) => Some(Blame::Credentials),
        ErrorKind::Unexpected => {
            // Signing asks the token server, whose answer is in what the error came from.
            let source = std::error::Error::source(error).map(scrub::chain)?;
            NO_TOKEN.iter().any(|code| source.contains(code)).then_some(Blame::Credentials)
        }
        _ => None,
    }
}

/// Did an upload in pieces vanish before its end? Nothing is wrong with the place then, and it is begun again.
pub(super) fn lost_upload(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound && scrub::code(error.message()).as_deref() == Some("NoSuchUpload")
}

/// The settings that say where a store of this service is.
pub(super) fn places(scheme: &str) -> &'static str {
    match scheme {
        "azblob" => "bucket, account and endpoint",
        "gcs" => "bucket and endpoint",
        _ => "bucket, endpoint and region",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_from_what_is_not_there_in_the_words_of_every_service() {
        let azure = r#"AzblobError { code: "ContainerNotFound", message: "The specified container does not exist." }"#;
        let blob = r#"AzblobError { code: "BlobNotFound", message: "The specified blob does not exist." }"#;
        let google =
            "GcsErrorResponse { error: GcsError { code: 404, message: \"The specified bucket does not exist.\", errors: [] } }";
        let object = "GcsErrorResponse { error: GcsError { code: 404, message: \"No such object: b/a\", errors: [] } }";
        let xml = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist.</Message></Error>";
        for (message, blamed) in
            [(azure, Some(Blame::Place)), (blob, None), (google, Some(Blame::Place)), (object, None), (xml, Some(Blame::Place))]
        {
            assert_eq!(of(&Error::new(ErrorKind::NotFound, message)), blamed, "{message}");
        }
        let gone = "<Error><Code>NoSuchUpload</Code><Message>The requested upload was not found.</Message></Error>";
        assert!(lost_upload(&Error::new(ErrorKind::NotFound, gone)) && !lost_upload(&Error::new(ErrorKind::NotFound, xml)));
    }

    #[test]
    fn credentials_that_will_never_do_are_told_from_a_service_that_is_not_well() {
        let google = "GcsErrorResponse { error: GcsError { code: 401, message: \"Invalid Credentials\", errors: [] } }";
        let azure = r#"AzblobError { code: "NoAuthenticationInformation", message: "Server failed to authenticate." }"#;
        for message in [google, azure] {
            assert_eq!(of(&Error::new(ErrorKind::Unexpected, message)), Some(Blame::Credentials), "{message}");
        }
        let token = |said: &str| {
            let source = std::io::Error::other(format!("exchange token failed: {said}"));
            of(&Error::new(ErrorKind::Unexpected, "signing http request").set_source(source))
        };
        assert_eq!(token(r#"{"error":"invalid_grant","error_description":"account not found"}"#), Some(Blame::Credentials));
        assert_eq!(token("the service is unavailable"), None);
        assert_eq!(of(&Error::new(ErrorKind::Unexpected, r#"AzblobError { code: "ServerBusy", message: "" }"#)), None);
    }
}
