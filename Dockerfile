# podnet's image: the manager, the agent, the CNI plugins that it installs on nodes, and nft for the agent.
# `make image` assembles the same without Docker, for this machine's architecture (hack/make-image.sh).

FROM --platform=$BUILDPLATFORM docker.io/library/golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY agent agent
COPY cmd cmd
COPY controllers controllers
COPY internal internal
ARG TARGETOS TARGETARCH
ARG VERSION
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN go build -trimpath -ldflags "-s -w ${VERSION:+-X github.com/podnet/podnet/internal/version.Version=$VERSION}" \
    -o /out/ ./cmd/manager ./cmd/agent ./cmd/podnet-cni
RUN plugins=$(go list -m -f '{{.Version}}' github.com/containernetworking/plugins) && \
    go build -trimpath \
    -ldflags "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$plugins" \
    -o /out/ github.com/containernetworking/plugins/plugins/meta/bandwidth \
    github.com/containernetworking/plugins/plugins/main/loopback

# nft and the libraries that it loads, at the paths where the linker looks for them, and nothing else of Debian.
FROM docker.io/library/debian:bookworm-slim AS nft
RUN apt-get update && apt-get install --yes --no-install-recommends nftables
RUN mkdir -p /root-fs/usr/sbin /root-fs/tmp && chmod 1777 /root-fs/tmp && \
    cp /usr/sbin/nft /root-fs/usr/sbin/ && \
    ldd /usr/sbin/nft | grep -o '/[^ ]*' | while read -r library; do \
      install -D "$(readlink -f "$library")" "/root-fs$library"; \
    done

FROM scratch
COPY --from=nft /root-fs/ /
COPY hack/rootfs/protocols /etc/protocols
COPY --from=build /out/manager /out/agent /
COPY --from=build /out/podnet-cni /out/bandwidth /out/loopback /opt/podnet/cni/
# hack/make-image.sh gives the image the same PATH.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# The manager needs no rights on its node. The agent does, and its pod says so.
USER 65532:65532
ENTRYPOINT ["/manager"]
