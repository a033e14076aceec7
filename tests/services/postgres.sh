#!/usr/bin/env bash
# What starting and stopping share: where the server's programs and its state are, and who runs it.
state=${MLT_PG_DIR:-${TMPDIR:-/tmp}/mltrack-postgres-$(id -u)}
bin=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
if [ -z "$bin" ] && command -v initdb >/dev/null; then bin=$(dirname "$(command -v initdb)"); fi

# PostgreSQL refuses to run as root.
owner=postgres
as_owner() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid="$owner" --regid="$owner" --init-groups env HOME="$state" "$@"
    else
        "$@"
    fi
}
