//! Language tags: containers speak ISO 639-2, manifests speak RFC 5646, whose shortest code must be used.

/// ISO 639-2 (terminological and bibliographic) to ISO 639-1, for the languages that have both.
#[rustfmt::skip]
const SHORT: &[(&str, &str)] = &[
    ("afr", "af"), ("alb", "sq"), ("amh", "am"), ("ara", "ar"), ("arm", "hy"), ("aze", "az"), ("baq", "eu"), ("bel", "be"),
    ("ben", "bn"), ("bos", "bs"), ("bul", "bg"), ("bur", "my"), ("cat", "ca"), ("ces", "cs"), ("chi", "zh"), ("cym", "cy"),
    ("cze", "cs"), ("dan", "da"), ("deu", "de"), ("dut", "nl"), ("ell", "el"), ("eng", "en"), ("epo", "eo"), ("est", "et"),
    ("eus", "eu"), ("fas", "fa"), ("fin", "fi"), ("fra", "fr"), ("fre", "fr"), ("geo", "ka"), ("ger", "de"), ("gle", "ga"),
    ("glg", "gl"), ("gre", "el"), ("guj", "gu"), ("heb", "he"), ("hin", "hi"), ("hrv", "hr"), ("hun", "hu"), ("hye", "hy"),
    ("ice", "is"), ("ind", "id"), ("isl", "is"), ("ita", "it"), ("jpn", "ja"), ("kan", "kn"), ("kat", "ka"), ("kaz", "kk"),
    ("khm", "km"), ("kor", "ko"), ("lao", "lo"), ("lat", "la"), ("lav", "lv"), ("lit", "lt"), ("ltz", "lb"), ("mac", "mk"),
    ("mal", "ml"), ("mar", "mr"), ("may", "ms"), ("mkd", "mk"), ("mlt", "mt"), ("mon", "mn"), ("msa", "ms"), ("mya", "my"),
    ("nep", "ne"), ("nld", "nl"), ("nno", "nn"), ("nob", "nb"), ("nor", "no"), ("pan", "pa"), ("per", "fa"), ("pol", "pl"),
    ("por", "pt"), ("pus", "ps"), ("ron", "ro"), ("rum", "ro"), ("rus", "ru"), ("sin", "si"), ("slk", "sk"), ("slo", "sk"),
    ("slv", "sl"), ("som", "so"), ("spa", "es"), ("sqi", "sq"), ("srp", "sr"), ("swa", "sw"), ("swe", "sv"), ("tam", "ta"),
    ("tel", "te"), ("tgl", "tl"), ("tha", "th"), ("tur", "tr"), ("ukr", "uk"), ("urd", "ur"), ("uzb", "uz"), ("vie", "vi"),
    ("wel", "cy"), ("zho", "zh"), ("zul", "zu"),
];

/// The RFC 5646 tag of what a source calls its language: the two-letter code where there is one (RFC 5646 2.2.1), the code
/// as it stands otherwise. Nothing for an undetermined language or for what is no tag.
pub fn tag(source: Option<&str>) -> Option<String> {
    let source = source?.trim();
    let subtag = |s: &str| (1..=8).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric());
    let (primary, rest) = source.split_once('-').map_or((source, None), |(p, r)| (p, Some(r)));
    let primary = primary.to_ascii_lowercase();
    let well_formed = (2..=3).contains(&primary.len()) && primary.bytes().all(|b| b.is_ascii_lowercase());
    if !well_formed || primary == "und" || !rest.is_none_or(|r| r.split('-').all(subtag)) {
        return None;
    }
    let short = SHORT.iter().find(|(long, _)| *long == primary).map_or(primary.as_str(), |(_, short)| short);
    Some(rest.map_or_else(|| short.to_string(), |r| format!("{short}-{r}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_code_is_used_and_what_is_no_language_is_left_out() {
        let of = |text: &str| tag(Some(text));
        assert_eq!(of("ger").as_deref(), Some("de"));
        assert_eq!(of("DEU").as_deref(), Some("de"));
        assert_eq!(of("por-BR").as_deref(), Some("pt-BR"));
        assert_eq!(of("gsw").as_deref(), Some("gsw"));
        assert_eq!(of("en").as_deref(), Some("en"));
        for none in ["", "und", "English", "e\"n", "en-", "qaa-\n"] {
            assert_eq!(of(none), None, "{none:?}");
        }
        assert_eq!(tag(None), None);
    }

    #[test]
    fn the_table_is_sorted_so_that_a_code_stands_once() {
        assert!(SHORT.windows(2).all(|w| w[0].0 < w[1].0));
    }
}
