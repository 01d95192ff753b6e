// A static server on a free loopback port: the page, the three players, and the output folder under /out/.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, extname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const inPackage = (name, file) => join(HERE, "node_modules", name, file);

const FILES = {
  "/page.html": join(HERE, "page.html"),
  "/page.js": join(HERE, "page.js"),
  "/players.js": join(HERE, "players.js"),
  "/hls.js": inPackage("hls.js", "dist/hls.min.js"),
  "/shaka.js": inPackage("shaka-player", "dist/shaka-player.compiled.js"),
  "/dash.js": inPackage("dashjs", "dist/modern/umd/dash.all.min.js"),
};

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".m3u8": "application/vnd.apple.mpegurl",
  ".mpd": "application/dash+xml",
  ".mp4": "video/mp4",
  ".m4s": "video/iso.segment",
};

/** The file behind a request path; nothing for what is not served. */
function fileFor(folder, path) {
  if (FILES[path]) return FILES[path];
  if (!path.startsWith("/out/")) return undefined;
  const file = join(folder, path.slice("/out/".length));
  return file.startsWith(folder + sep) ? file : undefined;
}

/** Serves until closed, and logs what was asked for under /out/. */
export async function serve(folder) {
  let log = [];
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const file = fileFor(folder, path);
    const found = file && (await stat(file).catch(() => undefined));
    const status = found?.isFile() ? 200 : 404;
    if (path.startsWith("/out/")) log.push({ path: path.slice("/out/".length), status });
    if (status === 404) return response.writeHead(404).end();
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": type, "content-length": found.size, "cache-control": "no-store" });
    createReadStream(file).on("error", () => response.destroy()).pipe(response);
  });
  await new Promise((done, failed) => server.once("error", failed).listen(0, "127.0.0.1", done));
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    startLog: () => (log = []),
    /** Segments served for each rendition, and every request that found nothing. */
    log: () => {
      const segments = {};
      for (const { path } of log.filter((r) => r.path.endsWith(".m4s"))) {
        segments[dirname(path)] = (segments[dirname(path)] ?? 0) + 1;
      }
      return { segments, missing: log.filter((r) => r.status !== 200).map((r) => r.path) };
    },
    close: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}
