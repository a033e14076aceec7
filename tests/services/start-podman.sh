#!/usr/bin/env bash
# Starts rootless podman with its Docker-compatible socket, as a user of its own that is made when it is not there, with the tests'
# Python base image, and prints one line, DOCKER_HOST=..., to export. Needs root to become that user; nothing listens but a socket.
# Debian: apt-get install podman uidmap slirp4netns catatonit runc
set -euo pipefail
user=${MLT_PODMAN_USER:-mltuser}
here=$(cd "$(dirname "$0")" && pwd)
for program in podman newuidmap slirp4netns; do
    command -v "$program" >/dev/null || { echo "$program is not installed: apt-get install podman uidmap slirp4netns catatonit runc" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "needs root, to become the user $user; set DOCKER_HOST to podman's socket instead" >&2; exit 1; }
id -u "$user" >/dev/null 2>&1 || useradd -m -s /bin/bash "$user"
home=$(getent passwd "$user" | cut -d: -f6)
runtime=/run/user/$(id -u "$user")
socket=$home/podman.sock
mkdir -p "$runtime" "$home/.config/containers"
chmod 700 "$runtime"
# Whoever runs the tests reaches the socket through the home.
chmod 711 "$home"
printf '[storage]\ndriver = "overlay"\n' >"$home/.config/containers/storage.conf"
printf '[containers]\nnetns = "host"\n[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n' \
    >"$home/.config/containers/containers.conf"
chown -R "$user:" "$runtime" "$home/.config"
as_user() {
    setpriv --reuid="$user" --regid="$user" --init-groups env -i -C "$home" HOME="$home" XDG_RUNTIME_DIR="$runtime" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}
answers() { podman --url "unix://$socket" version >/dev/null 2>&1; }
if ! answers; then
    rm -f "$socket"
    as_user setsid nohup podman system service -t 0 "unix://$socket" >"$home/podman.log" 2>&1 </dev/null &
    echo $! >"$home/started.pid"
    for _ in $(seq 1 100); do
        if answers; then break; fi
        sleep 0.2
    done
    answers || { echo "podman did not come up:" >&2; tail -20 "$home/podman.log" >&2; exit 1; }
fi
if ! as_user podman image exists docker.io/library/python:3.11-slim; then
    "$here/make-python-base.sh" "$home/base.tar" >&2
    chown "$user:" "$home/base.tar"
    as_user podman import -q -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin' -c 'ENV LANG=C.UTF-8' -c 'CMD ["python3"]' \
        "$home/base.tar" docker.io/library/python:3.11-slim >/dev/null
    rm -f "$home/base.tar"
fi
echo "DOCKER_HOST=unix://$socket"
