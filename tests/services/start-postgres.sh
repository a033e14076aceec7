#!/usr/bin/env bash
# Starts a PostgreSQL for the tests on a free port of the loopback interface and prints one line, MLT_PG_URL=..., to export.
# State lies in MLT_PG_DIR (default: a folder of this user in the temporary folder). Starting twice gives the same server.
# MLT_PG_PORT takes this port instead.
# It never flushes to disk: fast, and no place to measure durability.
set -euo pipefail
. "$(dirname "$0")/postgres.sh"

if [ -z "$bin" ]; then
    echo "PostgreSQL's server is not installed: apt-get install postgresql (or your system's package of that name)" >&2
    exit 1
fi

mkdir -p "$state"
chmod 711 "$state"
if [ "$(id -u)" = 0 ]; then chown "$owner" "$state"; fi
cd "$state"

if [ ! -s data/PG_VERSION ]; then
    as_owner "$bin/initdb" --pgdata="$state/data" --username=mltrack --auth=trust --encoding=UTF8 \
        --locale=C.UTF-8 --no-sync >initdb.log 2>&1 || { cat initdb.log >&2; exit 1; }
fi

if ! as_owner "$bin/pg_ctl" -D "$state/data" status >/dev/null; then
    port=${MLT_PG_PORT:-}
    [ -n "$port" ] || port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    as_owner "$bin/pg_ctl" -D "$state/data" -l "$state/server.log" -w -t 60 start -o "-p $port -k $state \
        -c listen_addresses=127.0.0.1 -c max_connections=200 -c fsync=off -c synchronous_commit=off \
        -c full_page_writes=off" >/dev/null || { cat server.log >&2; exit 1; }
fi

# The fourth line of the pid file is the port of the server that runs now.
echo "MLT_PG_URL=postgresql://mltrack@127.0.0.1:$(sed -n 4p data/postmaster.pid)/postgres"
