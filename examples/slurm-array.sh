#!/bin/sh
#SBATCH --job-name=df11
#SBATCH --array=1-8
#SBATCH --cpus-per-task=8
#SBATCH --mem=1G
# Compresses a model as a Slurm job array: every task does its part of the groups. A second job completes the model when
# all tasks are through. SOURCE and OUT are on a disk that all nodes see.
#
#   job=$(sbatch --parsable examples/slurm-array.sh SOURCE OUT [--preset NAME …])
#   sbatch --dependency=afterok:"$job" --wrap "df11 merge SOURCE -o OUT [--preset NAME …]"
#
# If a task fails (say, 3), it goes on where it was; the number of parts must then be said, for the array has but one:
#
#   PARTS=8 sbatch --array=3 examples/slurm-array.sh SOURCE OUT [--preset NAME …]
#
# Any other array that begins with 1 will do (--array=1-40%10). Set DF11 if the tool `df11` is not in PATH.
set -eu
source=$1 out=$2
shift 2
part=$SLURM_ARRAY_TASK_ID/${PARTS:-$SLURM_ARRAY_TASK_COUNT}
exec "${DF11:-df11}" compress "$source" -o "$out" --part "$part" --resume \
    --threads "${SLURM_CPUS_PER_TASK:-1}" "$@"
