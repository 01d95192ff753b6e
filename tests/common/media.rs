//! Sources for tests, made by the `ffmpeg` program from its own generators, kept by their recipe.
//!
//! The same recipe gives the same file: one thread, a fixed seed, no dates. A file is made once and then found under
//! `target/test-media`, named by the hash of the commands that made it.

#![allow(dead_code, reason = "every test binary uses another part of it")]

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the picture is compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    H264,
    H265,
    Mpeg2,
    Mpeg4,
    Vp9,
    Av1,
    Ffv1,
    Mjpeg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Mp4,
    /// Fragments, and no sample table.
    FragmentedMp4,
    Mkv,
    Webm,
    Ts,
    Avi,
}

impl Container {
    fn extension(self) -> &'static str {
        match self {
            Container::Mp4 | Container::FragmentedMp4 => "mp4",
            Container::Mkv => "mkv",
            Container::Webm => "webm",
            Container::Ts => "ts",
            Container::Avi => "avi",
        }
    }
}

/// When frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Frames a second, as a ratio.
    Constant(u32, u32),
    /// About 25 a second, no two gaps alike, in milliseconds.
    Variable,
}

impl Rate {
    /// The rate at which frames are drawn, for ffmpeg.
    fn text(self) -> String {
        match self {
            Rate::Constant(num, den) => format!("{num}/{den}"),
            Rate::Variable => "25/1".into(),
        }
    }

    fn per_second(self) -> f64 {
        match self {
            Rate::Constant(num, den) => f64::from(num) / f64::from(den),
            Rate::Variable => 25.0,
        }
    }
}

/// What is seen. All have noise on top, so that no two frames are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    Bars,
    Mandelbrot,
}

/// One audio stream: a tone of its own pitch.
#[derive(Clone, Copy, Debug)]
pub struct Audio {
    /// ffmpeg's name of the encoder.
    pub codec: &'static str,
    pub channels: u32,
    pub sample_rate: u32,
    /// ISO 639-2.
    pub language: &'static str,
}

/// A recipe.
#[derive(Clone, Debug)]
pub struct Clip {
    pub codec: Codec,
    pub container: Container,
    pub rate: Rate,
    pub picture: Picture,
    /// Frames drawn.
    pub frames: u32,
    pub width: u32,
    pub height: u32,
    /// ffmpeg's name.
    pub pixel_format: &'static str,
    /// Most frames from one keyframe to the next.
    pub gop: u32,
    /// Keyframes at changes of scene, too.
    pub scene_cuts: bool,
    pub b_frames: u32,
    pub b_pyramid: bool,
    /// Frames after a keyframe in decode order may lie before it in time, and need what came earlier.
    pub open_gop: bool,
    /// Two fields of different times in one frame, the top one first.
    pub interlaced: bool,
    /// Added to every timestamp by the muxer, seconds.
    pub offset_s: f64,
    /// Cut off the front by stream copy, seconds: in MP4 an edit list that starts between keyframes.
    pub cut_s: f64,
    /// Clockwise degrees written as a display matrix (MP4).
    pub rotation: u32,
    /// Sample aspect ratio.
    pub sample_aspect: (u32, u32),
    pub audio: Vec<Audio>,
    pub seed: u32,
}

impl Default for Clip {
    fn default() -> Self {
        Self {
            codec: Codec::H264,
            container: Container::Mp4,
            rate: Rate::Constant(25, 1),
            picture: Picture::Bars,
            frames: 150,
            width: 192,
            height: 108,
            pixel_format: "yuv420p",
            gop: 25,
            scene_cuts: false,
            b_frames: 2,
            b_pyramid: false,
            open_gop: false,
            interlaced: false,
            offset_s: 0.0,
            cut_s: 0.0,
            rotation: 0,
            sample_aspect: (1, 1),
            audio: Vec::new(),
            seed: 1,
        }
    }
}

