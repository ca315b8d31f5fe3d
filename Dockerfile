# kopiwatch: the sidecar, and the worker that it starts for each run.
#
#   docker build -t kopiwatch --build-arg VERSION=… --build-arg REVISION=… .
#
# The bases are arguments. To pin them for good, name them by digest:
#   --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:… --build-arg KOPIA_IMAGE=kopia/kopia:0.23.1@sha256:…
# Any Debian-like base with python3 (3.11 or newer) will do; KOPIA_IMAGE needs nothing but
# /bin/kopia. BUILD_IMAGE may differ from PYTHON_IMAGE, but not in its Python; it also needs venv.
# Only plain Dockerfile syntax, so that the classic builder works, too.

ARG PYTHON_IMAGE=python:3.13-slim
ARG BUILD_IMAGE=${PYTHON_IMAGE}
ARG KOPIA_IMAGE=kopia/kopia:0.23.1

FROM ${KOPIA_IMAGE} AS kopia

FROM ${BUILD_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Everything that comes from outside is named with its hashes: the tools here, the rest in uv.lock.
COPY tools/image/requirements.txt /opt/requirements.txt
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --quiet --require-hashes --only-binary :all: -r /opt/requirements.txt
WORKDIR /src
# What kopiwatch needs changes seldom, kopiwatch itself often: two steps. pip compares every hash
# of uv.lock, and compiles what it installs.
COPY pyproject.toml uv.lock ./
RUN python3 -m venv --without-pip /opt/kopiwatch \
 && /opt/build/bin/uv export --quiet --frozen --no-dev --no-emit-project --output-file requirements.txt \
 && /opt/build/bin/pip --python /opt/kopiwatch/bin/python3 install --quiet \
      --no-deps --require-hashes --only-binary :all: -r requirements.txt
COPY README.md LICENSE CHANGELOG.md ./
COPY kopiwatch kopiwatch
RUN /opt/build/bin/python -m hatchling build --target wheel --directory /opt/dist \
 && /opt/build/bin/pip --python /opt/kopiwatch/bin/python3 install --quiet --no-index --no-deps /opt/dist/*.whl

FROM ${PYTHON_IMAGE}
# The base brings its own pip: nothing here installs anything.
RUN rm -rf /usr/local/bin/pip* /usr/local/bin/idle* /usr/local/bin/*-config \
      /usr/local/lib/python3.*/ensurepip /usr/local/lib/python3.*/site-packages/* \
      /usr/local/include /usr/local/lib/pkgconfig \
      /usr/lib/python3.*/ensurepip /usr/share/python-wheels /root/.cache
COPY --from=kopia /bin/kopia /usr/local/bin/kopia
COPY --from=build /opt/kopiwatch /opt/kopiwatch
# The worker runs by path, without the other packages, on a file system that cannot be written:
# python3 -I -S /usr/local/lib/kopiwatch/kopiwatch/worker
COPY kopiwatch/__init__.py /usr/local/lib/kopiwatch/kopiwatch/
COPY kopiwatch/worker /usr/local/lib/kopiwatch/kopiwatch/worker
RUN python3 -m compileall -q /usr/local/lib/kopiwatch && mkdir -m 0700 /var/lib/kopiwatch /var/cache/kopiwatch
ENV PATH=/opt/kopiwatch/bin:$PATH PYTHONUNBUFFERED=1
# The cache only. The state must come by a mount that somebody chose: an anonymous volume would
# vanish with the container, so without one kopiwatch refuses to run.
VOLUME /var/cache/kopiwatch
# /metrics, /healthz and /readyz.
EXPOSE 9187
STOPSIGNAL SIGTERM
# Asks the daemon in this container: 50 ms of one core, each time. Workers are started without it.
HEALTHCHECK --interval=1m --timeout=10s --start-period=60s --retries=3 \
  CMD ["kopiwatch", "healthcheck"]
ENTRYPOINT ["kopiwatch"]
CMD ["run"]
# Last, because they change with each build.
ARG PYTHON_IMAGE
ARG VERSION=unreleased
ARG REVISION=unknown
ENV KOPIWATCH_REVISION=${REVISION}
LABEL org.opencontainers.image.title="kopiwatch" \
      org.opencontainers.image.description="Backs up Docker containers with Kopia because their labels say so." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
