# The image: docker build -t narrows .
#
# The program, FFmpeg's libraries of Debian 12, certificates, and no shell. Runs as user 65532 with a root file system that
# is read only; needs one writable folder, scratch.folder. image/rootfs makes the very same file system without Docker, and
# tests/image.rs runs the program in it.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# Packages, and the build, by the commands of anybody else.
RUN make build

FROM build AS root
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends ca-certificates >/dev/null \
 && image/rootfs target/release/narrows /image

FROM scratch
COPY --from=root /image/ /
USER 65532:65532
WORKDIR /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ENTRYPOINT ["/usr/bin/narrows"]
CMD ["--help"]
