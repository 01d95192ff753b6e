//! Narrowband: what every chunk of a title costs and looks like, and from that the ladder and each chunk's quality.
//!
//! The way of a decision: probe points of each chunk ([`ChunkFacts`]) become curves of rate and loss ([`curve`]); a few
//! chunks are chosen for calibration at the final preset ([`stratify`], [`calibrate`]), which bends the curves for every
//! picture size ([`transfer`]); sizes compete for each quality ([`hull`]), rungs are placed on what wins ([`ladder`]), and within a
//! rung the chunks share its quality at one common slope ([`allocate`]). [`decide`] puts them together; [`repair`] chooses
//! what to encode once more when the top rung has been measured. [`grid`] places the segments on scene cuts.
//!
//! The same on every machine and for every order of the inputs: logarithms and powers come from `libm`, not from the
//! platform; what is summed over chunks is whole numbers; what is used as a setting is quantised.
//!
//! Words: *rate* is bits a second; *quality* V is the mean VMAF-NEG of the frames at display size; *loss* is
//! `100 ln(100 / V)`, near the top what is missing to 100, and without end towards V = 0; *shortfall* is 100 - V; CRF is
//! the encoder's own scale (more is worse). Sources: constant slope and its multiplier, H. Everett,
//! "Generalized Lagrange Multiplier Method" (Operations Research 11, 1963), Y. Shoham and A. Gersho, "Efficient bit
//! allocation for an arbitrary set of quantizers" (IEEE Trans. ASSP 36, 1988), and for chunks that are encoded apart
//! J. De Cock and A. Aaron, "Constant-slope rate allocation for distributed real-world encoding" (PCS 2018).

pub mod allocate;
pub mod calibrate;
pub mod curve;
pub mod decide;
pub mod facts;
pub mod grid;
pub mod hull;
pub mod ladder;
pub mod pilot;
pub mod preset;
pub mod prior;
pub mod repair;
pub mod rules;
pub mod standard;
pub mod steady;
pub mod stratify;
pub mod transfer;
pub mod work;

#[cfg(test)]
mod measured;

pub use decide::{Decision, decide};
pub use facts::{CalibrationPoint, ChunkFacts, ProbePoint, ScaledPoint, TitleFacts};
pub use rules::Rules;

/// The quality of an untouched picture, VMAF.
const BEST_VMAF: f64 = 100.0;

/// Loss of a quality: `100 ln(100 / V)`. A picture that is scaled and then coded loses the sum of both losses.
pub fn loss_of(vmaf: f64) -> f64 {
    BEST_VMAF * libm::log(BEST_VMAF / vmaf)
}

/// Quality of a loss.
pub fn quality_of(loss: f64) -> f64 {
    BEST_VMAF * libm::exp(-loss / BEST_VMAF)
}

/// `value` to so many decimals, for what people read and files keep.
fn rounded(value: f64, decimals: u32) -> f64 {
    let scale = (0..decimals).fold(1.0, |scale, _| scale * 10.0);
    (value * scale).round() / scale
}
