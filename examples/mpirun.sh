#!/bin/sh
# Compresses a model on several machines with Open MPI. Every process compresses its part of the groups, and then the
# model is completed. SOURCE and OUT are on a disk that all machines share.
#
#   MPIRUN="mpirun --hostfile hosts --map-by ppr:1:node" examples/mpirun.sh SOURCE OUT [--preset NAME …]
#
# The paths SOURCE and OUT must be the same on all machines. After a failure, the same command resumes. Set DF11 if the
# tool `df11` is not in PATH, and DF11_THREADS to limit the threads of a process.
set -eu
df11=${DF11:-df11}
source=$1 out=$2
shift 2
if [ -n "${OMPI_COMM_WORLD_RANK:-}" ]; then
    # One of the processes that the last lines of this script start.
    part=$((OMPI_COMM_WORLD_RANK + 1))/$OMPI_COMM_WORLD_SIZE
    exec "$df11" compress "$source" -o "$out" --part "$part" --resume ${DF11_THREADS:+--threads "$DF11_THREADS"} "$@"
fi
export DF11="$df11"
# A process that is bound to one processor would work with one thread.
${MPIRUN:-mpirun} --bind-to none -x DF11 ${DF11_THREADS:+-x DF11_THREADS} "$0" "$source" "$out" "$@"
exec "$df11" merge "$source" -o "$out" "$@"
