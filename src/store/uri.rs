//! The URIs a job may name: what they point at, without asking anybody. Which store answers is
//! [`super::Stores`]'s decision.

use super::config::StoreKind;
use url::Url;

/// What a URI points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// An object or a prefix in a bucket; the path has no slash at either end.
    Bucket {
        kind: StoreKind,
        bucket: String,
        path: String,
    },
    /// An absolute path of this machine.
    File(String),
    Web(Url),
}

/// What `uri` points at; none for what is no URI of ours.
///
/// # Errors
/// Why a URI of ours cannot be used.
pub(super) fn parse(uri: &str) -> Result<Option<Target>, String> {
    if uri.starts_with('/') {
        return file(uri).map(Some);
    }
    let Some((scheme, rest)) = uri.split_once("://") else { return Ok(None) };
    let kind = match scheme {
        "s3" => StoreKind::S3,
        "gs" => StoreKind::Gcs,
        "az" => StoreKind::Azblob,
        "file" => {
            let path = Url::parse(uri).ok().and_then(|url| url.to_file_path().ok());
            let path = path.as_deref().and_then(std::path::Path::to_str);
            return file(path.ok_or("is no path of this machine; write file:///folder/name")?).map(Some);
        }
        "http" | "https" => return web(uri).map(Some),
        _ => return Ok(None),
    };
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.strip_suffix('/').unwrap_or(path);
    if bucket.is_empty() || bucket.contains('@') {
        return Err(format!("names no bucket; write {scheme}://bucket/path"));
    }
    elements(path).ok_or("its path has empty elements, '.' or '..'")?;
    Ok(Some(Target::Bucket { kind, bucket: bucket.into(), path: path.into() }))
}

fn file(path: &str) -> Result<Target, String> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    elements(inner.strip_suffix('/').unwrap_or(inner)).ok_or("its path has empty elements, '.' or '..'")?;
    Ok(Target::File(path.into()))
}

fn web(uri: &str) -> Result<Target, String> {
    let url = Url::parse(uri).map_err(|e| format!("is no URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or a password; they do not belong into a job".into());
    }
    if url.host().is_none() {
        return Err("names no host".into());
    }
    Ok(Target::Web(url))
}

/// The elements of a path; none when one is empty, `.`, `..`, or holds a NUL. The empty path has no elements.
pub(super) fn elements(path: &str) -> Option<Vec<&str>> {
    if path.is_empty() {
        return Some(Vec::new());
    }
    let plain = |e: &&str| !matches!(*e, "" | "." | "..") && !e.contains('\0');
    let elements: Vec<&str> = path.split('/').collect();
    elements.iter().all(plain).then_some(elements)
}

/// What is left of `path` below `root` (both without slashes at their ends), by whole elements.
pub(super) fn below<'p>(path: &'p str, root: &str) -> Option<&'p str> {
    if root.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(root)? {
        "" => Some(""),
        rest => rest.strip_prefix('/'),
    }
}

/// The beginning of the URLs of what lies in a store, with a slash at its end; none when `url` cannot be one.
pub(super) fn public_place(url: &str) -> Option<String> {
    let url = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    is_plain.then(|| format!("{}/", url.as_str().trim_end_matches('/')))
}

/// A path as a part of a URL. All is encoded but the slashes and what is the same everywhere (RFC 3986 2.3): some servers
/// read a `+` as a blank.
pub(super) fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// A URI that may be shown: without a query, which may be a signature, and without who asks.
pub(super) fn shown(uri: &str) -> String {
    let bare = uri.split(['?', '#']).next().unwrap_or(uri);
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => uri.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_points_at_one_thing() {
        let bucket = |kind, path: &str| Target::Bucket { kind, bucket: "b".into(), path: path.into() };
        assert_eq!(parse("s3://b/a/c d.mp4"), Ok(Some(bucket(StoreKind::S3, "a/c d.mp4"))));
        assert_eq!(parse("gs://b/out/"), Ok(Some(bucket(StoreKind::Gcs, "out"))));
        assert_eq!(parse("az://b"), Ok(Some(bucket(StoreKind::Azblob, ""))));
        assert_eq!(parse("/srv/a.mp4"), Ok(Some(Target::File("/srv/a.mp4".into()))));
        assert_eq!(parse("file:///srv/a%20b.mp4"), Ok(Some(Target::File("/srv/a b.mp4".into()))));
        assert!(matches!(parse("https://h/a.mp4?sig=x"), Ok(Some(Target::Web(_)))));
        for uri in ["talk.mp4", "out/", "ftp://h/a", "data:,x", "S3://b/a"] {
            assert_eq!(parse(uri), Ok(None), "{uri}");
        }
    }

    #[test]
    fn no_uri_leads_out_of_where_it_points() {
        for uri in [
            "s3://b/../c",
            "s3://b/a/./c",
            "s3://b//a",
            "s3:///a",
            "s3://key@b/a",
            "/srv/../etc/passwd",
            "/srv//a",
            "/",
            "file://host/a",
            "file:///srv/a%2f..%2f..%2fetc",
            "https://user:word@h/a",
            "http://",
        ] {
            let parsed = parse(uri);
            assert!(parsed.is_err() || parsed == Ok(Some(Target::File("/".into()))), "{uri}: {parsed:?}");
        }
    }

    #[test]
    fn below_goes_by_whole_elements() {
        assert_eq!(below("work/a", "work"), Some("a"));
        assert_eq!(below("work", "work"), Some(""));
        assert_eq!(below("workers/a", "work"), None);
        assert_eq!(below("a/b", ""), Some("a/b"));
    }

    #[test]
    fn a_path_in_a_url_is_read_back_as_it_was() {
        assert_eq!(encoded("a b/c+d%20/ü?#.m4s"), "a%20b/c%2Bd%2520/%C3%BC%3F%23.m4s");
        let url = Url::parse(&format!("https://cdn.example.com/{}", encoded("a b/ü?#%"))).unwrap();
        assert_eq!((url.path(), url.query(), url.fragment()), ("/a%20b/%C3%BC%3F%23%25", None, None));
        for (url, place) in
            [("https://cdn.example.com", "https://cdn.example.com/"), ("http://c:8080/m%20a//", "http://c:8080/m%20a/")]
        {
            assert_eq!(public_place(url).as_deref(), Some(place));
        }
    }

    #[test]
    fn a_shown_uri_holds_no_signature_and_no_name() {
        assert_eq!(shown("https://u:p@h:8443/a/b.mp4?X-Amz-Signature=abc#t"), "https://h:8443/a/b.mp4");
        assert_eq!(shown("s3://b/a"), "s3://b/a");
        assert_eq!(shown("/srv/what?.mp4"), "/srv/what?.mp4");
    }
}
