#!/usr/bin/env bash
# Stops what start-gcs.sh started, and nothing else. --purge also removes its state.
set -uo pipefail
state=${MLT_GCS_DIR:-${TMPDIR:-/tmp}/mlt-gcs-$(id -u)}
pid=$(cat "$state/pid" 2>/dev/null)
if [ -n "$pid" ] && grep -qa mlt_gcs_server "/proc/$pid/cmdline" 2>/dev/null; then
    kill "$pid"
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
fi
if [ "${1:-}" = --purge ]; then rm -rf "$state"; fi
exit 0
