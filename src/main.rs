fn main() {
    println!("{}", ffmpeg_next::util::version());
}
