//! Audio renditions in the groups a player chooses from.

use super::language;
use super::title::AudioTrack;
use std::collections::BTreeSet;

/// The renditions of one quality: one for each audio track of the source.
pub struct Group<'a> {
    pub id: &'a str,
    pub tracks: Vec<&'a AudioTrack>,
}

/// The groups of a title, the one with the highest bit rate first.
pub fn groups(audio: &[AudioTrack]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for track in audio {
        match groups.iter_mut().find(|g| g.id == track.rendition.group) {
            Some(group) => group.tracks.push(track),
            None => groups.push(Group { id: &track.rendition.group, tracks: vec![track] }),
        }
    }
    groups.sort_by_key(|g| std::cmp::Reverse(g.tracks.iter().map(|t| t.rendition.bit_rate).max()));
    groups
}

/// The group that goes with rung `rung` of `rungs`, counted from the largest: the ladder is divided evenly among the
/// groups, so that the top rung has the best audio and, where there is a choice, the bottom rung the smallest.
pub fn group_for<'a, 'b>(groups: &'b [Group<'a>], rung: usize, rungs: usize) -> Option<&'b Group<'a>> {
    groups.get(rung * groups.len() / rungs.max(1))
}

impl<'a> Group<'a> {
    /// Index of the one rendition that plays when nobody has chosen: the first that the source marks, or else the first.
    /// RFC 8216bis 4.4.6.1.1 allows one a group.
    pub fn default_index(&self) -> usize {
        self.tracks.iter().position(|t| t.rendition.default).unwrap_or(0)
    }

    /// The renditions, the default one first.
    pub fn default_first(&self) -> Vec<&'a AudioTrack> {
        let mut tracks = self.tracks.clone();
        tracks[..=self.default_index()].rotate_right(1);
        tracks
    }

    /// Which renditions a player may choose by itself: the default one, and one for each other language
    /// (RFC 8216bis 4.4.6.1.1: those with AUTOSELECT=YES should differ in language).
    pub fn autoselect(&self) -> Vec<bool> {
        let default = self.default_index();
        let tag = |i: usize| language::tag(self.tracks[i].rendition.language.as_deref());
        let mut taken = BTreeSet::from([tag(default)]);
        (0..self.tracks.len()).map(|i| i == default || taken.insert(tag(i))).collect()
    }

    pub fn average_bps(&self) -> u64 {
        self.tracks.iter().map(|t| t.track.average_bps).max().unwrap_or(0)
    }

    pub fn peak_bps(&self) -> u64 {
        self.tracks.iter().map(|t| t.track.peak_bps).max().unwrap_or(0)
    }

    /// RFC 6381 codecs of the renditions, each once.
    pub fn codecs(&self) -> Vec<&str> {
        self.tracks.iter().map(|t| t.track.codecs.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn the_ladder_is_divided_among_the_qualities() {
        let (_, title) = fixture::plan_and_title();
        let groups = groups(&title.audio);
        let of = |rungs: usize| (0..rungs).map(|i| group_for(&groups, i, rungs).unwrap().id).collect::<Vec<_>>();
        assert_eq!(of(1), ["aac-128k"]);
        assert_eq!(of(2), ["aac-128k", "aac-64k"]);
        assert_eq!(of(5), ["aac-128k", "aac-128k", "aac-128k", "aac-64k", "aac-64k"]);
        assert!(group_for(&[], 0, 3).is_none());
    }

    #[test]
    fn one_rendition_a_group_is_the_default_whatever_the_source_marks() {
        let (_, mut title) = fixture::plan_and_title();
        let defaults = |title: &Title| groups(&title.audio).iter().map(Group::default_index).collect::<Vec<_>>();
        use super::super::Title;
        title.audio.iter_mut().for_each(|a| a.rendition.default = false);
        assert_eq!(defaults(&title), [0, 0]);
        title.audio.iter_mut().for_each(|a| a.rendition.default = true);
        assert_eq!(defaults(&title), [0, 0]);
        title.audio[0].rendition.default = false;
        assert_eq!(defaults(&title), [1, 0]);
        let first = groups(&title.audio)[0].default_first()[0].track.name.clone();
        assert_eq!(first, "audio-1-128k");
    }

    #[test]
    fn a_player_chooses_by_itself_among_languages_only() {
        let (_, mut title) = fixture::plan_and_title();
        assert_eq!(groups(&title.audio)[0].autoselect(), [true, true]);
        title.audio[1].rendition.language = title.audio[0].rendition.language.clone();
        assert_eq!(groups(&title.audio)[0].autoselect(), [true, false]);
    }
}
