//! One filter graph: a decoded frame in, one scaled frame per rung out.

use crate::media::error::{AGAIN, Result, allocated, c, check, refuse, words};
use crate::media::ffi;
use crate::media::frame::Frame;
use crate::plan::time::{Rational, rescale};
use crate::plan::{DeinterlaceMode, Enhance, Filters, Rung};
use crate::sandbox::protocol::RefusalReason;
use std::fmt::Write as _;

const INTERNAL: RefusalReason = RefusalReason::Internal;

/// What a graph was built for; a frame of another shape needs another graph.
#[derive(Clone, PartialEq, Debug)]
pub struct Shape {
    width: i32,
    height: i32,
    format: i32,
    sample_aspect: (i32, i32),
    full_range: bool,
}

impl Shape {
    /// The values of the samples go from 0 to the peak, not only from black to white.
    pub fn is_full_range(&self) -> bool {
        self.full_range
    }

    pub fn of(frame: &Frame) -> Self {
        let f = frame.get();
        let sar = f.sample_aspect_ratio;
        Self {
            width: f.width,
            height: f.height,
            format: f.format,
            sample_aspect: if sar.num > 0 && sar.den > 0 { (sar.num, sar.den) } else { (1, 1) },
            full_range: f.color_range == ffi::AVColorRange::AVCOL_RANGE_JPEG || is_jpeg_format(f.format),
        }
    }
}

/// What a frame is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub width: u32,
    pub height: u32,
    /// libavutil's name.
    pub pixel_format: &'static str,
    pub full_range: bool,
}

/// The `yuvj` formats mean full range by their name.
fn is_jpeg_format(format: i32) -> bool {
    // SAFETY: `format` of a decoded video frame is a pixel format of this library.
    unsafe { crate::media::error::string(ffi::av_get_pix_fmt_name(std::mem::transmute::<i32, ffi::AVPixelFormat>(format))) }
        .starts_with("yuvj")
}

/// An open graph.
pub struct Graph {
    graph: *mut ffi::AVFilterGraph,
    source: *mut ffi::AVFilterContext,
    sinks: Vec<*mut ffi::AVFilterContext>,
    shape: Shape,
    base: Rational,
}

impl Graph {
    /// Builds the graph for frames of that shape, whose times are in ticks of `base`.
    ///
    /// Of the rungs the last one may be `reference`: what the others are judged beside, which is not made to look better.
    ///
    /// # Errors
    /// Unsupported: the filters take no such frames.
    pub fn open(
        shape: &Shape,
        base: Rational,
        frame_rate: Rational,
        filters: &Filters,
        (rungs, reference): (&[Rung], bool),
    ) -> Result<Self> {
        Self::build(shape, base, frame_rate, rungs.len(), &description(filters, rungs, reference))
    }

    /// A graph that gives every frame back with libavfilter's word on its fields, read by [`Frame::fields_seen`].
    ///
    /// # Errors
    /// Unsupported: the filter takes no such frames.
    pub fn field_detector(shape: &Shape) -> Result<Self> {
        Self::build(shape, Rational::new(1, 1000), Rational::new(25, 1), 1, "[in]idet[out0]")
    }

    /// A graph that turns every frame by so many degrees clockwise and gives it as `target`, scaled by `scaler` (a name of
    /// libswscale's) where it has another size.
    ///
    /// # Errors
    /// Unsupported: the filters take no such frames.
    pub fn converter(shape: &Shape, rotation: u16, target: &Target, scaler: &str) -> Result<Self> {
        let turn = turning(rotation).map_or(String::new(), |filter| format!("{filter},"));
        let range = if target.full_range { "pc" } else { "tv" };
        let Target { width, height, pixel_format, .. } = target;
        let scale = format!("scale=w={width}:h={height}:flags={scaler}:out_range={range}");
        let description = format!("[in]{turn}{scale},format={pixel_format},setsar=1[out0]");
        Self::build(shape, Rational::new(1, 1000), Rational::new(25, 1), 1, &description)
    }

    /// A graph that turns every frame by so many degrees clockwise and gives it as JFIF 1.02 means a picture's values: full
    /// range, BT.601. `matrix`: how the frame's own are meant, as libswscale calls it.
    ///
    /// # Errors
    /// Unsupported: the filters take no such frames.
    pub fn for_jpeg(shape: &Shape, rotation: u16, (width, height): (u32, u32), matrix: &str) -> Result<Self> {
        let turn = turning(rotation).map_or(String::new(), |filter| format!("{filter},"));
        let colour = format!("in_color_matrix={matrix}:out_color_matrix=bt601:out_range=pc");
        let description = format!("[in]{turn}scale=w={width}:h={height}:flags=bicubic:{colour},format=yuvj420p,setsar=1[out0]");
        Self::build(shape, Rational::new(1, 1000), Rational::new(25, 1), 1, &description)
    }

