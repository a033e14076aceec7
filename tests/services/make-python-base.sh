#!/usr/bin/env bash
# make-python-base.sh OUT.tar: a root file system with this machine's own CPython, as a stand-in for python:3.11-slim where
# no image registry can be reached. It holds the interpreter with pip and standard library, the shared libraries they need,
# a shell and a few programs. For tests only: never push it anywhere.
set -euo pipefail
out=$1
python=$(python3 -c 'import sys, os; print(os.path.realpath(sys.executable))')
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
libraries=lib/$(uname -m)-linux-gnu

mkdir -p "$root"/{bin,etc/ssl/certs,tmp,var/tmp,root,home,proc,sys,dev,run,lib64,usr/bin,usr/local/bin,usr/local/lib,"usr/$libraries",lib}
chmod 1777 "$root/tmp" "$root/var/tmp"
ln -s "../usr/$libraries" "$root/$libraries"

tar -C "$prefix/lib" -cf - --exclude='test' --exclude='idlelib' --exclude='tkinter' --exclude='turtledemo' --exclude='config-*' \
    --exclude='site-packages' --exclude='lib2to3' --exclude='*.a' --exclude='_tkinter*.so' --exclude='*.opt-[12].pyc' \
    "python$version" $(cd "$prefix/lib" && ls -d libpython*.so* 2>/dev/null || true) | tar -C "$root/usr/local/lib" -xf -
site=$root/usr/local/lib/python$version/site-packages
mkdir -p "$site"
install -m 755 "$python" "$root/usr/local/bin/python$version"
ln -s "python$version" "$root/usr/local/bin/python3"
ln -s python3 "$root/usr/local/bin/python"

# pip is the one that comes with the standard library, so that it does not matter what this machine has installed.
for wheel in "$prefix/lib/python$version/ensurepip/_bundled/"*.whl /usr/share/python-wheels/{pip,setuptools}-*.whl; do
    [ -f "$wheel" ] && python3 -m zipfile -e "$wheel" "$site"
done
for name in pip pip3; do
    printf '#!/usr/local/bin/python3\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n' \
        >"$root/usr/local/bin/$name"
    chmod 755 "$root/usr/local/bin/$name"
done
"$python" -m compileall -q --invalidation-mode unchecked-hash "$site/pip" || true
find "$root/usr/local" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null || true

for name in dash bash env cat ls cp mv rm mkdir ln chmod chown id sleep echo true false test uname date head tail sort wc tr \
    cut tee touch stat seq grep sed find xargs tar gzip whoami hostname ps kill dirname basename printf pwd mktemp; do
    program=$(type -P "$name" || true)
    if [ -n "$program" ]; then cp -L "$program" "$root/bin/$name"; fi
done
ln -sf dash "$root/bin/sh"
for program in "$root"/bin/*; do ln -sf "../../bin/$(basename "$program")" "$root/usr/bin/$(basename "$program")"; done

{
    find "$root/usr/local" "$root/bin" -type f \( -name '*.so*' -o -perm /111 \) -print0 |
        LD_LIBRARY_PATH="$prefix/lib" xargs -0 ldd 2>/dev/null || true
    ldconfig -p | awk '/lib(rt|dl|util|m|gomp)\.so\.[0-9]|libpthread\.so\.0|libgcc_s\.so\.1|libstdc\+\+\.so\.6|libnss_(files|dns)\.so\.2|libresolv\.so\.2/ {print "x => " $NF}'
} | awk '$2 == "=>" && $3 ~ /^\// {print $3} $1 ~ /^\/lib.*ld-linux/ {print $1}' | sort -u | while read -r library; do
    case $library in
        "$prefix"/*) ;;
        /lib64/*) cp -L "$library" "$root/lib64/" ;;
        *) cp -L "$library" "$root/usr/$libraries/" ;;
    esac
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'root:x:0:0:root:/%s:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n' root >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf '/usr/local/lib\n/usr/%s\n' "$libraries" >"$root/etc/ld.so.conf"
ldconfig -r "$root" 2>/dev/null || /sbin/ldconfig -r "$root"
tar -C "$root" --numeric-owner --sort=name -cf "$out" .
