#!/usr/bin/env bash
# Train and evaluate the first row of CIFAR-100's table on one GPU, piece by piece, where a command's time is limited.
#
# A call works for at most PIECE seconds, which must suffice for each stage but pretrain, as the others save no state. It
# exits with 0 once the table is written, with 75 if the next call must continue, and with another code after an error:
#
#     until benchmarks/cifar100_row.sh; do [ $? -eq 75 ] || break; done
#
# The comparison of bfloat16 with float32, seeds in pairs:
#
#     STUDY=cifar100-precision RUNS="bfloat16 float32" SEEDS="0 1" benchmarks/cifar100_row.sh
set -uo pipefail

params=${PARAMS:-params.yaml} dataset=${DATASET:-cifar100} study=${STUDY:-cifar100} table=${TABLE:-main}
runs=${RUNS:-us3l-resnet18} seeds=${SEEDS:-0} device=${DEVICE:-cuda} threads=${THREADS:-2} piece=${PIECE:-540}

# Run `us3l` for the rest of the piece. At SIGTERM a training saves its state, and exits with 128 + 15.
go() {
  local left=$((piece - SECONDS))
  ((left > 0)) || exit 75
  timeout --preserve-status --signal TERM "$left" us3l "$@" --params "$params"
  local code=$?
  ((code != 143)) || exit 75
  ((code == 0)) || exit "$code"
}

# Run a stage of a run with a seed, unless the last file that it writes exists.
stage() {
  local name=$1 run=$2 seed=$3 file=results/$study/$1/$2/$4
  [ -e "$file" ] || go "$name" "$study" "$run" "$seed" --device "$device" --threads "$threads"
}

[ -e "data/$dataset/prepare.json" ] || go prepare "$dataset"
for seed in $seeds; do
  for run in $runs; do
    stage pretrain "$run" "$seed" "seed$seed.json"
    stage calibrate "$run" "$seed" "seed$seed.json"
    stage linear "$run" "$seed" "seed$seed-w025.json"
  done
done
go table "$study" "$table"
cat "results/$study/tables/$table.md"
