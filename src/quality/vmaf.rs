//! VMAF: libvmaf behind an interface that cannot be misused.
//!
//! libvmaf trusts who calls it. What it needs is asked for here: pictures of one format, large enough for every feature of
//! every model, in sequence, none after the last, and every picture given back whatever happens.

use super::error::QualityError;
use super::picture::{Format, Planes, View};
use super::score::Model;
use std::ffi::{CString, c_int};
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};
use vmaf_head_sys as sys;

/// Pictures that libvmaf keeps beside those of its threads: the last two references (for motion), a pair that is being
/// filled, and one pair more that waits.
const POOLED_PICTURES: u32 = 6;
/// Threads of one measurement, at most: beyond, more of them only hold more memory.
pub const MOST_THREADS: u32 = 64;
/// libvmaf's detector of banding asks for one side of this length.
const V1_LONGER_SIDE: u32 = 216;
/// How long a picture may be for its width, or wide for its height: V1 looks for banding in a window that grows with both,
/// and reads beyond the picture where that is longer than the picture is high.
const LONGEST_ASPECT: u32 = 8;

/// libvmaf keeps in a variable of the process which vectors it may use, and its parts look at it when they see their first
/// picture. So what was once taken away stays so, for every later measurement of the process; held while one starts.
static VECTORS_TAKEN_AWAY: Mutex<Vectors> = Mutex::new(Vectors::Used);

/// May libvmaf use its code for AVX2 and AVX-512?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Vectors {
    Used,
    /// Six times as slow, and right where the vectors are not.
    Unused,
}

impl Vectors {
    /// libvmaf's vectorised wavelet takes what lies behind a row for its mirrored end, where the coefficients but the first
    /// fill the vectors exactly. By where that is, VMAF is up to 1.1 too low: 360, 424 and 336 samples are such widths, 1920,
    /// 1280, 854, 720 and 640 are none. In wide pictures the wrong coefficients are in the border that is left out anyway.
    fn for_width(width: u32) -> Self {
        /// From this width on, the border has room for all of them: 55 coefficients at the last of four levels.
        const WIDE: u32 = 55 * 16;
        /// From so many coefficients on, the border hides the last one of its own level.
        const HIDES_ITS_LAST: u32 = 25;
        /// Coefficients in a vector, at the first level (of any depth) and at the others.
        const STEPS: [u32; 4] = [16, 4, 4, 4];
        let mut coefficients = width;
        let wrong = STEPS.iter().enumerate().any(|(level, step)| {
            coefficients = coefficients.div_ceil(2);
            let is_hidden = level + 1 == STEPS.len() && coefficients >= HIDES_ITS_LAST;
            (coefficients - 1).is_multiple_of(*step) && !is_hidden
        });
        if wrong && width < WIDE { Vectors::Unused } else { Vectors::Used }
    }

    /// The features that libvmaf must not use, as it asks for them.
    fn mask(self) -> u64 {
        match self {
            Vectors::Used => 0,
            Vectors::Unused => u64::MAX,
        }
    }
}

/// The scores of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelScores {
    pub model: Model,
    /// Of every scored picture: the first, then every n-th.
    pub frames: Vec<f64>,
}

/// Scores pairs of pictures.
pub struct Vmaf {
    // In this order: the context refers to the models.
    context: Context,
    models: Vec<Loaded>,
    format: Format,
    /// Of the planes given, libvmaf gets so many: 1 where no model looks at chroma.
    planes: usize,
    /// One picture in so many is scored,
    every: u32,
    /// and of those that libvmaf is given, one in so many.
    given_every: u32,
    taken: u32,
    given: u32,
}

impl Vmaf {
    /// A measurement on the caller's thread alone. One picture in `every` is scored, from the first on; of the others the
    /// references must be given all the same, as motion is seen between neighbours.
    ///
    /// # Errors
    /// Unsuitable: the pictures are too small for a model, or none is asked for. Memory.
    pub fn new(models: &[Model], format: Format, every: u32) -> Result<Self, QualityError> {
        Self::with_threads(models, format, every, 1)
    }

