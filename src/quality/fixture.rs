//! Moving pictures made of arithmetic, the same on every machine, and what a coder might do to them.
//!
//! The reference figures of `tests.rs` belong to these pictures: change nothing here without making them anew.

use super::picture::{Format, Plane, Planes, Samples};

/// An owned picture.
pub struct Picture {
    planes: [Vec<u16>; 3],
    bytes: [Vec<u8>; 3],
    format: Format,
}

/// Chance without a state: the same for the same place.
fn hash(x: usize, y: usize, t: usize) -> usize {
    let mixed = |value: usize, factor: u32| (value as u32).wrapping_mul(factor);
    let mut h = mixed(x, 0x9E37_79B1) ^ mixed(y, 0x85EB_CA77) ^ mixed(t, 0xC2B2_AE3D);
    h ^= h >> 15;
    h = h.wrapping_mul(0x2C1B_3C6D);
    (h ^ (h >> 13)) as usize
}

/// A triangle wave between 0 and `height`.
fn wave(at: usize, period: usize, height: usize) -> usize {
    let phase = at % period;
    2 * height * phase.min(period - phase) / period
}

/// A scene of 8 bits: a flat corner, a slow gradient, a texture that moves to the left, a bright square that falls.
fn scene(plane: usize, (x, y): (usize, usize), (width, height): (usize, usize), t: usize) -> usize {
    if plane > 0 {
        return 100 + wave(x * 2 + y + 3 * t * plane, 90, 50) + hash(x, y, plane) % 4;
    }
    let side = height / 5;
    let (left, top) = (width / 2, (t * 3 + height / 8) % (height - side));
    if (left..left + side).contains(&x) && (top..top + side).contains(&y) {
        return 200 + hash(x, y - top, 7) % 24;
    }
    if x < width / 4 && y < height / 3 {
        return 60;
    }
    40 + wave(x, width, 60) + wave(x + 4 * t + y / 2, 24, 40) + hash(x + 2 * t, y, 0) % 16
}

/// What a coder might make of a sample: coarser steps in blocks that change from picture to picture, and a little noise.
fn coded(value: usize, (x, y): (usize, usize), t: usize) -> usize {
    let step = 1 << (3 + hash(x / 16, y / 16, t / 2) % 3);
    (value / step * step + step / 2 + hash(x, y, t + 100) % 3).min(255)
}

impl Picture {
    fn new(format: Format, sample: impl Fn(usize, (usize, usize)) -> u16) -> Self {
        let plane = |n: usize| {
            let (width, height) = format.plane(n);
            (0..width * height).map(|i| sample(n, (i % width, i / width))).collect::<Vec<u16>>()
        };
        let planes = [plane(0), plane(1), plane(2)];
        let bytes = planes.each_ref().map(|plane| plane.iter().map(|s| *s as u8).collect());
        Self { planes, bytes, format }
    }

    /// Picture `t` of the scene.
    pub fn reference(format: Format, t: usize) -> Self {
        Self::new(format, |n, at| deeper(format, scene(n, at, format.plane(n), t), at))
    }

    /// The same after coding.
    pub fn distorted(format: Format, t: usize) -> Self {
        Self::new(format, |n, at| deeper(format, coded(scene(n, at, format.plane(n), t), at, t), at))
    }

    /// One value everywhere.
    pub fn flat(format: Format, value: u16) -> Self {
        Self::new(format, |_, _| value)
    }

    pub fn lend(&self) -> Planes<'_> {
        let plane = |n: usize| Plane {
            samples: if self.format.bits == 8 { Samples::Bytes(&self.bytes[n]) } else { Samples::Words(&self.planes[n]) },
            stride: self.format.plane(n).0,
        };
        Planes([plane(0), plane(1), plane(2)])
    }
}

/// With two bits more where the format has them, which are not always zero.
fn deeper(format: Format, value: usize, (x, y): (usize, usize)) -> u16 {
    if format.bits == 8 { value as u16 } else { (value * 4 + (x + 2 * y) % 4) as u16 }
}
