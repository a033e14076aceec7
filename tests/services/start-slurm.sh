#!/usr/bin/env bash
# Starts a Slurm of two nodes with two fake GPUs each on the loopback interface, without systemd and munge, and prints
# MLT_SLURM_CONF=... to export. State lies in MLT_SLURM_DIR (default: a folder of this user in the temporary folder).
# Starting twice gives the same cluster and revives nodes that died. Needs root, as slurmd does. With MLT_SLURM_ACCOUNTING it keeps
# accounts, and what has ended is forgotten by all but these within seconds.
set -euo pipefail
state=${MLT_SLURM_DIR:-${TMPDIR:-/tmp}/mlt-slurm-$(id -u)}
nodes=2 gpus=2

if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null; then
    echo "Slurm is not installed: apt-get install slurm-wlm (or your system's package of that name)" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "Slurm's daemons start as root only" >&2
    exit 1
fi

mkdir -p "$state"/{ctld,log,dev}
chmod 755 "$state"
export SLURM_CONF=$state/slurm.conf
# A node keeps its pid in a file; a pid of somebody else in it is told by the command line.
runs() { local pid; pid=$(cat "$1" 2>/dev/null) && grep -qa "$SLURM_CONF" "/proc/$pid/cmdline" 2>/dev/null; }
node() { runs "$state/slurmd-n$1.pid" || slurmd -f "$SLURM_CONF" -N "n$1" >"$state/log/slurmd-n$1.out" 2>&1; }

if ! runs "$state/slurmctld.pid"; then
    ports=$(python3 -c '
import socket
held = [socket.socket() for _ in range(3)]
for one in held: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))')
    read -r port node_ports <<<"$ports"
    memory=$(awk '/MemTotal/ {print int($2 / 1024) - 512}' /proc/meminfo)
    accounting=AccountingStorageType=accounting_storage/none remembered=3600
    if [ -n "${MLT_SLURM_ACCOUNTING:-}" ]; then
        accounting=$(MLT_SLURM_DIR=$state "$(dirname "$0")/start-slurm-accounting.sh") remembered=2
    fi
    cat >"$SLURM_CONF" <<C
ClusterName=mlt
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$port
SlurmctldParameters=enable_configless
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,bf_interval=5,sched_interval=2,sched_min_interval=100000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
$accounting
GresTypes=gpu
ReturnToService=2
MinJobAge=$remembered
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
OverTimeLimit=0
SlurmctldTimeout=30
SlurmdTimeout=10
InactiveLimit=0
Waittime=0
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/spool-%n
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd-%n.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
C
    : >"$state/gres.conf"
    for number in $(seq "$nodes"); do
        read -r node_port node_ports <<<"$node_ports"
        # Four processors each, whatever the machine has: tests wait for jobs, not for cores.
        echo "NodeName=n$number NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$node_port CPUs=4" \
            "RealMemory=$((memory / nodes)) Gres=gpu:fake:$gpus State=UNKNOWN" >>"$SLURM_CONF"
        for gpu in $(seq 0 $((gpus - 1))); do
            device=$state/dev/n$number-gpu$gpu
            [ -e "$device" ] || mknod "$device" c 1 3
            echo "NodeName=n$number Name=gpu Type=fake File=$device" >>"$state/gres.conf"
        done
        mkdir -p "$state/spool-n$number"
    done
    echo "SlurmdParameters=config_overrides" >>"$SLURM_CONF"
    echo "PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE DefaultTime=60 PreemptMode=OFF State=UP" >>"$SLURM_CONF"
    echo "PartitionName=short Nodes=n[1-$nodes] MaxTime=1 DefaultTime=1 PreemptMode=OFF State=UP" >>"$SLURM_CONF"
    # Jobs of the one give way to those of the other.
    echo "PartitionName=spare Nodes=n[1-$nodes] DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE State=UP" >>"$SLURM_CONF"
    echo "PartitionName=urgent Nodes=n[1-$nodes] DefaultTime=60 PriorityTier=9 PreemptMode=OFF State=UP" >>"$SLURM_CONF"
    slurmctld -f "$SLURM_CONF" -c >"$state/log/slurmctld.out" 2>&1
fi
for number in $(seq "$nodes"); do node "$number"; done
for _ in $(seq 150); do
    up=$(timeout 5 sinfo -h -N -p main -t idle,mix,alloc -o %N 2>/dev/null | sort -u | wc -l)
    [ "$up" -eq "$nodes" ] && { echo "MLT_SLURM_CONF=$SLURM_CONF"; exit 0; }
    sleep 0.2
done
echo "Slurm did not come up" >&2
tail -n 5 "$state"/log/* >&2
exit 1
