# The process that holds a pod's namespaces (tests/src/bin/pause.rs). The context is a directory with the program.
FROM scratch AS pause
COPY pause /pause
USER 65532:65532
ENTRYPOINT ["/pause"]
