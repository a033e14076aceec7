#!/usr/bin/env bash
# Starts a Docker Engine of the tests' own, with a Python base image made of this machine's interpreter (no image registry
# is needed), and prints one line, DOCKER_HOST=..., to export. Root only; nothing listens but a socket in the state folder.
# State lies in MLT_DOCKER_DIR (default: a folder in the temporary folder). Starting twice gives the same engine.
set -euo pipefail
state=${MLT_DOCKER_DIR:-${TMPDIR:-/tmp}/mltrack-docker}
socket=$state/docker.sock
here=$(cd "$(dirname "$0")" && pwd)

if ! command -v dockerd >/dev/null; then
    echo "Docker Engine is not installed: apt-get install docker.io iptables (or your system's packages)" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "the tests' own Docker Engine needs root; set DOCKER_HOST to one that may be used instead" >&2
    exit 1
fi

answers() {
    python3 - "$socket" <<'PY'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(3)
try:
    s.connect(sys.argv[1])
    s.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
    ok = b" 200 " in s.recv(200)
except OSError:
    ok = False
sys.exit(not ok)
PY
}

mkdir -p "$state"
chmod 755 "$state"
if ! answers; then
    # Without iptables and forwarding rules: the machine's own network stays as it is, builds use the host's.
    echo '{}' >"$state/daemon.json"
    rm -f "$state/dockerd.pid"
    ip link show docker0 >/dev/null 2>&1 || touch "$state/bridge-is-ours"
    setsid nohup dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/dockerd.pid" \
        --host "unix://$socket" --storage-driver "${MLT_DOCKER_STORAGE:-overlay2}" --config-file "$state/daemon.json" \
        --exec-opt native.cgroupdriver=cgroupfs --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
        >"$state/dockerd.log" 2>&1 </dev/null &
    echo $! >"$state/started.pid"
    for _ in $(seq 1 300); do
        if answers; then break; fi
        kill -0 "$(cat "$state/started.pid")" 2>/dev/null || break
        sleep 0.1
    done
    if ! answers; then
        echo "dockerd did not come up:" >&2
        tail -20 "$state/dockerd.log" >&2
        exit 1
    fi
fi
export DOCKER_HOST=unix://$socket
if ! docker image inspect python:3.11-slim >/dev/null 2>&1; then
    "$here/make-python-base.sh" "$state/base.tar" >&2
    docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c 'ENV LANG=C.UTF-8' -c 'CMD ["python3"]' \
        "$state/base.tar" python:3.11-slim >/dev/null
    rm -f "$state/base.tar"
fi
echo "DOCKER_HOST=$DOCKER_HOST"