    /// The same on so many threads; the scores are the same.
    ///
    /// # Errors
    /// As [`Vmaf::new`].
    pub fn with_threads(models: &[Model], format: Format, every: u32, threads: u32) -> Result<Self, QualityError> {
        check(models, &format, every)?;
        let threads = threads.clamp(1, MOST_THREADS);
        // With none, libvmaf works on the caller's.
        let workers = if threads == 1 { 0 } else { threads };
        let mut vectors = VECTORS_TAKEN_AWAY.lock().unwrap_or_else(PoisonError::into_inner);
        if Vectors::for_width(format.width) == Vectors::Unused {
            *vectors = Vectors::Unused;
        }
        // NEG's motion (libvmaf's `motion2`) is the lesser of that from the picture before and that to the one after: of what
        // lies between two scored pictures only their neighbours are seen.
        let given_every = if models == [Model::Neg] { every.min(3) } else { every };
        let context = Context::new(given_every, workers, vectors.mask())?;
        let loaded = models.iter().map(|model| Loaded::new(*model)).collect::<Result<Vec<_>, _>>()?;
        for model in &loaded {
            // SAFETY: both are open, and the model outlives the context.
            let code = unsafe { sys::vmaf_use_features_from_model(context.0, model.pointer) };
            checked(code, "taking a model's features")?;
        }
        let planes = if models.contains(&Model::V1) { 3 } else { 1 };
        context.preallocate(&format, planes, workers * 2 + POOLED_PICTURES)?;
        Ok(Self { context, models: loaded, format, planes, every, given_every, taken: 0, given: 0 })
    }

    /// Is the next pair scored? Where it is not, its distorted picture is not looked at.
    pub fn scores_next(&self) -> bool {
        self.taken.is_multiple_of(self.every)
    }

    /// Takes the next pair.
    ///
    /// # Errors
    /// Planes: they do not hold a picture of the format. Library, Memory: the measurement is spoilt, and drops.
    pub fn push(&mut self, reference: &Planes<'_>, distorted: &Planes<'_>) -> Result<(), QualityError> {
        let turn = self.taken % self.every;
        self.taken += 1;
        let is_beside_scored = turn <= 1 || turn + 1 == self.every;
        if self.given_every < self.every && !is_beside_scored {
            return Ok(());
        }
        let mut pair = [self.fill(reference)?, self.fill(distorted)?];
        let [reference, distorted] = &mut pair;
        // SAFETY: both pictures are from this context's pool; it takes them over, and blanks what it took.
        let code = unsafe { sys::vmaf_read_pictures(self.context.0, &mut reference.0, &mut distorted.0, self.given) };
        checked(code, "taking a pair of pictures")?;
        self.given += 1;
        Ok(())
    }

    /// The scores of all pairs.
    ///
    /// # Errors
    /// Empty: there were none. Library, Memory: a feature failed on the way.
    pub fn finish(self) -> Result<Vec<ModelScores>, QualityError> {
        if self.given == 0 {
            return Err(QualityError::Empty);
        }
        // SAFETY: null for both says that no more come; it is said once, as `self` is used up.
        let code = unsafe { sys::vmaf_read_pictures(self.context.0, std::ptr::null_mut(), std::ptr::null_mut(), 0) };
        checked(code, "finishing")?;
        self.models.iter().map(|model| self.scores(model)).collect()
    }

    fn scores(&self, model: &Loaded) -> Result<ModelScores, QualityError> {
        let mut frames = Vec::with_capacity((self.given / self.given_every) as usize + 1);
        for index in (0..self.given).step_by(self.given_every as usize) {
            let mut score = f64::NAN;
            // SAFETY: context and model are open, the features were taken from this model, and the place is ours.
            let code = unsafe { sys::vmaf_score_at_index(self.context.0, model.pointer, &mut score, index) };
            checked(code, "scoring a picture")?;
            if !score.is_finite() {
                return Err(QualityError::Library { doing: "scoring a picture: it gave no number", code });
            }
            frames.push(score);
        }
        Ok(ModelScores { model: model.model, frames })
    }

