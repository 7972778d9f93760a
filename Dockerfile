# Images of scanner: targets scan (the default), train and api.
#
#   docker build .                                              scan on the CPU
#   docker build --build-arg VARIANT=gpu .                      scan on NVIDIA GPUs
#   docker build --target train --build-arg VARIANT=gpu .       training and export
#   docker build --target api .                                 the catalogue service
#
# deploy/image/build.py does the same with labels, tags and an SBOM; deploy/image/README.md says what is where.

# debian:trixie-slim of 2026-09, the index of all architectures.
ARG BASE=debian:trixie-slim@sha256:d7e12182ce18b85b93007c1dedf31f2d29e01ccf3182cc4017c709b6259bc132
ARG VARIANT=cpu

# What every image runs on. Debian's python3 (3.13) gets security updates with the base.
FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

# pip lives here alone: no image carries it.
FROM python AS pip
RUN apt-get update \
    && apt-get install --yes --no-install-recommends binutils python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
# One environment for all stages: what they copy from one another stays where its scripts expect it.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/scanner
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY deploy/image/prune.sh ./

FROM pip AS scan-packages
ARG VARIANT
COPY deploy/image/locks/scan-${VARIANT}.txt ./
RUN /opt/pip/bin/pip --python /opt/scanner/bin/python install --no-deps --only-binary :all: --require-hashes \
        --requirement scan-${VARIANT}.txt \
    && sh prune.sh /opt/scanner

FROM pip AS train-packages
ARG VARIANT
COPY deploy/image/locks/train-${VARIANT}.txt ./
RUN /opt/pip/bin/pip --python /opt/scanner/bin/python install --no-deps --only-binary :all: --require-hashes \
        --requirement train-${VARIANT}.txt \
    && sh prune.sh /opt/scanner

FROM pip AS api-packages
COPY deploy/image/locks/api.txt ./
RUN /opt/pip/bin/pip --python /opt/scanner/bin/python install --no-deps --only-binary :all: --require-hashes \
        --requirement api.txt \
    && sh prune.sh /opt/scanner

# scanner itself, without what it needs: a layer of its own, so that a release re-sends 10 MB and not the packages.
FROM pip AS scanner
COPY deploy/image/locks/build.txt ./
RUN /opt/pip/bin/pip install --no-deps --only-binary :all: --require-hashes --requirement build.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY models/ models/
COPY scanner/ scanner/
RUN /opt/pip/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir wheels . \
    && /opt/pip/bin/pip --python /opt/scanner/bin/python install --no-deps --no-index wheels/*.whl

FROM python AS runtime
RUN groupadd --gid 10001 scanner \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin scanner \
    && install --directory --owner 10001 --group 10001 /data /scratch
# The root is read-only in a cluster: caches go to /tmp, and nothing tries to write bytecode.
ENV PATH=/opt/scanner/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["tini", "--", "scanner"]
CMD ["--help"]
# deploy/image/build.py adds version, revision and time: as arguments they would throw away the cache of what follows.
ARG BASE
LABEL org.opencontainers.image.title="scanner" \
      org.opencontainers.image.description="Finds strong gravitational lenses in Euclid-like survey imaging" \
      org.opencontainers.image.vendor="The scanner developers" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.source="https://github.com/scanner-lenses/scanner" \
      org.opencontainers.image.base.name="${BASE}"

FROM runtime AS train
COPY --from=train-packages /opt/scanner /opt/scanner
COPY --from=scanner /opt/scanner /opt/scanner

FROM runtime AS api
COPY --from=api-packages /opt/scanner /opt/scanner
COPY --from=scanner /opt/scanner /opt/scanner

FROM runtime AS scan
COPY --from=scan-packages /opt/scanner /opt/scanner
COPY --from=scanner /opt/scanner /opt/scanner
