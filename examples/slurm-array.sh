#!/bin/sh
#SBATCH --job-name=df11
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=1G
# Compresses a model as a Slurm job array. Every task compresses its part of the groups, and a second job completes the
# model after all tasks. SOURCE and OUT are on a disk that all nodes share.
#
#   job=$(sbatch --parsable examples/slurm-array.sh SOURCE OUT [--preset NAME …])
#   sbatch --dependency=afterok:"$job" --wrap "df11 merge SOURCE -o OUT [--preset NAME …]"
#
# If a task fails, for example 3, submit it again: it resumes. The array then has one task, so give the number of parts:
#
#   PARTS=8 sbatch --array=3 examples/slurm-array.sh SOURCE OUT [--preset NAME …]
#
# Any other array that begins with 1 works as well (--array=1-40%10). Set DF11 if the tool `df11` is not in PATH.
set -eu
source=$1 out=$2
shift 2
part=$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}
exec "${DF11:-df11}" compress "$source" -o "$out" --part "$part" --resume \
    --threads "${SLURM_CPUS_PER_TASK:-1}" "$@"
