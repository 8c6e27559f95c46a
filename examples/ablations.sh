#!/usr/bin/env bash
# Makes the arms of the paper's ablations from the same trajectories: compiles and converts each arm. With a recipe,
# also trains, exports and evaluates each arm. The arms differ only in the options of compile.
#
#   bash examples/ablations.sh TRAJECTORIES OUT
#   RECIPE=examples/qwen3_30b_a3b_128k_h100_8_gpus.toml LAUNCH="torchrun --nproc-per-node 8 -m acc_megatron" \
#       FILL="search=100000" bash examples/ablations.sh TRAJECTORIES OUT
#
# Variables and their defaults: BUDGET (131072) tokens of the longest document; FILL ("") targets such as
# "search=60000..100000", not used without distractors; RESOURCES ("") folders and git repositories of the trajectories;
# SEED (0); TEACHER_ENDPOINT and TEACHER_MODEL ("") for reasoning from a teacher model; ARMS (all arms).
# An arm whose dataset exists is not made again, so an interrupted run resumes.
set -euo pipefail

if [ $# -ne 2 ]; then
    sed -n '2,12p' "$0" >&2
    exit 2
fi
trajectories=$1
out=$2
budget=${BUDGET:-131072}
seed=${SEED:-0}
recipe=${RECIPE:-}
acc=${ACC:-acc-megatron}
launch=${LAUNCH:-$acc}
resources=()
for path in ${RESOURCES:-}; do resources+=(--resources "$path"); done
fill=()
for target in ${FILL:-}; do fill+=(--fill-tokens "$target"); done

# the options of compile for an arm
options() {
    case $1 in
        acc) ;;
        no-distractors) echo --no-distractors ;;
        no-shuffle) echo --no-shuffle ;;
        search-only) echo --agent search ;;
        swe-only) echo --agent swe ;;
        sql-only) echo --agent sql ;;
        masked-30) echo --mask-observations 0.3 ;;
        agent-sft) echo --arm agent-sft ;;
        *)
            echo "error: unknown arm $1; known: acc no-distractors no-shuffle search-only swe-only sql-only masked-30 agent-sft" >&2
            exit 2
            ;;
    esac
}

mkdir -p "$out"
for arm in ${ARMS:-acc no-distractors no-shuffle search-only swe-only sql-only masked-30 agent-sft}; do
    chosen=$(options "$arm")
    read -ra arm_options <<<"$chosen"
    [ "$arm" = no-distractors ] || arm_options+=(${fill[@]+"${fill[@]}"})
    folder=$out/$arm
    if [ ! -f "$folder/dataset/manifest.json" ]; then
        $acc compile "$trajectories" --out "$folder/triples" --budget-tokens "$budget" --seed "$seed" \
            ${resources[@]+"${resources[@]}"} ${arm_options[@]+"${arm_options[@]}"} >&2
        triples=$folder/triples
        if [ -n "${TEACHER_ENDPOINT:-}" ] && [ "$arm" != agent-sft ]; then
            triples=$folder/reasoned
            $acc reason "$folder/triples" --out "$triples" --endpoint "$TEACHER_ENDPOINT" --model "$TEACHER_MODEL" \
                --resources "$trajectories" ${resources[@]+"${resources[@]}"} \
                --budget-tokens "$budget" --cache "$out/teacher.sqlite" >&2
        fi
        $acc convert "$triples" --out "$folder/dataset" --max-tokens "$budget" >&2
    fi
    if [ -n "$recipe" ]; then
        $launch train "$recipe" "data.path=$folder/dataset" "train.run_dir=$folder/run" "train.seed=$seed" >&2
        $acc export "$folder/run" --out "$folder/export" >&2
        $acc eval "$folder/export" --out "$folder/eval" --seed "$seed" >&2
    fi
    echo "$arm $folder"
done
