#!/usr/bin/env bash
# Starts an sshd on a free port of the loopback interface and prints two lines to export: MLT_SSH_CONFIG, a configuration with
# the host `mltbox` to log in as whoever runs this, with a key of its own, and MLT_SSH_PID of the server. State lies in
# MLT_SSH_DIR (default: a folder of this user in the temporary folder). Starting twice gives the same server.
set -euo pipefail
state=${MLT_SSH_DIR:-${TMPDIR:-/tmp}/mlt-ssh-$(id -u)}
server=/usr/sbin/sshd

if [ ! -x "$server" ]; then
    echo "sshd is not installed: apt-get install openssh-server (or your system's package of that name)" >&2
    exit 1
fi

mkdir -p "$state"
chmod 700 "$state"
cd "$state"
if ! { [ -f pid ] && kill -0 "$(cat pid)" 2>/dev/null; }; then
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    for key in host id; do [ -f "$key" ] || ssh-keygen -q -t ed25519 -N '' -f "$key"; done
    # Where root runs it, sshd wants this folder of its own, which a package makes only when its service starts.
    if [ "$(id -u)" = 0 ]; then mkdir -p /run/sshd && chmod 755 /run/sshd; fi
    cat >sshd_config <<C
Port $port
ListenAddress 127.0.0.1
HostKey $state/host
PidFile $state/pid
AuthorizedKeysFile $state/id.pub
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
Subsystem sftp internal-sftp
C
    printf '%s\n' "Host mltbox" "  HostName 127.0.0.1" "  Port $port" "  User $(id -un)" "  IdentityFile $state/id" \
        "  IdentitiesOnly yes" "  UserKnownHostsFile $state/known" "  StrictHostKeyChecking accept-new" "  LogLevel ERROR" >config
    rm -f pid known
    "$server" -f "$state/sshd_config" -E "$state/log"
    for _ in $(seq 100); do [ -s pid ] && break; sleep 0.1; done
    [ -s pid ] || { cat log >&2; exit 1; }
fi
echo "MLT_SSH_CONFIG=$state/config"
echo "MLT_SSH_PID=$(cat pid)"
