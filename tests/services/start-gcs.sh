#!/usr/bin/env bash
# Starts a Google Cloud Storage API on a free port of the loopback interface (gcp-storage-emulator, which keeps everything in memory)
# and prints the line to export. It lives in an environment of its own. State lies in MLT_GCS_DIR (default: a folder of this user in
# the temporary folder). Starting twice gives the same server.
set -euo pipefail
state=${MLT_GCS_DIR:-${TMPDIR:-/tmp}/mlt-gcs-$(id -u)}
here=$(cd "$(dirname "$0")" && pwd)

made=$("$here/make-environment.sh" gcs)
mkdir -p "$state"
chmod 700 "$state"
cd "$state"
cat >mlt_gcs_server.py <<'PY'
"""The emulator, and what it lacks: giving up an upload, which Google answers with 499."""
import sys
from types import SimpleNamespace

from gcp_storage_emulator import server


def give_up(request, response, storage):
    response.status = SimpleNamespace(value=499, phrase="Client Closed Request")


for route, handlers in server.HANDLERS:
    if route.startswith("^/upload/") and "PUT" in handlers:
        handlers["DELETE"] = give_up
server.create_server("127.0.0.1", int(sys.argv[1]), True).run()
PY
if ! { [ -f pid ] && kill -0 "$(cat pid)" 2>/dev/null; }; then
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' >port
    setsid nohup "${made#*=}" mlt_gcs_server.py "$(cat port)" >log 2>&1 </dev/null &
    echo $! >pid
    for _ in $(seq 300); do
        if python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$(cat port)" 2>/dev/null
        then break; fi
        kill -0 "$(cat pid)" 2>/dev/null || { cat log >&2; exit 1; }
        sleep 0.1
    done
fi
echo "MLT_GCS_URL=http://127.0.0.1:$(cat port)"
