#!/usr/bin/env bash
# Stops what start-slurm.sh started, jobs included, and nothing else. --purge also removes its state.
set -uo pipefail
state=${MLT_SLURM_DIR:-${TMPDIR:-/tmp}/mlt-slurm-$(id -u)}
export SLURM_CONF=$state/slurm.conf
if [ -f "$SLURM_CONF" ]; then
    timeout 5 squeue -h -o %A 2>/dev/null | xargs -r timeout 10 scancel --signal=KILL --full 2>/dev/null
    timeout 5 squeue -h -o %A 2>/dev/null | xargs -r timeout 10 scancel 2>/dev/null
    for _ in $(seq 20); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.2; done
    for file in "$state"/slurmd-*.pid "$state"/slurmctld.pid "$state"/slurmdbd.pid "$state"/sql.pid; do
        pid=$(cat "$file" 2>/dev/null)
        if [ -n "$pid" ] && grep -qa "$state/" "/proc/$pid/cmdline" "/proc/$pid/environ" 2>/dev/null; then
            kill "$pid"
            for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
            kill -KILL "$pid" 2>/dev/null
        fi
        rm -f "$file"
    done
fi
if [ "${1:-}" = --purge ]; then rm -rf "$state"; fi
exit 0
