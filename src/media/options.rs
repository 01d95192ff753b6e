//! An encoder's options, held against libavcodec's own tables. No device is needed, nothing is opened and no media is touched:
//! safe out of the jail.

use crate::media::error::{c, string};
use crate::media::ffi;
use crate::plan::device::Equivalent;
use std::ffi::CString;

/// Is an equivalent one that libavcodec can make something of?
///
/// # Errors
/// The field of the equivalent, and what is wrong with it.
pub fn check_equivalent(equivalent: &Equivalent) -> Result<(), (String, String)> {
    let encoder = &equivalent.encoder;
    let of = |name: &str, value: &str| check_option(encoder, name, value).map_err(|reason| (format!("options.{name}"), reason));
    if find(encoder).is_none() {
        return Err(("encoder".into(), format!("this libavcodec has no {encoder}")));
    }
    equivalent.options.iter().try_for_each(|(name, value)| of(name, value))?;
    check_option(encoder, &equivalent.quality, "23").map_err(|reason| ("quality".to_string(), reason))
}

/// Takes the encoder this option, with this value?
///
/// # Errors
/// There is no such encoder or option, or the value is none of its.
pub fn check_option(encoder: &str, name: &str, value: &str) -> Result<(), String> {
    let codec = find(encoder).ok_or_else(|| format!("this libavcodec has no {encoder}"))?;
    // SAFETY: the tables of libavcodec's encoders are static.
    let classes = unsafe { [(*codec).priv_class, ffi::avcodec_get_class()] };
    let found = classes.into_iter().filter(|class| !class.is_null()).find_map(|class| Table(class).option(name, None));
    let option = found.ok_or_else(|| format!("{encoder} has no option {name}"))?;
    option.takes(value).map_err(|reason| format!("'{value}' is none of {encoder}: {reason}"))
}

fn find(encoder: &str) -> Option<*const ffi::AVCodec> {
    let name = CString::new(encoder).ok()?;
    // SAFETY: the name ends with a zero byte and outlives the call.
    let codec = unsafe { ffi::avcodec_find_encoder_by_name(name.as_ptr()) };
    (!codec.is_null()).then_some(codec)
}

/// A class's table of options.
#[derive(Clone, Copy)]
struct Table(*const ffi::AVClass);

impl Table {
    /// The option of that name, or the named value of a unit.
    fn option(self, name: &str, unit: Option<*const libc::c_char>) -> Option<Entry<'static>> {
        let (name, mut class) = (c(name), self.0);
        let object = (&raw mut class).cast();
        let flags = if unit.is_some() { 0 } else { ffi::AV_OPT_FLAG_ENCODING_PARAM };
        // SAFETY: by the flag the object is a pointer to a class pointer, and that is what it is; the tables are static.
        let found = unsafe {
            let unit = unit.unwrap_or(std::ptr::null());
            ffi::av_opt_find(object, name.as_ptr(), unit, flags, ffi::AV_OPT_SEARCH_FAKE_OBJ).as_ref()
        }?;
        Some(Entry { table: self, option: found })
    }
}

/// One option of a table.
struct Entry<'t> {
    table: Table,
    option: &'t ffi::AVOption,
}

