# syntax=docker/dockerfile:1
# smartlink in a container: no shell, no package manager, no root.
#
#   docker build --tag smartlink .
#   docker run --rm --network host smartlink serve --demo
#
# The admin listener is on 127.0.0.1 inside the container, where nothing outside can reach it. To reach it, for metrics,
# probes and the embedded API, let it listen on every address and give it a token; /livez and /readyz need none:
#
#   docker run --publish 8080:8080 --publish 127.0.0.1:9180:9180 --volume smartlink:/data --stop-timeout 45 \
#     --env SMARTLINK_ADMIN=0.0.0.0:9180 --env SMARTLINK_ADMIN_TOKEN smartlink
#
# Two nodes with all that belongs to them: config/docker/compose.yaml. On Kubernetes: config/kubernetes.

FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
# Neither what was downloaded nor what was built for another version of the sources is in a layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin smartlink \
    && cp target/release/smartlink /smartlink \
    && mkdir /data

# glibc, libgcc and the root certificates, of the same Debian as above; nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /smartlink /usr/local/bin/smartlink
# The last good snapshot, the embedded API's database and key, and the key of click ids. Belongs to the user below, and so does a new volume.
COPY --from=build --chown=65532:65532 --chmod=700 /data /data
VOLUME /data
WORKDIR /data
ENV SMARTLINK_DATA_DIR=/data
# Named by number, so that an orchestrator can see that it is not root.
USER 65532:65532
# Clicks, admin.
EXPOSE 8080 9180
# Asks /readyz of the address in SMARTLINK_ADMIN, or in the file that SMARTLINK_CONFIG names: set one of them rather than --admin.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --start-interval=1s --retries=2 CMD ["smartlink", "health"]
# Drains: edge.goodbye_seconds (5) and then edge.drain_timeout_seconds (30); give the container longer than both.
STOPSIGNAL SIGTERM
ENTRYPOINT ["smartlink"]
CMD ["serve"]