    /// A picture of the pool with these samples.
    fn fill(&self, planes: &Planes<'_>) -> Result<Pooled, QualityError> {
        if self.format.bits == 8 {
            let views = planes.bytes(&self.format)?;
            self.context.fetch()?.filled(&views[..self.planes])
        } else {
            let views = planes.words(&self.format)?;
            self.context.fetch()?.filled(&views[..self.planes])
        }
    }
}

fn check(models: &[Model], format: &Format, every: u32) -> Result<(), QualityError> {
    format.check()?;
    let unsuitable = |why: String| Err(QualityError::Unsuitable(why));
    if models.is_empty() || every == 0 {
        return unsuitable("no model, or no picture, is to be scored".into());
    }
    let (width, height) = (format.width, format.height);
    for model in models {
        let (name, least) = (model.name(), model.shortest_side());
        if width.min(height) < least {
            return unsuitable(format!("{width}x{height} is too small for VMAF {name}: both sides must have {least} samples"));
        }
    }
    let (longest, shortest) = (width.max(height), width.min(height));
    if models.contains(&Model::V1) && longest < V1_LONGER_SIDE {
        return unsuitable(format!("{width}x{height} is too small for VMAF v1: a side must have {V1_LONGER_SIDE} samples"));
    }
    if models.contains(&Model::V1) && longest > shortest * LONGEST_ASPECT {
        return unsuitable(format!("{width}x{height} is too long for VMAF v1: one side may be {LONGEST_ASPECT} times the other"));
    }
    Ok(())
}

/// libvmaf's answer: zero, or a negative errno.
fn checked(code: c_int, doing: &'static str) -> Result<(), QualityError> {
    match code {
        0 => Ok(()),
        code if code == -libc::ENOMEM => Err(QualityError::Memory),
        code => Err(QualityError::Library { doing, code }),
    }
}

/// An open VmafContext.
struct Context(*mut sys::VmafContext);

impl Context {
    fn new(every: u32, workers: u32, without: u64) -> Result<Self, QualityError> {
        let settings = sys::VmafConfiguration {
            log_level: sys::VmafLogLevel_VMAF_LOG_LEVEL_ERROR,
            n_threads: workers,
            n_subsample: every,
            cpumask: without,
            gpumask: 0,
        };
        let mut context = std::ptr::null_mut();
        // SAFETY: the place for the pointer is ours; whoever calls holds the lock of its variables.
        checked(unsafe { sys::vmaf_init(&mut context, settings) }, "starting")?;
        Ok(Self(context))
    }

    /// Makes the pictures that [`Context::fetch`] gives out.
    fn preallocate(&self, format: &Format, planes: usize, count: u32) -> Result<(), QualityError> {
        let pix_fmt =
            if planes == 1 { sys::VmafPixelFormat_VMAF_PIX_FMT_YUV400P } else { sys::VmafPixelFormat_VMAF_PIX_FMT_YUV420P };
        let pic_params = sys::VmafPictureConfiguration__bindgen_ty_1 {
            w: format.width,
            h: format.height,
            bpc: u32::from(format.bits),
            pix_fmt,
        };
        let wanted = sys::VmafPictureConfiguration { pic_params, pic_cnt: count };
        // SAFETY: the context is open, and has no pictures yet.
        checked(unsafe { sys::vmaf_preallocate_pictures(self.0, wanted) }, "making room for pictures")
    }

    /// A picture to fill. Waits where libvmaf's threads have all of them: that is how a fast decoder is held back.
    fn fetch(&self) -> Result<Pooled, QualityError> {
        let mut picture = MaybeUninit::zeroed();
        // SAFETY: the pool was made with the context, and a picture of it fills all of the place.
        let picture = unsafe {
            checked(sys::vmaf_fetch_preallocated_picture(self.0, picture.as_mut_ptr()), "fetching a picture")?;
            picture.assume_init()
        };
        Ok(Pooled(picture))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: ours, and used no more. It waits for its threads and for all pictures, which their owners gave back.
        unsafe { sys::vmaf_close(self.0) };
    }
}

/// A picture of the pool, or what is left when libvmaf took it.
struct Pooled(sys::VmafPicture);

