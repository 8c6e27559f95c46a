#!/usr/bin/env bash
# The arms of the paper's ablations on the same trajectories: compile and convert each, then train, export and
# evaluate each where a recipe is given. Everything else is the same in every arm.
#
#   bash examples/ablations.sh TRAJECTORIES OUT
#   RECIPE=examples/qwen3_30b_a3b_128k_h100.toml LAUNCH="torchrun --nproc-per-node 8 -m acc_megatron" \
#       FILL="search=100000" bash examples/ablations.sh TRAJECTORIES OUT
#
# BUDGET (131072) longest document; FILL ("") targets such as "search=60000..100000", not in the arm without
# distractors; RESOURCES ("") folders and git repositories that belong to the trajectories; SEED (0);
# TEACHER_ENDPOINT and TEACHER_MODEL (none) for reasoning from a teacher; ARMS (all of them).
# An arm whose dataset is there is not made again, so a stopped run goes on where it was.
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

# arm: the flags of compile that make it
flags() {
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
            echo "error: unknown arm $1" >&2
            exit 2
            ;;
    esac
}

mkdir -p "$out"
for arm in ${ARMS:-acc no-distractors no-shuffle search-only swe-only sql-only masked-30 agent-sft}; do
    chosen=$(flags "$arm")
    read -ra arm_flags <<<"$chosen"
    [ "$arm" = no-distractors ] || arm_flags+=(${fill[@]+"${fill[@]}"})
    folder=$out/$arm
    if [ ! -f "$folder/dataset/manifest.json" ]; then
        $acc compile "$trajectories" --out "$folder/triples" --budget-tokens "$budget" --seed "$seed" \
            ${resources[@]+"${resources[@]}"} ${arm_flags[@]+"${arm_flags[@]}"} >&2
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
