//! What encoders did to five real shots of two seconds: the tests hold the model against it.
//!
//! x265 3.5 with one key frame, VMAF 0.6.1 NEG over every third frame, scaled bicubic.

use super::facts::{ChunkFacts, ProbePoint};

/// One encode: CRF, bits, VMAF-NEG.
type Encoded = (f64, u64, f64);

pub struct Shot {
    pub name: &'static str,
    pub frames: u64,
    pub duration_s: f64,
    /// Preset `veryfast` at 960x540, scored at that size, CRF 22, 27, 32, 37.
    pub probed: [Encoded; 4],
    /// Preset `fast` at 1920x1080, scored there, CRF 22, 27, 32; none for shots that are smaller.
    pub full: &'static [Encoded],
    /// Preset `fast` at 960x540, scored at 1920x1080.
    pub half: &'static [Encoded],
}

pub const SHOTS: [Shot; 5] = [
    Shot {
        name: "animation",
        frames: 49,
        duration_s: 1.96,
        probed: [(22.0, 1_855_432, 91.02), (27.0, 918_936, 86.95), (32.0, 452_464, 78.93), (37.0, 226_600, 65.88)],
        full: &[(22.0, 5_160_032, 90.99), (27.0, 2_502_888, 86.64), (32.0, 1_257_320, 80.05)],
        half: &[(22.0, 1_903_424, 83.20), (27.0, 947_072, 75.88), (32.0, 478_792, 63.62), (37.0, 245_304, 45.94)],
    },
    Shot {
        name: "drone",
        frames: 59,
        duration_s: 59.0 / 30.0,
        probed: [(22.0, 3_867_632, 91.85), (27.0, 1_994_456, 86.35), (32.0, 975_240, 76.99), (37.0, 467_680, 61.31)],
        full: &[(22.0, 12_217_032, 92.82), (27.0, 6_251_512, 87.71), (32.0, 3_173_856, 79.13)],
        half: &[(22.0, 3_931_072, 73.84), (27.0, 2_045_816, 65.99), (32.0, 1_026_568, 52.96), (37.0, 504_104, 35.90)],
    },
    Shot {
        name: "low-key",
        frames: 60,
        duration_s: 2.002,
        probed: [(22.0, 2_649_048, 95.02), (27.0, 1_411_992, 88.72), (32.0, 774_392, 78.62), (37.0, 424_352, 63.81)],
        full: &[(22.0, 7_075_328, 97.16), (27.0, 3_862_624, 92.00), (32.0, 2_110_496, 83.77)],
        half: &[(22.0, 2_710_488, 80.52), (27.0, 1_464_128, 72.52), (32.0, 809_392, 62.19), (37.0, 455_664, 49.01)],
    },
    Shot {
        name: "water",
        frames: 48,
        duration_s: 2.0,
        probed: [(22.0, 12_704_568, 88.08), (27.0, 6_665_432, 75.49), (32.0, 3_089_032, 56.44), (37.0, 1_220_520, 34.89)],
        full: &[],
        half: &[],
    },
    Shot {
        name: "close-up",
        frames: 60,
        duration_s: 2.002,
        probed: [(22.0, 3_146_480, 94.68), (27.0, 1_702_992, 88.74), (32.0, 920_592, 78.43), (37.0, 478_848, 62.98)],
        full: &[],
        half: &[],
    },
];

pub fn point(encoded: Encoded) -> ProbePoint {
    ProbePoint { crf: encoded.0, bits: encoded.1, vmaf_neg: encoded.2 }
}

impl Shot {
    /// The shot as a chunk that was probed at these of its four CRFs.
    pub fn chunk(&self, probes: &[usize]) -> ChunkFacts {
        ChunkFacts {
            frames: self.frames,
            duration_s: self.duration_s,
            starts_on_cut: true,
            probes: probes.iter().map(|n| point(self.probed[*n])).collect(),
            scaled: Vec::new(),
        }
    }
}