impl Pooled {
    /// The picture with these samples. libvmaf's chroma planes of odd pictures are rounded down: a last column or row of
    /// chroma is left out, as by every program that uses it.
    fn filled<T: Copy>(self, planes: &[View<'_, T>]) -> Result<Self, QualityError> {
        for (n, plane) in planes.iter().enumerate() {
            let (width, height) = (self.0.w[n] as usize, self.0.h[n] as usize);
            let Ok(stride) = usize::try_from(self.0.stride[n]) else { return Err(QualityError::Planes) };
            if width > plane.width || height > plane.height || stride < width * size_of::<T>() {
                return Err(QualityError::Planes);
            }
            let data = self.0.data[n].cast::<u8>();
            for y in 0..height {
                let row = &plane.row(y)[..width];
                // SAFETY: libvmaf's plane has `height` rows of `stride` bytes, of which a row of ours needs no more; its
                // samples are as wide as ours, as the pool was made for the depth by which `T` was chosen.
                unsafe { std::ptr::copy_nonoverlapping(row.as_ptr().cast::<u8>(), data.add(y * stride), size_of_val(row)) };
            }
        }
        Ok(self)
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if !self.0.ref_.is_null() {
            // SAFETY: the picture is still ours: what libvmaf takes, it blanks.
            unsafe { sys::vmaf_picture_unref(&mut self.0) };
        }
    }
}

/// A model that is compiled in.
struct Loaded {
    model: Model,
    pointer: *mut sys::VmafModel,
}

impl Loaded {
    fn new(model: Model) -> Result<Self, QualityError> {
        let text = |text: &str| CString::new(text).expect("names of models hold no NUL");
        let (name, version) = (text(model.name()), text(model.version()));
        let mut settings = sys::VmafModelConfig { name: name.as_ptr(), flags: 0 };
        let mut pointer = std::ptr::null_mut();
        // SAFETY: the strings outlive the call, which copies them; the place for the pointer is ours.
        let code = unsafe { sys::vmaf_model_load(&mut pointer, &mut settings, version.as_ptr()) };
        checked(code, "loading a model")?;
        Ok(Self { model, pointer })
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: ours; the context that refers to it is closed before.
        unsafe { sys::vmaf_model_destroy(self.pointer) };
    }
}

/// Which libvmaf this is.
pub fn version() -> String {
    // SAFETY: a constant string of the library.
    unsafe { std::ffi::CStr::from_ptr(sys::vmaf_version()) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_are_used_where_they_are_right() {
        for right in [304, 320, 416, 426, 480, 540, 608, 640, 720, 848, 854, 960, 1080, 1280, 1920, 2160, 3840, 881, 1057] {
            assert!(Vectors::for_width(right) == Vectors::Used, "{right}");
        }
        for wrong in [305, 308, 321, 322, 324, 328, 329, 336, 360, 424, 65, 161] {
            assert!(Vectors::for_width(wrong) == Vectors::Unused, "{wrong}");
        }
        // Plans count on it.
        assert!((64..=3840).step_by(32).all(|width| Vectors::for_width(width) == Vectors::Used));
    }

    #[test]
    fn what_libvmaf_would_misread_is_refused_before_it_sees_it() {
        let refused = |model: &[Model], width: u32, height: u32, every: u32| {
            let made = Vmaf::new(model, Format { width, height, bits: 8 }, every);
            matches!(made, Err(QualityError::Unsuitable(_)))
        };
        let (neg, v1) = (&[Model::Neg][..], &[Model::V1][..]);
        assert!(refused(neg, 63, 64, 1) && refused(neg, 1920, 32, 1) && !refused(neg, 64, 64, 1));
        assert!(refused(v1, 179, 320, 1) && refused(v1, 320, 179, 1) && !refused(v1, 320, 180, 1));
        assert!(refused(v1, 215, 215, 1) && refused(v1, 3840, 216, 1) && refused(v1, 180, 1441, 1));
        assert!(refused(neg, 64, 64, 0) && refused(&[], 64, 64, 1));
    }
}