    fn build(shape: &Shape, base: Rational, frame_rate: Rational, sinks: usize, description: &str) -> Result<Self> {
        // SAFETY: no arguments.
        let graph = allocated(unsafe { ffi::avfilter_graph_alloc() }, "a filter graph")?;
        let mut built = Self { graph, source: std::ptr::null_mut(), sinks: Vec::new(), shape: shape.clone(), base };
        // SAFETY: the graph is ours.
        unsafe { (*graph).nb_threads = 1 };
        built.add_ends(frame_rate, sinks)?;
        built.parse(description)?;
        // SAFETY: the graph is complete.
        let code = unsafe { ffi::avfilter_graph_config(graph, std::ptr::null_mut()) };
        check(code, RefusalReason::Unsupported, "the filters of this source")?;
        Ok(built)
    }

    fn add_ends(&mut self, frame_rate: Rational, sinks: usize) -> Result<()> {
        let s = &self.shape;
        let arguments = format!(
            "video_size={}x{}:pix_fmt={}:time_base={}/{}:pixel_aspect={}/{}:frame_rate={}/{}",
            s.width,
            s.height,
            s.format,
            self.base.num,
            self.base.den,
            s.sample_aspect.0,
            s.sample_aspect.1,
            frame_rate.num,
            frame_rate.den
        );
        self.source = self.add("buffer", "in", Some(&arguments))?;
        for i in 0..sinks {
            let sink = self.add("buffersink", &format!("out{i}"), None)?;
            self.sinks.push(sink);
        }
        Ok(())
    }

    fn add(&self, filter: &str, name: &str, arguments: Option<&str>) -> Result<*mut ffi::AVFilterContext> {
        let (kind, name, arguments) = (c(filter), c(name), arguments.map(c));
        let mut context = std::ptr::null_mut();
        // SAFETY: the strings outlive the call; the graph owns the new context.
        let code = unsafe {
            let arguments = arguments.as_ref().map_or(std::ptr::null(), |a| a.as_ptr());
            let filter = ffi::avfilter_get_by_name(kind.as_ptr());
            ffi::avfilter_graph_create_filter(&mut context, filter, name.as_ptr(), arguments, std::ptr::null_mut(), self.graph)
        };
        check(code, INTERNAL, "a filter")?;
        Ok(context)
    }

    fn parse(&self, description: &str) -> Result<()> {
        let text = c(description);
        // SAFETY: the in/out lists are allocated by libavfilter and freed by avfilter_graph_parse_ptr or below; names
        // are duplicated with av_strdup as it requires.
        let code = unsafe {
            let mut outputs = end(c"in".as_ptr(), self.source, std::ptr::null_mut())?;
            let mut inputs = std::ptr::null_mut();
            for (i, sink) in self.sinks.iter().enumerate().rev() {
                inputs = end(c(&format!("out{i}")).as_ptr(), *sink, inputs)?;
            }
            let code = ffi::avfilter_graph_parse_ptr(self.graph, text.as_ptr(), &mut inputs, &mut outputs, std::ptr::null_mut());
            ffi::avfilter_inout_free(&mut inputs);
            ffi::avfilter_inout_free(&mut outputs);
            code
        };
        check(code, INTERNAL, &format!("filters '{description}'"))?;
        Ok(())
    }

    pub fn fits(&self, shape: &Shape) -> bool {
        self.shape == *shape
    }

    /// Takes a reference to the frame; its `pts` is in ticks of the graph's base.
    ///
    /// # Errors
    /// Internal: the graph refuses it.
    pub fn push(&mut self, frame: &Frame) -> Result<()> {
        let keep = ffi::AV_BUFFERSRC_FLAG_KEEP_REF as i32;
        // SAFETY: both are ours.
        check(unsafe { ffi::av_buffersrc_add_frame_flags(self.source, frame.0, keep) }, INTERNAL, "filtering")?;
        Ok(())
    }

    /// No more frames come.
    ///
    /// # Errors
    /// Internal: the graph refuses.
    pub fn finish(&mut self) -> Result<()> {
        // SAFETY: a null frame means the end.
        check(unsafe { ffi::av_buffersrc_add_frame_flags(self.source, std::ptr::null_mut(), 0) }, INTERNAL, "filtering")?;
        Ok(())
    }

