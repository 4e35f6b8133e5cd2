#!/usr/bin/env bash
# Start a SLURM with two nodes on this machine, to try and to test the scripts of this folder.
#
#   sudo apt-get install slurmctld slurmd slurm-client munge
#   sudo slurm/local_cluster.sh start          # prints what to export
#   sudo slurm/local_cluster.sh stop
#
# All files are in TCR_SLURM (/tmp/tcr-slurm), and an existing SLURM is not touched. Each node reports 4 cores. Jobs of
# the partition high preempt jobs of main, which get 60 seconds to save and are requeued.
set -euo pipefail

dir=${TCR_SLURM:-/tmp/tcr-slurm}
port=${TCR_SLURM_PORT:-16817}

# Prints the pid of a daemon if it is running; the pid of a dead daemon may belong to another process.
process_of() {
  local pid
  pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${1%-n?}" ] && echo "$pid"
}

stop() {
  if [ ! -s "$dir/slurm.conf" ]; then return; fi
  for _ in $(seq 50); do
    alive=0
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
      if pid=$(process_of $name); then
        kill "$pid" 2>/dev/null || true
        alive=1
      fi
    done
    if [ $alive = 0 ]; then break; fi
    sleep 0.2
  done
  rm -rf "$dir"
}

start() {
  for tool in slurmctld slurmd munged mungekey; do
    if ! PATH=$PATH:/usr/sbin command -v $tool >/dev/null; then
      echo "error: $tool is missing: apt-get install slurmctld slurmd slurm-client munge" >&2
      exit 2
    fi
  done
  if [ "$(id -u)" != 0 ]; then echo "error: SLURM's daemons need root; run this script with sudo" >&2; exit 2; fi
  stop
  if [ -e "$dir" ]; then echo "error: $dir exists and is no cluster of this script; set TCR_SLURM to another folder" >&2; exit 2; fi
  mkdir -p "$dir/state" "$dir/n1" "$dir/n2"
  chmod 755 "$dir"
  mungekey --create --keyfile="$dir/munge.key"
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" 2>/dev/null
  cat > "$dir/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SlurmctldTimeout=30
KillWait=30
NodeName=n[1-2] NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + 2))] CPUs=4 RealMemory=1000
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=60 State=UP
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
CONF
  export SLURM_CONF=$dir/slurm.conf
  slurmctld
  for node in n1 n2; do slurmd -N $node; done
  for _ in $(seq 60); do
    if [ "$(sinfo -h -N -o %t 2>/dev/null | sort -u)" = idle ]; then
      # MASTER_ADDR, because n1 and n2 are no host names that Lightning could resolve.
      echo "export SLURM_CONF=$dir/slurm.conf MASTER_ADDR=127.0.0.1"
      return
    fi
    sleep 0.5
  done
  echo "error: the nodes did not start; see $dir/*.log" >&2
  exit 1
}

case ${1:-} in
  start | stop) "$1" ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
