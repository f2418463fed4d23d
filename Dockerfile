FROM node:22-bookworm-slim AS page
WORKDIR /dashboard
COPY dashboard/package.json dashboard/package-lock.json dashboard/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY dashboard .
RUN npm run build

FROM rust:1.95-bookworm AS build
WORKDIR /taktline
COPY . .
COPY --from=page /dashboard/dist dashboard/dist
RUN cargo build --locked --release --bin taktline

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl && rm -rf /var/lib/apt/lists/*
COPY --from=build /taktline/target/release/taktline /usr/local/bin/taktline
RUN useradd --system --create-home --home-dir /var/lib/taktline taktline
USER taktline
ENTRYPOINT ["taktline"]