    /// The next frame for a rung, its time in ticks of the graph's base; `None` when there is none yet.
    ///
    /// # Errors
    /// Internal: a filter fails.
    pub fn pull(&mut self, rung: usize, frame: &mut Frame) -> Result<Option<i64>> {
        frame.unref();
        let sink = self.sinks[rung];
        // SAFETY: the sink belongs to the graph.
        match unsafe { ffi::av_buffersink_get_frame(sink, frame.0) } {
            0.. => {
                // SAFETY: as above.
                let base = crate::media::demux::rational(unsafe { ffi::av_buffersink_get_time_base(sink) });
                Ok(Some(rescale(frame.get().pts, base, self.base)))
            }
            AGAIN | ffi::AVERROR_EOF => Ok(None),
            code => refuse(INTERNAL, format!("filtering: {}", words(code))),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: ours; it frees its filters.
        unsafe { ffi::avfilter_graph_free(&mut self.graph) };
    }
}

/// One element of a list of open ends.
///
/// # Safety
/// `name` is a terminated string, `context` belongs to the graph, `next` is null or such an element.
unsafe fn end(
    name: *const libc::c_char,
    context: *mut ffi::AVFilterContext,
    next: *mut ffi::AVFilterInOut,
) -> Result<*mut ffi::AVFilterInOut> {
    // SAFETY: plain allocation, every field is set.
    unsafe {
        let list = allocated(ffi::avfilter_inout_alloc(), "a filter end")?;
        (*list).name = ffi::av_strdup(name);
        (*list).filter_ctx = context;
        (*list).pad_idx = 0;
        (*list).next = next;
        Ok(list)
    }
}

/// The graph in libavfilter's notation: what is done to every frame, then a tree of scalers.
fn description(filters: &Filters, rungs: &[Rung], reference: bool) -> String {
    let before = before_scaling(filters, rungs);
    let mut text = format!("[in]{}", if before.is_empty() { "null".to_string() } else { before.join(",") });
    let mut from_source: Vec<usize> = rungs.iter().enumerate().filter(|(_, r)| r.scale_from.is_none()).map(|(i, _)| i).collect();
    if let Some(enhance) = &filters.enhance {
        if reference && let Some(last) = from_source.pop_if(|i| *i + 1 == rungs.len()) {
            let _ = write!(text, ",split=2[s{last}][plain];[plain]{}", enhancing(enhance));
        } else {
            let _ = write!(text, ",{}", enhancing(enhance));
        }
    }
    let _ = write!(text, ",split={}", from_source.len());
    for i in from_source {
        let _ = write!(text, "[s{i}]");
    }
    for (i, rung) in rungs.iter().enumerate() {
        let below: Vec<usize> = rungs.iter().enumerate().filter(|(_, r)| r.scale_from == Some(i)).map(|(n, _)| n).collect();
        let _ = write!(text, ";[s{i}]{}", scaling(rung));
        if below.is_empty() {
            let _ = write!(text, "[out{i}]");
            continue;
        }
        let _ = write!(text, ",split={}[out{i}]", below.len() + 1);
        for n in below {
            let _ = write!(text, "[s{n}]");
        }
    }
    text
}

fn scaling(rung: &Rung) -> String {
    let range = if rung.full_range { "pc" } else { "tv" };
    format!(
        "scale=w={}:h={}:flags={}:out_range={range},format={},setsar={}/{}",
        rung.width, rung.height, rung.scaler, rung.pixel_format, rung.sample_aspect.num, rung.sample_aspect.den
    )
}

fn before_scaling(filters: &Filters, rungs: &[Rung]) -> Vec<String> {
    let mut chain = Vec::new();
    match filters.deinterlace {
        DeinterlaceMode::Off => {}
        DeinterlaceMode::Frame => chain.push("bwdif=mode=send_frame:parity=auto:deint=all".to_string()),
        DeinterlaceMode::Field => chain.push("bwdif=mode=send_field:parity=auto:deint=all".to_string()),
    }
    chain.extend(turning(filters.rotation).map(String::from));
    if filters.tone_map {
        // At the largest size: a pixel that no rung shows need not be mapped. ITU-R BT.2408: reference white 203 cd/m2.
        if let Some(top) = rungs.iter().rev().max_by_key(|rung| u64::from(rung.width) * u64::from(rung.height)) {
            chain.push(format!("scale=w={}:h={}:flags={}", top.width, top.height, top.scaler));
        }
        chain.push("zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,tonemap=tonemap=mobius:desat=2,zscale=t=bt709:m=bt709:r=tv,format=yuv420p".into());
    }
    chain
}

/// What makes a picture look better: noise out, then gradients smooth, then detail on top, so that none works on what the one
/// before left. Nothing looks at other pictures: chunks may begin anywhere.
fn enhancing(enhance: &Enhance) -> String {
    /// Strength of the denoiser for a noise of one step.
    const PER_STEP: f64 = 1.5;
    let mut chain = Vec::new();
    if enhance.denoise > 0.0 {
        let luma = enhance.denoise * PER_STEP;
        chain.push(format!("hqdn3d={luma:.2}:{:.2}:0:0", luma * 0.75));
    }
    if enhance.deband {
        chain.push("deband=1thr=0.012:2thr=0.012:3thr=0.012:range=16:direction=0:blur=1".to_string());
    }
    if enhance.sharpen > 0.0 {
        chain.push(format!("unsharp=5:5:{:.2}:5:5:0", enhance.sharpen));
    }
    if chain.is_empty() { "null".into() } else { chain.join(",") }
}

/// What turns a picture by so many degrees clockwise.
fn turning(rotation: u16) -> Option<&'static str> {
    match rotation {
        90 => Some("transpose=clock"),
        180 => Some("hflip,vflip"),
        270 => Some("transpose=cclock"),
        _ => None,
    }
}
