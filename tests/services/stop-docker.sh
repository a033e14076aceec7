#!/usr/bin/env bash
# Stops what start-docker.sh started, and nothing else. --purge also removes its state.
set -uo pipefail
state=${MLT_DOCKER_DIR:-${TMPDIR:-/tmp}/mltrack-docker}

if [ -f "$state/started.pid" ]; then
    pid=$(cat "$state/started.pid")
    # Containers end with their engine, so they are removed first.
    if [ -S "$state/docker.sock" ] && kill -0 "$pid" 2>/dev/null; then
        left=$(docker --host "unix://$state/docker.sock" ps -aq 2>/dev/null)
        # shellcheck disable=SC2086
        [ -n "$left" ] && docker --host "unix://$state/docker.sock" rm -f $left >/dev/null 2>&1
    fi
    if grep -q dockerd "/proc/$pid/cmdline" 2>/dev/null; then
        kill "$pid"
        for _ in $(seq 1 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    fi
    rm -f "$state/started.pid"
    if [ -f "$state/bridge-is-ours" ]; then ip link delete docker0 2>/dev/null; rm -f "$state/bridge-is-ours"; fi
fi
if [ "${1:-}" = --purge ]; then
    for mounted in $(awk -v s="$state/" 'index($2, s) == 1 {print $2}' /proc/mounts | sort -r); do umount -l "$mounted"; done
    rm -rf "$state"
fi