impl Clip {
    /// The file, made now if it was not before.
    ///
    /// # Panics
    /// ffmpeg could not make it: the recipe is wrong, and the message holds ffmpeg's words.
    pub fn make(&self) -> PathBuf {
        let encode = self.encode_arguments();
        let rewrap = self.rewrap_arguments();
        let name = format!("{:x}", Sha256::digest(format!("{encode:?} {rewrap:?}")));
        let file = folder().join(format!("{}.{}", &name[..16], self.container.extension()));
        if file.exists() {
            return file;
        }
        // Tests run side by side: each makes its own file and renames it into place.
        let own =
            |step: &str| folder().join(format!("{}.{}.{step}.{}", &name[..16], std::process::id(), self.container.extension()));
        let made = own("encode");
        ffmpeg(&encode, &made);
        let made = rewrap.map_or(made.clone(), |arguments| {
            let copy = own("copy");
            let input = ["-ss".into(), self.cut_s.to_string(), "-i".into(), made.display().to_string()];
            ffmpeg(&[&input[..], &arguments].concat(), &copy);
            std::fs::remove_file(&made).unwrap();
            copy
        });
        std::fs::rename(&made, &file).unwrap();
        file
    }

    fn encode_arguments(&self) -> Vec<String> {
        let mut a = Arguments::default();
        let seconds = f64::from(self.frames) / self.rate.per_second();
        a.add(&["-f", "lavfi", "-i", &self.drawing()]);
        for (i, audio) in self.audio.iter().enumerate() {
            let tone = format!("sine=frequency={}:sample_rate={}:duration={seconds}", 330 + 110 * i, audio.sample_rate);
            a.add(&["-f", "lavfi", "-i", &tone]);
        }
        (0..=self.audio.len()).for_each(|i| a.add(&["-map", &i.to_string()]));
        a.add(&["-frames:v", &self.frames.to_string(), "-vf", &self.filters(), "-pix_fmt", self.pixel_format]);
        if self.rate == Rate::Variable {
            a.add(&["-fps_mode", "passthrough", "-enc_time_base", "1:1000"]);
        }
        self.add_codec(&mut a);
        for (i, audio) in self.audio.iter().enumerate() {
            a.add(&[&format!("-c:a:{i}"), audio.codec, &format!("-ac:a:{i}"), &audio.channels.to_string()]);
            a.add(&[&format!("-metadata:s:a:{i}"), &format!("language={}", audio.language), "-strict", "-2"]);
        }
        self.add_container(&mut a);
        a.0
    }

    /// The second step, a stream copy, where a recipe needs one.
    fn rewrap_arguments(&self) -> Option<Vec<String>> {
        if self.cut_s == 0.0 && self.rotation == 0 {
            return None;
        }
        let mut a = Arguments::default();
        a.add(&["-map", "0", "-c", "copy"]);
        if self.rotation != 0 {
            a.add(&["-metadata:s:v:0", &format!("rotate={}", self.rotation)]);
        }
        self.add_container(&mut a);
        Some(a.0)
    }

    fn drawing(&self) -> String {
        let generator = match self.picture {
            Picture::Bars => "testsrc2",
            Picture::Mandelbrot => "mandelbrot",
        };
        // Interlacing takes two pictures for each frame.
        let rate = if self.interlaced { format!("{}*2", self.rate.text()) } else { self.rate.text() };
        format!("{generator}=size={}x{}:rate={rate}", self.width, self.height)
    }

    fn filters(&self) -> String {
        let mut filters = vec![format!("noise=alls=16:allf=t+u:all_seed={}", self.seed)];
        if self.interlaced {
            filters.push("tinterlace=mode=interleave_top,fieldorder=tff".into());
        }
        if self.rate == Rate::Variable {
            filters.push(format!("settb=1/1000,setpts='N*40+mod(N*N*7+{},29)'", self.seed));
        }
        filters.push(format!("setsar={}/{}", self.sample_aspect.0, self.sample_aspect.1));
        filters.join(",")
    }

