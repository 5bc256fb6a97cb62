#!/usr/bin/env bash
# All that needs an NVIDIA GPU, in twelve minutes at most: build, tests, sanitizer, benchmarks, profiles.
#
#     bash benchmarks/gpu.sh [FOLDER [PART...]]
#
# FOLDER  takes the log of each part, the rows of the benchmarks and summary.txt; default: $OUT, else gpu-results
# PART    one or more of the names in the summary; default: all
#
# A part may fail alone; each has a limit of seconds, after which it is ended and what it wrote stays. diffusers is
# not needed; compute-sanitizer, ncu and pytest-xdist take part where they are. PYTHON chooses the interpreter.
# The exit code is 1 where a part failed or met its limit.
set -uo pipefail
exec </dev/null

parts=(machine build kernels captures large ops graphs memcheck racecheck step attention dit norms targets eager graph whole ncu compiled)
out=${1:-${OUT:-gpu-results}}
chosen=("${@:2}")
for name in ${chosen[@]+"${chosen[@]}"}; do
    if [[ " ${parts[*]} " != *" $name "* ]]; then
        echo "no part $name; there are: ${parts[*]}" >&2
        exit 2
    fi
done
if ! mkdir -p "$out/rows" || ! out=$(cd "$out" && pwd); then exit 2; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
export PYTHONPATH=. PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin" OMP_WAIT_POLICY=passive PYTHONUNBUFFERED=1
python=${PYTHON:-python3}

arch=$("$python" -c 'import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))' 2>"$out/gpu.log")
none=""
[ -n "$arch" ] || none="torch sees no GPU: $(tail -n 1 "$out/gpu.log")"
workers=()
"$python" -c 'import xdist' 2>/dev/null && workers=(-n)
failures=0
: >"$out/summary.txt"

tell() { # NAME RESULT SECONDS
    printf '%-10s %-44s %5s\n' "$@" >>"$out/summary.txt"
    printf '   %s: %s\n' "$1" "$2"
}

part() { # NAME LIMIT REASON COMMAND...: unless there is a reason to leave it out
    local name=$1 limit=$2 reason=$3 code start=$SECONDS
    shift 3
    if [ "${#chosen[@]}" -gt 0 ] && [[ " ${chosen[*]} " != *" $name "* ]]; then return; fi
    printf '== %s (%s s): %s\n' "$name" "$limit" "$*"
    if [ -n "$reason" ]; then
        tell "$name" "skipped: $reason" 0
        return
    fi
    timeout -k 5 "$limit" "$@" >"$out/$name.log" 2>&1
    code=$?
    tail -n 3 "$out/$name.log"
    case $code in
        0) tell "$name" ok $((SECONDS - start)) ;;
        124 | 137) tell "$name" "ended at its limit of $limit s" $((SECONDS - start)) ;;
        *) tell "$name" "failed with exit code $code" $((SECONDS - start)) ;;
    esac
    [ "$code" -eq 0 ] || failures=$((failures + 1))
}

# What leaves a part out: no GPU, or else no such tool.
without() {
    if [ -n "$none" ]; then
        echo "$none"
    elif ! command -v "$1" >/dev/null; then
        echo "$1 is not installed"
    fi
}

tests() { # NAME LIMIT WORKERS FILE...
    local name=$1 limit=$2 count=$3
    shift 3
    part "$name" "$limit" "$none" "$python" -m pytest -m gpu -q -p no:cacheprovider \
        ${workers[@]+"${workers[@]}" "$count"} "$@"
}

bench() { # NAME LIMIT ARGUMENT...
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$none" "$python" -m benchmarks.run --device cuda --folder "$out/rows" "$@"
}

launch=("$python" -m benchmarks.runs.launch)
checked=(step:noise norm norm:large attention:40)
no_nvcc=""
command -v nvcc >/dev/null || no_nvcc="nvcc is not installed"

part machine 20 "" "$python" -m diffusion_engine.cli doctor
part build 60 "$no_nvcc" env WITH_CUDA=1 TORCH_CUDA_ARCH_LIST="${arch:-9.0}" MAX_JOBS="$(nproc)" \
    "$python" setup.py build_ext --inplace
tests kernels 40 4 tests/backends/test_cuda.py tests/backends/test_cuda_attention.py tests/ops/test_noise.py
tests captures 70 4 tests/executors/test_gpu_runs.py tests/sampler/test_threads.py \
    tests/adapters/test_comfyui.py
tests large 30 1 tests/executors/test_gpu_large.py
tests ops 140 12 tests/ops/test_step.py tests/ops/test_brownian.py tests/ops/test_group_norm.py tests/ops/test_attention.py \
    tests/backends/test_triton.py tests/backends/test_cuda_layers.py tests/ops/test_reductions.py
tests graphs 80 4 tests/executors/test_graph_gpu.py tests/profiling/test_profile.py -k "not compiled"
sanitizer=$(without compute-sanitizer)
part memcheck 25 "$sanitizer" compute-sanitizer --tool memcheck --error-exitcode 1 "${launch[@]}" "${checked[@]}"
part racecheck 25 "$sanitizer" compute-sanitizer --tool racecheck --error-exitcode 1 "${launch[@]}" "${checked[@]}"
bench step 40 --op step --rows 16x3x256
bench attention 35 --op attention --rows "W4 tokens bfloat16"
bench dit 20 --op attention --rows "W5 tokens bfloat16"
bench norms 20 --op group_norm --rows "320x64x64 channels_last bfloat16"
bench targets 20 --op group_norm --rows "target bfloat16"
for executor in eager graph; do
    part "$executor" 15 "$none" "$python" -m diffusion_engine.cli profile --device cuda --executor "$executor" --n 64 \
        --out "$out/$executor.json"
done
part whole 10 "$none" "$python" -c 'from diffusion_engine import Sampler, profile
from diffusion_engine.executors import Graph
from diffusion_engine.zoo import load_network
print(profile(Sampler(load_network("digits"), executor=Graph(whole_run=True), device="cuda"), 64))'
part ncu 35 "$(without ncu)" ncu --clock-control none --set full \
    --kernel-name "regex:step_kernel|norm_.*kernel|attention_kernel" "${launch[@]}"
tests compiled 20 1 tests/executors/test_graph_gpu.py -k compiled

printf '\n%-10s %-44s %5s\n' part result s
cat "$out/summary.txt"
echo "logs and rows: $out"
[ "$failures" -eq 0 ]
