//! Encoders on a device: how one is opened on it, and how pictures come to it.
//!
//! NVENC and QSV take pictures from ordinary memory. VA-API takes them in the device's own alone, so each is copied there. What
//! fails here is the device's fault until its self-test says otherwise, and is refused for reason `Device`.
//!
//! No machine with a card that encodes was at hand when this was written: options are held against libavcodec's tables, routing
//! and quarantine are tried with a stand-in. On an H200, which has no encoder, NVIDIA's driver 580 loads in the jail, starts
//! CUDA, and refuses the session as it does outside; VA-API and QSV are tried with none.

use crate::job::Class;
use crate::media::error::{Result, allocated, c, check, refuse};
use crate::media::ffi;
use crate::media::frame::Frame;
use crate::sandbox::protocol::{Device, RefusalReason};

const DEVICE: RefusalReason = RefusalReason::Device;
/// Pictures in the device's memory: those that the encoder holds for reference, the one in work, and some to spare.
const POOL_FRAMES: i32 = 20;

/// A counted reference of libavutil's.
struct Reference(*mut ffi::AVBufferRef);

impl Reference {
    /// Another reference to the same, for who will drop it itself.
    fn another(&self) -> Result<*mut ffi::AVBufferRef> {
        // SAFETY: ours, and never null.
        allocated(unsafe { ffi::av_buffer_ref(self.0) }, "a reference to a device")
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: ours; it is counted down once.
        unsafe { ffi::av_buffer_unref(&mut self.0) };
    }
}

/// Where an encoder takes its pictures from the device's own memory: how they get there.
pub(crate) struct Hardware {
    frames: Reference,
}

impl Hardware {
    /// Ties an encoder that is not open yet to its device.
    ///
    /// # Errors
    /// Device: it is not there, or does not take such pictures.
    pub fn attach(device: &Device, encoder: &mut ffi::AVCodecContext) -> Result<Option<Self>> {
        if device.fails {
            return refuse(DEVICE, format!("{device}: was told to fail"));
        }
        if device.stand_in {
            return Ok(None);
        }
        match device.class {
            // NVENC is told its number as an option.
            Class::Cpu | Class::Nvenc => Ok(None),
            Class::Vaapi => Self::vaapi(&open(device)?, device, encoder).map(Some),
            Class::Qsv => {
                let vaapi = open(device)?;
                let mut qsv = std::ptr::null_mut();
                // SAFETY: the answer goes to a pointer of ours; the source lives on.
                let code = unsafe {
                    ffi::av_hwdevice_ctx_create_derived(&mut qsv, ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_QSV, vaapi.0, 0)
                };
                check(code, DEVICE, &device.to_string())?;
                encoder.hw_device_ctx = qsv;
                Ok(None)
            }
        }
    }

    fn vaapi(opened: &Reference, device: &Device, encoder: &mut ffi::AVCodecContext) -> Result<Self> {
        // SAFETY: the device is open.
        let frames = Reference(allocated(unsafe { ffi::av_hwframe_ctx_alloc(opened.0) }, "pictures on a device")?);
        // SAFETY: what was allocated is such a context, ours alone until it is initialised.
        unsafe {
            let context = &mut *(*frames.0).data.cast::<ffi::AVHWFramesContext>();
            context.format = ffi::AVPixelFormat::AV_PIX_FMT_VAAPI;
            context.sw_format = encoder.pix_fmt;
            context.width = encoder.width;
            context.height = encoder.height;
            context.initial_pool_size = POOL_FRAMES;
        }
        // SAFETY: it is filled in.
        check(unsafe { ffi::av_hwframe_ctx_init(frames.0) }, DEVICE, &format!("{device}: pictures in its memory"))?;
        encoder.pix_fmt = ffi::AVPixelFormat::AV_PIX_FMT_VAAPI;
        encoder.hw_frames_ctx = frames.another()?;
        Ok(Self { frames })
    }

    /// The picture, in the device's memory.
    ///
    /// # Errors
    /// Device: it has no room, or does not take it.
    pub fn upload(&self, frame: &Frame) -> Result<Frame> {
        let there = Frame::new()?;
        // SAFETY: both frames are ours, the pool is initialised, and what is copied from holds a picture.
        unsafe {
            check(ffi::av_hwframe_get_buffer(self.frames.0, there.0, 0), DEVICE, "a picture in the device's memory")?;
            check(ffi::av_hwframe_transfer_data(there.0, frame.0, 0), DEVICE, "a picture on its way to the device")?;
            check(ffi::av_frame_copy_props(there.0, frame.0), DEVICE, "a picture's times")?;
        }
        Ok(there)
    }
}

/// Opens a render node.
fn open(device: &Device) -> Result<Reference> {
    let (path, mut opened) = (c(&device.path), std::ptr::null_mut());
    // SAFETY: the name ends with a zero byte and outlives the call; the answer goes to a pointer of ours.
    let code = unsafe {
        let kind = ffi::AVHWDeviceType::AV_HWDEVICE_TYPE_VAAPI;
        ffi::av_hwdevice_ctx_create(&mut opened, kind, path.as_ptr(), std::ptr::null_mut(), 0)
    };
    check(code, DEVICE, &device.to_string())?;
    Ok(Reference(opened))
}

/// What an encoder must be told beside the plan's options: which device.
pub(crate) fn options(device: Option<&Device>) -> Option<(String, String)> {
    let device = device.filter(|device| device.class == Class::Nvenc && !device.stand_in)?;
    Some(("gpu".into(), device.path.clone()))
}
