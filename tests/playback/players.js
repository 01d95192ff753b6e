// The three players behind one face: load a manifest, list the tracks, pin a variant without emptying the buffer.
// Variants are numbered from the one with the highest bit rate.

/* global Hls, dashjs, shaka */

const KEEP_S = 36000; // Buffered behind: everything, so that a gap anywhere shows.

const descending = (list, key) => [...list].sort((a, b) => key(b) - key(a));

window.players = {
  "hls.js": (video, url, fail, { expected }) => {
    const hls = new Hls({
      maxBufferLength: expected.ahead_s,
      maxMaxBufferLength: expected.ahead_s,
      backBufferLength: KEEP_S,
      autoStartLoad: false,
    });
    hls.on(Hls.Events.ERROR, (_, data) => fail(`${data.type} ${data.details} ${data.error?.message ?? ""}`, data.fatal));
    const variants = () => descending(hls.levels, (level) => level.bitrate);
    return {
      load: (first) =>
        new Promise((done) => {
          hls.on(Hls.Events.MANIFEST_PARSED, () => {
            hls.loadLevel = hls.levels.indexOf(variants()[first]);
            hls.startLoad();
            done();
          });
          hls.loadSource(url);
          hls.attachMedia(video);
        }),
      pin: (n) => (hls.loadLevel = hls.levels.indexOf(variants()[n])),
      tracks: () => ({
        variants: variants().map((level) => ({ width: level.width, height: level.height })),
        audio: hls.audioTracks.map((track) => ({ label: track.name, language: track.lang })),
      }),
    };
  },

  "dash.js": (video, url, fail, { expected }) => {
    const player = dashjs.MediaPlayer().create();
    player.updateSettings({
      debug: { logLevel: dashjs.Debug.LOG_LEVEL_NONE },
      streaming: {
        buffer: {
          bufferToKeep: KEEP_S,
          bufferTimeDefault: expected.ahead_s,
          bufferTimeAtTopQuality: expected.ahead_s,
          bufferTimeAtTopQualityLongForm: expected.ahead_s,
          // Replacing what is buffered near the end can keep dash.js from ever signalling the end of the stream.
          fastSwitchEnabled: false,
        },
        abr: { autoSwitchBitrate: { video: false } },
        gaps: { jumpGaps: false },
      },
    });
    player.on(dashjs.MediaPlayer.events.ERROR, (e) => fail(`${e.error?.code} ${e.error?.message ?? e.error}`, true));
    const kind = () => (player.getTracksFor("video").length > 0 ? "video" : "audio");
    const variants = () => descending(player.getRepresentationsByType(kind()), (r) => r.bandwidth);
    const pin = (n) => player.setRepresentationForTypeById(kind(), variants()[n].id, false);
    return {
      load: (first) =>
        new Promise((done) => {
          player.on(dashjs.MediaPlayer.events.STREAM_INITIALIZED, () => {
            pin(first);
            done();
          });
          player.initialize(video, url, false);
        }),
      pin,
      tracks: () => ({
        variants: variants().map((r) => ({ width: r.width || 0, height: r.height || 0 })),
        audio: player.getTracksFor("audio").map((track) => ({ label: track.labels[0]?.text, language: track.lang })),
      }),
    };
  },

  shaka: (video, url, fail, { rate, expected }) => {
    shaka.polyfill.installAll();
    const player = new shaka.Player();
    player.addEventListener("error", ({ detail }) => fail(`${detail.code} ${detail.data?.join(" ")}`, detail.severity === 2));
    // Shaka multiplies its goal by the playback rate.
    player.configure({
      abr: { enabled: false },
      streaming: {
        bufferingGoal: expected.ahead_s / rate,
        bufferBehind: KEEP_S,
        evictionGoal: KEEP_S,
        gapDetectionThreshold: 0.001,
        stallEnabled: false,
      },
    });
    // A shaka variant is a pair of video and audio: those of the playing language, one for each video.
    const variants = () => {
      const active = player.getVariantTracks().find((t) => t.active);
      const same = player.getVariantTracks().filter((t) => t.language === active?.language && t.label === active?.label);
      const one = new Map();
      descending(same, (t) => t.bandwidth).forEach((t) => one.set(t.videoId ?? t.audioId, one.get(t.videoId ?? t.audioId) ?? t));
      return [...one.values()];
    };
    const pin = (n) => player.selectVariantTrack(variants()[n], false);
    return {
      load: async (first) => {
        await player.attach(video);
        await player.load(url);
        pin(first);
      },
      pin,
      tracks: () => ({
        variants: variants().map((t) => ({ width: t.width || 0, height: t.height || 0 })),
        audio: player.getAudioTracks().map((track) => ({ label: track.label, language: track.language })),
      }),
    };
  },
};
