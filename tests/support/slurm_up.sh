#!/bin/bash
# Start a real SLURM cluster on loopback: N virtual nodes, accounting (so that sacct works), no systemd. Run as root.
#   slurm_up.sh STATE_DIR [NODES=2] [PORT_BASE=16800] [CPUS_PER_NODE=4]
# Then: export SLURM_CONF=STATE_DIR/slurm.conf.  Stop with: slurm_down.sh STATE_DIR
# Needs (Debian): slurm-wlm munge slurmdbd mariadb-server. Everything it writes is under STATE_DIR.
set -euo pipefail
D=$(mkdir -p "${1:?state directory}" && cd "$1" && pwd)
NODES=${2:-2} BASE=${3:-16800} CPUS=${4:-4}
H=$(hostname -s) CTLD=$((BASE + 17)) DBD=$((BASE + 19)) SQL=$((BASE + 6)) NODE=$((BASE + 20))
mkdir -p "$D"/{ctld,log,munge,mysql}
chmod 700 "$D/munge"; chmod 755 "$D"

wait_for() {  # wait_for SECONDS DESCRIPTION COMMAND...
    local end=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "slurm_up: no $what after the wait; see $D/log" >&2; return 1; }
        sleep 0.3
    done
}
# A private munge: own key and socket, so no system daemon and no system key are touched.
M=$D/munge
[ -s "$M/key" ] || (umask 077; dd if=/dev/urandom of="$M/key" bs=1024 count=1 status=none)
munged --force --num-threads=2 --key-file="$M/key" --socket="$D/munge.sock" --pid-file="$D/munged.pid" \
    --log-file="$D/log/munged.log" --seed-file="$M/seed" 2>>"$D/log/munged.log"

[ -d "$D/mysql/mysql" ] || mariadb-install-db --no-defaults --user=root --datadir="$D/mysql" \
    --auth-root-authentication-method=socket >"$D/log/mysql_install.log" 2>&1
mariadbd --no-defaults --user=root --datadir="$D/mysql" --socket="$D/mysql.sock" --pid-file="$D/mariadbd.pid" \
    --port=$SQL --bind-address=127.0.0.1 --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
    >"$D/log/mysql.log" 2>&1 </dev/null &
sql() { mariadb --no-defaults --socket="$D/mysql.sock" -u root -e "$1"; }
wait_for 90 database sql "select 1"
sql "create database if not exists slurm_acct_db;
     create user if not exists slurm@'127.0.0.1' identified by 'slurm'; grant all on slurm_acct_db.* to slurm@'127.0.0.1';
     create user if not exists slurm@localhost identified by 'slurm'; grant all on slurm_acct_db.* to slurm@localhost;"

(umask 077; cat >"$D/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$D/munge.sock
DbdHost=$H
DbdAddr=127.0.0.1
DbdPort=$DBD
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$SQL
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$D/log/slurmdbd.log
PidFile=$D/slurmdbd.pid
CONF
)
# the nodes share one munged, which refuses some of their messages as replays, so that a node stays busy after its job until
# it registers again: every two thirds of SlurmdTimeout
cat >"$D/slurm.conf" <<CONF
ClusterName=loop
SlurmctldHost=$H(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$D/munge.sock,cred_expire=5
CredType=cred/munge
SlurmctldPort=$CTLD
StateSaveLocation=$D/ctld
SlurmctldPidFile=$D/slurmctld.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdSpoolDir=$D/slurmd.%n
SlurmdPidFile=$D/slurmd.%n.pid
SlurmdLogFile=$D/log/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD
AccountingStoragePass=$D/munge.sock
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
ReturnToService=2
SlurmdTimeout=60
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2
BatchStartTimeout=60
SlurmctldDebug=verbose
CONF
for i in $(seq "$NODES"); do
    mkdir -p "$D/slurmd.n$i"
    echo "NodeName=n$i NodeHostname=$H NodeAddr=127.0.0.1 Port=$((NODE + i)) CPUs=$CPUS RealMemory=8000 State=UNKNOWN" >>"$D/slurm.conf"
done
echo "PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES" >>"$D/slurm.conf"
export SLURM_CONF=$D/slurm.conf

slurmdbd
wait_for 90 slurmdbd sacctmgr -n list cluster
for what in "cluster loop" "account acct cluster=loop" "user root account=acct cluster=loop"; do
    # shellcheck disable=SC2086
    sacctmgr -i add $what >/dev/null || true  # already there on a second start
done
slurmctld -i
for i in $(seq "$NODES"); do slurmd -N "n$i"; done
all_idle() { [ "$(sinfo -h -N -t idle -o %N | wc -l)" -eq "$NODES" ]; }
wait_for 90 "idle nodes" all_idle
sinfo -N -l