    fn add_codec(&self, a: &mut Arguments) {
        let on = u32::from;
        let (gop, b) = (self.gop, self.b_frames);
        let (pyramid, open, cuts) = (on(self.b_pyramid), on(self.open_gop), if self.scene_cuts { 40 } else { 0 });
        let (gop_text, b_text) = (gop.to_string(), b.to_string());
        match self.codec {
            Codec::H264 => {
                let params = format!(
                    "keyint={gop}:min-keyint=1:scenecut={cuts}:bframes={b}:b-adapt=0:b-pyramid={pyramid}:open-gop={open}"
                );
                let fields = if self.interlaced { ":tff=1" } else { "" };
                a.add(&["-c:v", "libx264", "-preset", "veryfast", "-crf", "30", "-x264-params", &(params + fields)]);
            }
            Codec::H265 => {
                let params = format!(
                    "keyint={gop}:min-keyint=1:scenecut={cuts}:bframes={b}:b-adapt=0:b-pyramid={pyramid}:open-gop={open}:\
                     pools=1:frame-threads=1:log-level=error"
                );
                a.add(&["-c:v", "libx265", "-preset", "ultrafast", "-crf", "30", "-x265-params", &params]);
            }
            Codec::Mpeg2 | Codec::Mpeg4 => {
                let name = if self.codec == Codec::Mpeg2 { "mpeg2video" } else { "mpeg4" };
                a.add(&["-c:v", name, "-q:v", "6", "-g", &gop_text, "-bf", &b_text]);
                let flags = [(!self.open_gop, "+cgop"), (self.interlaced, "+ildct+ilme")];
                let flags: String = flags.iter().filter(|(is, _)| *is).map(|(_, flag)| *flag).collect();
                if !flags.is_empty() {
                    a.add(&["-flags:v", &flags]);
                }
                // This encoder has no closed GOPs with scene cuts.
                if !(self.scene_cuts && self.open_gop) {
                    a.add(&["-sc_threshold", "1000000000"]);
                }
            }
            // Alternate references: frames that are decoded and never shown.
            Codec::Vp9 => a.add(&[
                "-c:v",
                "libvpx-vp9",
                "-deadline",
                "good",
                "-cpu-used",
                "5",
                "-b:v",
                "0",
                "-crf",
                "45",
                "-g",
                &gop_text,
                "-auto-alt-ref",
                "1",
                "-lag-in-frames",
                "16",
            ]),
            Codec::Av1 => a.add(&["-c:v", "libsvtav1", "-preset", "12", "-crf", "50", "-g", &gop_text, "-svtav1-params", "lp=1"]),
            Codec::Ffv1 => a.add(&["-c:v", "ffv1", "-g", "1"]),
            Codec::Mjpeg => a.add(&["-c:v", "mjpeg", "-q:v", "5"]),
        }
        a.add(&["-threads:v", "1"]);
    }

    fn add_container(&self, a: &mut Arguments) {
        match self.container {
            Container::FragmentedMp4 => a.add(&["-movflags", "frag_keyframe+empty_moov+default_base_moof"]),
            Container::Ts => a.add(&["-muxdelay", "0", "-muxpreload", "0"]),
            _ => {}
        }
        if self.offset_s != 0.0 {
            a.add(&["-output_ts_offset", &self.offset_s.to_string()]);
        }
    }
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(|w| (*w).to_string()));
    }
}

fn ffmpeg(arguments: &[String], file: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-filter_threads", "1"]);
    command.args(arguments).args(["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact"]).arg(file);
    let output = command.output().expect("the ffmpeg program is installed (make setup)");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// `target/test-media`.
fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-media");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A clip kept in `tests/media`.
pub fn kept(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/media").join(name);
    assert!(file.exists(), "{} is not in tests/media", file.display());
    file
}
