//! The files of an HLS media playlist (RFC 8216), in sequence: its init segment, then its segments.

/// Names of files, relative to the playlist.
///
/// # Errors
/// Why it cannot be read as one stream of local files.
pub(in crate::cli) fn files(text: &str) -> Result<Vec<String>, String> {
    let mut lines = text.lines().map(str::trim);
    if lines.next() != Some("#EXTM3U") {
        return Err("is no playlist: it does not begin with #EXTM3U".into());
    }
    let (mut init, mut segments) = (None, Vec::new());
    for line in lines.filter(|line| !line.is_empty()) {
        match line.split_once(':').map_or((line, ""), |(tag, rest)| (tag, rest)) {
            ("#EXT-X-STREAM-INF", _) => {
                return Err("is a master playlist: name one of the media playlists that it lists".into());
            }
            ("#EXT-X-MAP", attributes) => {
                let uri = map_uri(attributes)?;
                if init.as_ref().is_some_and(|before| *before != uri) {
                    return Err("has more than one init segment".into());
                }
                init = Some(uri);
            }
            ("#EXT-X-BYTERANGE", _) => return Err("names parts of files, which are not joined here".into()),
            ("#EXT-X-KEY", attributes) if !attributes.starts_with("METHOD=NONE") => return Err("is of encrypted segments".into()),
            _ if line.starts_with('#') => {}
            _ => segments.push(local(line)?),
        }
    }
    if segments.is_empty() {
        return Err("names no segments".into());
    }
    Ok(init.into_iter().chain(segments).collect())
}

/// The URI of an EXT-X-MAP (RFC 8216 4.3.2.5).
fn map_uri(attributes: &str) -> Result<String, String> {
    if attributes.contains("BYTERANGE=") {
        return Err("names parts of files, which are not joined here".into());
    }
    let uri = attributes.split_once("URI=\"").and_then(|(_, rest)| rest.split_once('"'));
    local(uri.ok_or("has an EXT-X-MAP without a URI")?.0)
}

/// A file at or below the playlist's own folder.
fn local(uri: &str) -> Result<String, String> {
    let leads_out = uri.starts_with('/') || uri.contains("://") || uri.split('/').any(|part| part == "..");
    if leads_out || uri.contains(['%', '?']) {
        return Err(format!("names '{uri}', which is no plain file beside it"));
    }
    Ok(uri.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_init_segment_comes_first_and_the_segments_in_sequence() {
        let text = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-MAP:URI=\"init.0a.mp4\"\n#EXTINF:4.0,\n0.m4s\n\n\
            #EXTINF:2.0,\r\nmore/1.m4s\n#EXT-X-ENDLIST\n";
        assert_eq!(files(text).unwrap(), ["init.0a.mp4", "0.m4s", "more/1.m4s"]);
        assert_eq!(files("#EXTM3U\n#EXT-X-KEY:METHOD=NONE\n#EXTINF:4,\na.ts\n").unwrap(), ["a.ts"]);
    }

    #[test]
    fn what_cannot_be_joined_is_refused_with_the_reason() {
        let refused = |text: &str, word: &str| {
            let why = files(&format!("#EXTM3U\n{text}")).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        };
        refused("#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n", "master");
        refused("#EXT-X-MAP:URI=\"a.mp4\"\n0.m4s\n#EXT-X-MAP:URI=\"b.mp4\"\n1.m4s\n", "more than one init");
        refused("#EXT-X-MAP:BYTERANGE=\"9@0\",URI=\"a.mp4\"\n0.m4s\n", "parts of files");
        refused("#EXTINF:4,\n#EXT-X-BYTERANGE:9@0\na.ts\n", "parts of files");
        refused("#EXT-X-KEY:METHOD=AES-128,URI=\"k\"\na.ts\n", "encrypted");
        refused("#EXT-X-MAP:BANDWIDTH=1\na.ts\n", "without a URI");
        refused("#EXT-X-ENDLIST\n", "no segments");
        for outside in ["/etc/hostname", "../a.ts", "a/../../b.ts", "https://example.com/a.ts", "file:///a.ts", "a.ts?b", "a%2fb"]
        {
            refused(&format!("#EXTINF:4,\n{outside}\n"), outside);
        }
        assert!(files("a.ts\n").unwrap_err().contains("#EXTM3U"));
    }
}
