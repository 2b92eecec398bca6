#!/usr/bin/env bash
# The first hour on a GPU, piece by piece, where a command's time is limited: the tests that need one, the benchmark with
# each fast path on and off, then the first row of CIFAR-100's table (cifar100_row.sh, which reads the same variables).
#
# A call works for at most PIECE seconds, which must suffice for the tests, for each part of the benchmark, and for each
# stage but pretrain. It exits with 0 once all is done, with 75 if the next call must continue, and with another code
# after an error, or where a test fails:
#
#     until benchmarks/first_gpu_hour.sh; do [ $? -eq 75 ] || break; done
#
# What is done has its record in OUT, and is not done again. No figure changes what follows; `python -m benchmarks
# --report PAGE` shows them.
set -uo pipefail

device=${DEVICE:-cuda} piece=${PIECE:-540} out=${OUT:-benchmarks/results} tests=${TESTS:-tests}
parts=${PARTS:-$(python -c 'from benchmarks.parts import PARTS; print(*PARTS)')} options=${OPTIONS:-}

# Run a command for the rest of the piece; what is cut off, the next call begins again.
go() {
  local left=$((piece - SECONDS))
  ((left > 0)) || exit 75
  timeout "$left" "$@"
  local code=$?
  ((code != 124)) || exit 75
  ((code == 0)) || exit "$code"
}

mkdir -p "$out"
log=$out/tests-$device.txt
if [ ! -e "$log" ]; then
  go python -m pytest -m gpu -rA "$tests" | tee "$log.part" || exit $?
  mv "$log.part" "$log"
fi
for part in $parts; do
  # shellcheck disable=SC2086 # several options
  [ -e "$out/$part-$device.json" ] || go python -m benchmarks "$part" --device "$device" --out "$out" $options
done
PIECE=$((piece - SECONDS)) exec "$(dirname "$0")/cifar100_row.sh"
