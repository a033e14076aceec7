#!/usr/bin/env bash
# Stops what start-postgres.sh started, and nothing else. --purge also removes its state.
set -uo pipefail
. "$(dirname "$0")/postgres.sh"

cd /
if [ -n "$bin" ] && [ -f "$state/data/postmaster.pid" ]; then
    as_owner "$bin/pg_ctl" -D "$state/data" -m fast -w -t 30 stop >/dev/null
fi
if [ "${1:-}" = --purge ]; then rm -rf "$state"; fi
