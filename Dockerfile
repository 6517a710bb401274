# An image with the program, TensorFlow's library and the bundled model, which answers questions on ports 8501 (HTTP) and
# 8500 (gRPC):
#
#   docker build -t tfbert .
#   docker run --rm -p 8501:8501 --read-only --tmpfs /tmp tfbert
#
# For a model of your own: -v /path/to/model:/models/model:ro tfbert serve --host 0.0.0.0 --model /models/model
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY . .
RUN CGO_ENABLED=1 go build -trimpath -o /out/bin/tfbert ./cmd/tfbert
ENV XDG_CACHE_HOME=/out/cache
RUN /out/bin/tfbert lib install
RUN /out/bin/tfbert export --graph fused testdata/models/minilm-squad /out/models/minilm-squad

FROM debian:bookworm-slim
COPY --from=build /out/bin/tfbert /usr/local/bin/tfbert
COPY --from=build /out/cache/tfbert/libtensorflow /opt/tfbert/tfbert/libtensorflow
COPY --from=build /out/models /models
ENV XDG_CACHE_HOME=/opt/tfbert
USER 65532:65532
EXPOSE 8501 8500
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=120s CMD ["tfbert", "health"]
ENTRYPOINT ["tfbert"]
CMD ["serve", "--host", "0.0.0.0", "--model", "/models/minilm-squad", "--log_format", "json"]
