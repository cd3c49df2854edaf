FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --system --create-home --home-dir /var/lib/logpost logpost

# The libraries first: they change seldom, and a layer is kept as long as what it copies.
WORKDIR /build
COPY requirements.txt ./
RUN sed '/^# Tests and checks/,/^# The build backend/d' requirements.txt > server.txt \
    && pip install --no-cache-dir --disable-pip-version-check -r server.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY migrations migrations
RUN pip install --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation . && rm -rf /build

USER logpost
WORKDIR /var/lib/logpost
ENV LOGPOST_DATA_DIR=/var/lib/logpost/data
EXPOSE 8080
# The supervisor passes SIGTERM on and waits; give it longer than LOGPOST_SHUTDOWN_TIMEOUT_MS.
CMD ["logpost", "serve"]
