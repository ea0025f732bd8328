# Redfleet's two images: `docker build --target server .` and `docker build --target operator .`
#
# Both are one static program in an empty root, as user 65532. The tests build the two final stages from the programs that
# are already there (tests/cluster/images.sh), in place of the stage `build`.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN set -e; target="$(rustc -vV | sed -n 's/^host: //p')"; \
    export RUSTFLAGS="-C target-feature=+crt-static"; \
    cargo build --locked --release --target "$target" -p redfleet-server; \
    cargo build --locked --profile small --target "$target" -p redfleet-operator; \
    mkdir /out; cp "target/$target/release/redfleet-server" "target/$target/small/redfleet-operator" /out/

FROM scratch AS server
COPY --from=build /out/redfleet-server /usr/local/bin/redfleet-server
ENV PATH=/usr/local/bin
USER 65532:65532
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["redfleet-server"]

FROM scratch AS operator
COPY --from=build /out/redfleet-operator /usr/local/bin/redfleet-operator
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["redfleet-operator"]
