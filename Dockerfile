# smartlink in a container: no shell, no package manager, no root.
#
#   docker build --tag smartlink .
#   docker run --rm --network host smartlink serve --demo
#
# The admin listener is on 127.0.0.1 inside the container, where nothing outside can reach it. To reach it, for metrics,
# probes and the embedded API, let it listen on every address and give it a token; /livez and /readyz need none:
#
#   docker run --publish 8080:8080 --publish 127.0.0.1:9180:9180 --volume smartlink:/data \
#     --env SMARTLINK_ADMIN=0.0.0.0:9180 --env SMARTLINK_ADMIN_TOKEN smartlink

FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --bin smartlink && mkdir /data

# glibc, libgcc and the root certificates, of the same Debian as above; nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/smartlink /usr/local/bin/smartlink
# The last good snapshot, the embedded API's database and key, and the key of click ids. Belongs to the user below, and so does a new volume.
COPY --from=build --chown=65532:65532 --chmod=700 /data /data
VOLUME /data
WORKDIR /data
ENV SMARTLINK_DATA_DIR=/data
# Named by number, so that an orchestrator can see that it is not root.
USER 65532:65532
# Clicks, admin.
EXPOSE 8080 9180
# Drains: edge.goodbye_seconds (5) and then edge.drain_timeout_seconds (30); give the container longer than both.
STOPSIGNAL SIGTERM
ENTRYPOINT ["smartlink"]
CMD ["serve"]
