#!/usr/bin/env bash
# Stops what start-podman.sh started, and nothing else. --purge also removes its user with images and containers.
set -uo pipefail
user=${MLT_PODMAN_USER:-mltuser}
id -u "$user" >/dev/null 2>&1 || exit 0
home=$(getent passwd "$user" | cut -d: -f6)
# podman's own processes of this user: the service (it starts itself once more), and what holds its namespaces.
for pid in $(pgrep -u "$user" -x 'podman|catatonit|conmon|slirp4netns'); do kill "$pid" 2>/dev/null; done
for _ in $(seq 1 50); do pgrep -u "$user" -x podman >/dev/null || break; sleep 0.1; done
rm -f "$home/podman.sock" "$home/started.pid"
if [ "${1:-}" = --purge ]; then
    rm -rf "/run/user/$(id -u "$user")"
    userdel -r "$user" >/dev/null 2>&1
fi
exit 0
