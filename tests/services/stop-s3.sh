#!/usr/bin/env bash
# Stops what start-s3.sh started, and nothing else. --purge also removes its state.
set -uo pipefail
state=${MLT_S3_DIR:-${TMPDIR:-/tmp}/mlt-s3-$(id -u)}
pid=$(cat "$state/pid" 2>/dev/null)
if [ -n "$pid" ] && grep -qa moto_server "/proc/$pid/cmdline" 2>/dev/null; then kill "$pid"; fi
if [ "${1:-}" = --purge ]; then rm -rf "$state"; fi
exit 0
