use narrows::media::Host;
use std::os::unix::fs::FileExt;
struct L(std::fs::File, std::cell::Cell<u64>);
impl Host for L {
    fn read(&self, _i: u32, o: u64, b: &mut [u8]) -> std::io::Result<usize> { let n = self.0.read_at(b, o)?; self.1.set(self.1.get()+n as u64); Ok(n) }
    fn bytes(&self, _i: u32) -> u64 { self.0.metadata().unwrap().len() }
    fn progress(&self, _d: u64) {}
}
fn main() {
    let limits = narrows::sandbox::protocol::Limits { max_pixels: 50_000_000, max_streams: 64, max_duration_s: 90000, max_frames: 10_000_000, memory_bytes: 0, scratch_bytes: 0, cpu_s: 0 };
    for a in std::env::args().skip(1) {
        let h = L(std::fs::File::open(&a).unwrap(), Default::default());
        let t = std::time::Instant::now();
        match narrows::media::probe::probe(&h, &limits) {
            Ok(p) => { println!("{} OK {:?} read {}/{} {:.0} ms", a.rsplit('/').next().unwrap(), p.scan, h.1.get(), p.bytes, t.elapsed().as_secs_f64()*1e3);
              for v in &p.video { println!("   v{} {} {}x{} sar {:?} rot {} {} {}bit full={} {:?} {}/{}/{} rate {:?} const={} {:?} pk {} miss {:?} first {} last {} end {} long {} short {} {:?} keys {} md={:?} cll={:?}", v.index, v.codec, v.width, v.height, v.sample_aspect, v.rotation, v.pixel_format, v.bit_depth, v.colour.full_range, v.colour.dynamic_range, v.colour.primaries, v.colour.transfer, v.colour.matrix, v.frame_rate, v.constant_rate, v.interlace, v.packets, v.missing, v.first_pts, v.last_pts, v.end_pts, v.longest_frame, v.shortest_frame, v.clock, v.keyframes.len(), v.colour.mastering_display, v.colour.content_light); }
              for v in &p.audio { println!("   a{} {} {} {} first {:?} end {:?} {:?} {:?} def {}", v.index, v.codec, v.sample_rate, v.layout, v.first_pts, v.end_pts, v.language, v.title, v.default); }
              for i in &p.ignored { println!("   ignored {} {} {} {}", i.index, i.kind, i.codec, i.why); }
              for n in &p.notes { println!("   note {n}"); } }
            Err(e) => println!("{} ERR {:?} {}", a.rsplit('/').next().unwrap(), e.reason, e.message),
        }
    }
}
