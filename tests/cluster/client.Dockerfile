# Tools for test pods. The context is the root directory that images.sh puts together.
FROM scratch AS client
COPY . /
ENV PATH=/usr/local/bin:/bin
USER 65532:65532
CMD ["sleep", "infinity"]
