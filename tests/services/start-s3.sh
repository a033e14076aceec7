#!/usr/bin/env bash
# Starts an S3 API on a free port of the loopback interface (moto's server, which keeps everything in memory) and prints the lines
# to export that S3 clients read. moto lives in an environment of its own. State lies in MLT_S3_DIR (default: a folder of this user
# in the temporary folder). Starting twice gives the same server.
set -euo pipefail
state=${MLT_S3_DIR:-${TMPDIR:-/tmp}/mlt-s3-$(id -u)}
here=$(cd "$(dirname "$0")" && pwd)

made=$("$here/make-environment.sh" moto)
server=$(dirname "${made#*=}")/moto_server
mkdir -p "$state"
chmod 700 "$state"
cd "$state"
if ! { [ -f pid ] && kill -0 "$(cat pid)" 2>/dev/null; }; then
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' >port
    setsid nohup "$server" -H 127.0.0.1 -p "$(cat port)" >log 2>&1 </dev/null &
    echo $! >pid
    for _ in $(seq 300); do
        if python3 -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1)' "$(cat port)" 2>/dev/null
        then break; fi
        kill -0 "$(cat pid)" 2>/dev/null || { cat log >&2; exit 1; }
        sleep 0.1
    done
fi
echo "MLT_S3_URL=http://127.0.0.1:$(cat port)"
