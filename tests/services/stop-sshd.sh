#!/usr/bin/env bash
# Stops what start-sshd.sh started, and nothing else. --purge also removes its state.
set -uo pipefail
state=${MLT_SSH_DIR:-${TMPDIR:-/tmp}/mlt-ssh-$(id -u)}
pid=$(cat "$state/pid" 2>/dev/null)
if [ -n "$pid" ] && grep -qa "$state/sshd_config" "/proc/$pid/cmdline" 2>/dev/null; then kill "$pid"; fi
if [ "${1:-}" = --purge ]; then rm -rf "$state"; fi
exit 0
