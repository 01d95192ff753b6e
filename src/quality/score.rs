//! What a measurement says: scores of frames, and one figure for many of them. Pure values.

use serde::{Deserialize, Serialize};

/// A model of VMAF. Plain VMAF is not among them: sharpening alone buys it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// VMAF 0.6.1 NEG: enhancement gains nothing. Luma only; 1080p from three heights away.
    Neg,
    /// VMAF 1.0.16, 1080p from three heights away. Looks at chroma and banding, too.
    V1,
}

impl Model {
    pub const ALL: [Model; 2] = [Model::Neg, Model::V1];

    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            Model::Neg => "neg",
            Model::V1 => "v1",
        }
    }

    /// As libvmaf knows it.
    pub fn version(self) -> &'static str {
        match self {
            Model::Neg => "vmaf_v0.6.1neg",
            Model::V1 => "vmaf_v1.0.16_3d0h",
        }
    }

    /// Shortest side of a picture, luma samples. On smaller ones libvmaf reads beyond its own buffers: NEG up to 32
    /// samples a side (the fourth wavelet level is empty there), V1 up to where its chroma features run out of blocks.
    pub fn shortest_side(self) -> u32 {
        match self {
            Model::Neg => 64,
            Model::V1 => 180,
        }
    }
}

/// The figures of many frames. All between 0 and 100 for VMAF.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pooled {
    pub mean: f64,
    /// Of score + 1, less 1, so that a frame of score 0 does not end it: as libvmaf pools.
    pub harmonic: f64,
    /// The 5th percentile: the frame below which a twentieth of the others is.
    pub p5: f64,
    pub min: f64,
}

/// Pools scores. `None` when there are none.
pub fn pool(scores: &[f64]) -> Option<Pooled> {
    if scores.is_empty() {
        return None;
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len() as f64;
    Some(Pooled {
        mean: sorted.iter().sum::<f64>() / count,
        harmonic: count / sorted.iter().map(|score| 1.0 / (score + 1.0)).sum::<f64>() - 1.0,
        p5: sorted[(sorted.len() - 1) / 20],
        min: sorted[0],
    })
}

/// The weighted squared error of one frame, for each plane (Y, Cb, Cr), as a share of the worst there can be: the mean over
/// the samples by the square of the peak. XPSNR is its logarithm; 0 where nothing differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameError(pub [f64; 3]);

impl FrameError {
    /// XPSNR of each plane, decibels. `None`: nothing differs, and it is infinite.
    pub fn decibels(&self) -> [Option<f64>; 3] {
        self.0.map(decibels)
    }
}

/// Pools errors: the mean error, not the mean of the decibels, so that one identical frame does not make all of it
/// infinite, nor hide a bad one. `None` when there are none.
pub fn pool_errors(errors: &[FrameError]) -> Option<FrameError> {
    let count = errors.len() as f64;
    let mean = |plane: usize| errors.iter().map(|e| e.0[plane]).sum::<f64>() / count;
    (!errors.is_empty()).then(|| FrameError([mean(0), mean(1), mean(2)]))
}

/// The XPSNR of many frames in one plane, decibels. `None` within: nothing differs, and it is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decibels {
    /// Of the mean error.
    pub mean: Option<f64>,
    /// The 5th percentile of the frames, and the worst.
    pub p5: Option<f64>,
    pub min: Option<f64>,
}

/// Pools one plane (0 is Y, 1 Cb, 2 Cr). `None` when there are no frames, or no such plane.
pub fn pool_decibels(errors: &[FrameError], plane: usize) -> Option<Decibels> {
    let mut sorted = errors.iter().map(|e| e.0.get(plane).copied()).collect::<Option<Vec<f64>>>()?;
    sorted.sort_by(|a, b| b.total_cmp(a));
    let worst = *sorted.first()?;
    Some(Decibels {
        mean: decibels(sorted.iter().sum::<f64>() / sorted.len() as f64),
        p5: decibels(sorted[(sorted.len() - 1) / 20]),
        min: decibels(worst),
    })
}

fn decibels(error: f64) -> Option<f64> {
    (error > 0.0).then(|| -10.0 * error.log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_pooled_as_the_field_pools_them() {
        let scores: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let pooled = pool(&scores).unwrap();
        assert_eq!((pooled.mean, pooled.p5, pooled.min), (50.0, 5.0, 0.0));
        let pooled = pool(&[99.0, 49.0]).unwrap();
        assert!((pooled.harmonic - (2.0 / (0.01 + 0.02) - 1.0)).abs() < 1e-9);
        assert_eq!(pool(&[70.5]), Some(Pooled { mean: 70.5, harmonic: 70.5, p5: 70.5, min: 70.5 }));
        assert_eq!(pool(&[]), None);
    }

    #[test]
    fn errors_are_pooled_before_they_become_decibels() {
        let frames = [FrameError([1e-3, 1e-4, 0.0]), FrameError([3e-3, 0.0, 0.0])];
        let [y, u, v] = pool_errors(&frames).unwrap().decibels();
        assert!((y.unwrap() - 26.9897).abs() < 1e-4, "{y:?}");
        assert!((u.unwrap() - 43.0103).abs() < 1e-4, "an identical frame counts as no error: {u:?}");
        assert_eq!(v, None, "identical frames alone are infinite");
        assert_eq!(pool_errors(&[]), None);
        let pooled = pool_decibels(&frames, 1).unwrap();
        assert!((pooled.mean.unwrap() - 43.0103).abs() < 1e-4 && (pooled.min.unwrap() - 40.0).abs() < 1e-9, "{pooled:?}");
        assert_eq!(pool_decibels(&frames, 2), Some(Decibels { mean: None, p5: None, min: None }));
        assert_eq!((pool_decibels(&frames, 3), pool_decibels(&[], 0)), (None, None));
    }
}