impl Entry<'_> {
    fn takes(&self, value: &str) -> Result<(), String> {
        use ffi::AVOptionType::{
            AV_OPT_TYPE_BOOL, AV_OPT_TYPE_DOUBLE, AV_OPT_TYPE_FLAGS, AV_OPT_TYPE_FLOAT, AV_OPT_TYPE_INT, AV_OPT_TYPE_INT64,
            AV_OPT_TYPE_STRING, AV_OPT_TYPE_UINT64,
        };
        let number = value.parse::<f64>().ok();
        match self.option.type_ {
            AV_OPT_TYPE_STRING => Ok(()),
            AV_OPT_TYPE_BOOL if ["true", "false", "auto"].contains(&value) => Ok(()),
            AV_OPT_TYPE_FLAGS => value.split(['+', '-']).filter(|word| !word.is_empty()).try_for_each(|word| self.named(word)),
            AV_OPT_TYPE_FLOAT | AV_OPT_TYPE_DOUBLE if number.is_some() => self.within(number.unwrap_or_default()),
            AV_OPT_TYPE_INT | AV_OPT_TYPE_INT64 | AV_OPT_TYPE_UINT64 | AV_OPT_TYPE_BOOL => match number {
                Some(number) if number.fract() == 0.0 => self.within(number),
                Some(_) => Err("it takes whole numbers".into()),
                None => self.named(value),
            },
            AV_OPT_TYPE_FLOAT | AV_OPT_TYPE_DOUBLE => self.named(value),
            // Ratios, sizes, colours: no encoder of ours is told one.
            _ => Err("options of this kind are not known here".into()),
        }
    }

    fn within(&self, number: f64) -> Result<(), String> {
        let (least, most) = (self.option.min, self.option.max);
        if (least..=most).contains(&number) { Ok(()) } else { Err(format!("it takes {least} to {most}")) }
    }

    /// Is it one of the option's named values? A number stands for itself.
    fn named(&self, word: &str) -> Result<(), String> {
        if word.parse::<u64>().is_ok() {
            return Ok(());
        }
        let unit = self.option.unit;
        // SAFETY: a static name, or null.
        let name = unsafe { string(self.option.name) };
        if !unit.is_null() && self.table.option(word, Some(unit)).is_some() {
            return Ok(());
        }
        Err(format!("{name} has no value of that name"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Class;
    use crate::plan::preset::{BUILT_IN, Preset};
    use std::collections::{BTreeMap, BTreeSet};

    fn equivalents() -> Vec<(String, Class, Equivalent)> {
        let presets = BUILT_IN.iter().map(|(name, _)| Preset::built_in(name, &BTreeMap::new()).unwrap());
        let of = |preset: Preset| {
            let name = preset.name.clone();
            preset.video.into_iter().flat_map(|rules| rules.equivalents).map(move |(class, e)| (name.clone(), class, e))
        };
        presets.flat_map(of).collect()
    }

    #[test]
    fn every_option_of_every_equivalent_is_one_that_its_encoder_has_and_takes() {
        let all = equivalents();
        let encoders: BTreeSet<&str> = all.iter().map(|(.., equivalent)| equivalent.encoder.as_str()).collect();
        let expected = ["h264_nvenc", "h264_qsv", "h264_vaapi", "hevc_nvenc", "hevc_qsv", "hevc_vaapi"];
        assert_eq!(encoders.into_iter().collect::<Vec<_>>(), expected);
        for (preset, class, equivalent) in all {
            // Whatever a preset could ask of it.
            for crf in [0.0, 23.0, 51.0] {
                let goal = serde_json::json!({ "crf": crf, "max_kbps": 6000 });
                let codec = Preset::built_in(&preset, &BTreeMap::new()).unwrap().video.unwrap().codec;
                let encoder = equivalent.encoder(codec, &serde_json::from_value(goal).unwrap());
                for (name, value) in &encoder.options {
                    check_option(&encoder.library, name, value).unwrap_or_else(|e| panic!("{preset}, {class}: {e}"));
                }
            }
            check_equivalent(&equivalent).unwrap_or_else(|(field, e)| panic!("{preset}, {class}: {field}: {e}"));
        }
    }

    #[test]
    fn an_option_that_is_none_and_a_value_out_of_range_are_found_without_a_device() {
        let wrong = |encoder: &str, name: &str, value: &str| check_option(encoder, name, value).unwrap_err();
        assert!(check_option("hevc_nvenc", "preset", "p7").is_ok());
        assert!(check_option("hevc_nvenc", "g", "250").is_ok(), "an option of every encoder");
        assert!(check_option("h264_vaapi", "sei", "identifier+timing").is_ok());
        assert!(wrong("hevc_nvenc", "preset", "p8").contains("no value of that name"));
        assert!(wrong("hevc_nvenc", "cq", "52").contains("0 to 51"));
        assert!(wrong("hevc_nvenc", "forced_keys", "1").contains("has no option"));
        assert!(wrong("h264_vaapi", "sei", "identifier+nonsense").contains("no value of that name"));
        assert!(wrong("hevc_vaapi", "qp", "2.5").contains("whole numbers"));
        assert!(wrong("hevc_cuda", "qp", "2").contains("has no hevc_cuda"));
    }
}
