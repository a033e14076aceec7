#!/usr/bin/env bash
# Starts slurmdbd with a MariaDB of its own, both on the loopback interface, and prints the lines of slurm.conf that use them.
# start-slurm.sh calls it where MLT_SLURM_ACCOUNTING is set: most clusters have accounting, few tests need it.
set -euo pipefail
state=${MLT_SLURM_DIR:?"the folder of the cluster's state"}
for program in slurmdbd mariadbd mariadb-install-db; do
    if ! command -v "$program" >/dev/null; then
        echo "$program is not installed: apt-get install slurmdbd mariadb-server (or your system's packages)" >&2
        exit 1
    fi
done
read -r sql_port dbd_port < <(python3 -c '
import socket
held = [socket.socket() for _ in range(2)]
for one in held: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))')
password=$(python3 -c 'import secrets; print(secrets.token_hex(12))')
mkdir -p "$state/log" "$state/sql"
user=$(id -un)
if [ ! -d "$state/sql/mysql" ]; then
    mariadb-install-db --no-defaults --user="$user" --datadir="$state/sql" --skip-test-db >"$state/log/sql-install.out" 2>&1
fi
setsid mariadbd --no-defaults --user="$user" --datadir="$state/sql" --socket="$state/sql.sock" --pid-file="$state/sql.pid" \
    --bind-address=127.0.0.1 --port="$sql_port" --innodb-buffer-pool-size=32M --innodb-flush-log-at-trx-commit=0 \
    >"$state/log/sql.out" 2>&1 </dev/null &
for _ in $(seq 300); do
    mariadb-admin --no-defaults --socket="$state/sql.sock" ping >/dev/null 2>&1 && break
    sleep 0.1
done
mariadb --no-defaults --socket="$state/sql.sock" <<SQL
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE OR REPLACE USER slurm@'127.0.0.1' IDENTIFIED BY '$password';
GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1';
SQL
cat >"$state/slurmdbd.conf" <<C
AuthType=auth/none
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$dbd_port
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$sql_port
StorageUser=slurm
StoragePass=$password
StorageLoc=slurm_acct_db
PidFile=$state/slurmdbd.pid
LogFile=$state/log/slurmdbd.log
C
chmod 600 "$state/slurmdbd.conf"
# It looks for slurmdbd.conf beside slurm.conf.
SLURM_CONF=$state/slurm.conf setsid slurmdbd -D >"$state/log/slurmdbd.out" 2>&1 </dev/null &
for _ in $(seq 300); do
    (exec 3<>"/dev/tcp/127.0.0.1/$dbd_port") 2>/dev/null && break
    sleep 0.1
done
cat <<C
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$dbd_port
C
