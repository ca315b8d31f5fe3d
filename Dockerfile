# kopiwatch: the sidecar, and the worker that it starts for each run.
#
#   docker build -t kopiwatch .
#
# Both bases are arguments. To pin them for good, name them by digest:
#   --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:… --build-arg KOPIA_IMAGE=kopia/kopia:0.23.1@sha256:…
# Any Debian-like base with python3 (3.11 or newer) and its venv module will do; KOPIA_IMAGE needs
# nothing but /bin/kopia. Only plain Dockerfile syntax, so that the classic builder works, too.

ARG PYTHON_IMAGE=python:3.13-slim
ARG KOPIA_IMAGE=kopia/kopia:0.23.1

FROM ${KOPIA_IMAGE} AS kopia

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --quiet "uv==0.13.9" "hatchling>=1.27,<2"
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
ARG VERSION=unreleased
ARG REVISION=unknown
LABEL org.opencontainers.image.title="kopiwatch" \
      org.opencontainers.image.description="Backs up Docker containers with Kopia because their labels say so." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=kopia /bin/kopia /usr/local/bin/kopia
COPY --from=build /opt/kopiwatch /opt/kopiwatch
# The worker runs by path, without the package: python3 -I -S /usr/local/lib/kopiwatch/worker.py
COPY kopiwatch/worker/program.py /usr/local/lib/kopiwatch/worker.py
RUN mkdir -m 0700 /var/lib/kopiwatch /var/cache/kopiwatch
ENV PATH=/opt/kopiwatch/bin:$PATH PYTHONUNBUFFERED=1
# The cache only. The state must come by a mount that somebody chose: an anonymous volume would
# vanish with the container, so without one kopiwatch refuses to run.
VOLUME /var/cache/kopiwatch
ENTRYPOINT ["kopiwatch"]
