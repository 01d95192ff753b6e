//! The inputs of a comparison: a file, or the files of a playlist end to end.

use super::playlist;
use crate::cli::exit::{Exit, Failed};
use crate::sandbox::{InputSource, RangeRead};
use crate::store::LocalFile;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest playlist that is read, bytes: a day of segments of a second has a tenth of it.
const MOST_PLAYLIST_BYTES: u64 = 64 * 1024 * 1024;

/// # Errors
/// Misuse: there is no such file, or it may not be read.
pub(super) fn file(path: &Path) -> Result<InputSource, Failed> {
    let file = LocalFile::open(path).map_err(|e| Exit::Misuse.because(format!("{}: {e}", path.display())))?;
    Ok(InputSource::File(file.file))
}

/// # Errors
/// Which of them cannot be opened, and why.
pub(in crate::cli) fn end_to_end(paths: Vec<PathBuf>) -> Result<InputSource, (PathBuf, io::Error)> {
    Ok(InputSource::Ranges(Arc::new(Joined::open(paths)?)))
}

/// # Errors
/// As [`file`], of every segment. Media: a playlist that is none, or of a kind that cannot be joined.
pub(super) fn file_or_playlist(path: &Path) -> Result<InputSource, Failed> {
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("m3u8")) {
        return file(path);
    }
    let name = path.display();
    let about = |e: io::Error| Exit::Misuse.because(format!("{name}: {e}"));
    let known = LocalFile::open(path).map_err(about)?;
    if known.bytes > MOST_PLAYLIST_BYTES {
        return Err(Exit::Media.because(format!("{name}: {} bytes are no playlist", known.bytes)));
    }
    let text = std::fs::read_to_string(path).map_err(about)?;
    let names = playlist::files(&text).map_err(|why| Exit::Media.because(format!("{name}: {why}")))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let joined = end_to_end(names.iter().map(|name| folder.join(name)).collect());
    joined.map_err(|(path, e)| Exit::Misuse.because(format!("{}: {e}", path.display())))
}

/// Files end to end. One is open at a time: a title has more segments than a process has descriptors.
struct Joined {
    pieces: Vec<Piece>,
    bytes: u64,
    /// The one that was read last.
    open: Arc<Mutex<Option<(usize, File)>>>,
}

struct Piece {
    path: PathBuf,
    start: u64,
    end: u64,
}

impl Joined {
    fn open(paths: Vec<PathBuf>) -> Result<Self, (PathBuf, io::Error)> {
        let (mut pieces, mut start) = (Vec::with_capacity(paths.len()), 0);
        for path in paths {
            let file = LocalFile::open(&path).map_err(|e| (path.clone(), e))?;
            let end = start + file.bytes;
            pieces.push(Piece { path, start, end });
            start = end;
        }
        Ok(Self { pieces, bytes: start, open: Arc::default() })
    }

    /// Reads from one piece into all of `buffer`.
    fn read_piece(open: &mut Option<(usize, File)>, n: usize, piece: &Piece, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let file = match open {
            Some((number, file)) if *number == n => file,
            other => &mut other.insert((n, File::open(&piece.path)?)).1,
        };
        file.read_exact_at(buffer, at - piece.start)
    }
}

#[async_trait::async_trait]
impl RangeRead for Joined {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        // Files of this machine, mostly in its memory: not worth a thread of their own.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut content = vec![0; bytes];
        let (mut filled, mut n) = (0, self.pieces.partition_point(|piece| piece.end <= offset));
        while filled < bytes {
            let at = offset + filled as u64;
            let Some(piece) = self.pieces.get(n) else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            let length = (bytes - filled).min((piece.end - at) as usize);
            let buffer = &mut content[filled..filled + length];
            let read = if length > 0 { Self::read_piece(&mut open, n, piece, at, buffer) } else { Ok(()) };
            read.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", piece.path.display())))?;
            (filled, n) = (filled + length, n + 1);
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn segments_are_read_as_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = ["a", "b", "c", "d"].iter().map(|name| folder.path().join(name)).collect();
        for (path, text) in paths.iter().zip(["init", "", "segment one", "two"]) {
            std::fs::write(path, text).unwrap();
        }
        let joined = Joined::open(paths.clone()).map_err(|(_, e)| e).unwrap();
        let whole = b"initsegment onetwo";
        assert_eq!(joined.bytes(), whole.len() as u64);
        for (from, length) in [(0, 18), (2, 5), (4, 11), (14, 4), (17, 1), (3, 0)] {
            assert_eq!(joined.read(from as u64, length).await.unwrap(), &whole[from..from + length], "{from}, {length}");
        }
        assert!(joined.read(10, 9).await.is_err(), "past the end");
        joined.read(0, 1).await.unwrap();
        std::fs::remove_file(&paths[3]).unwrap();
        let gone = joined.read(16, 1).await.unwrap_err().to_string();
        assert!(gone.contains(paths[3].to_str().unwrap()), "{gone}");
        assert_eq!(Joined::open(vec![folder.path().join("none")]).err().unwrap().0, folder.path().join("none"));
    }
}
