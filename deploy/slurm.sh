#!/bin/bash
# GRPO on two nodes of 8 GPUs under Slurm: sbatch deploy/slurm.sh [KEY=VALUE]...
# 8 learner ranks on the first node; 6 rollout engines and the judge (2 GPUs) on the last. docs/cluster.md explains it.
# The repository, its .venv, $SHARED and the home folder are on disks that every node sees.
#SBATCH --job-name=owlcap
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@900
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=owlcap-%j.log
set -euo pipefail

SHARED=${SHARED:-/shared}
CONFIG=${CONFIG:-qwen2_5_vl_7b_grpo_multinode}
NAME=${NAME:-$(basename "$CONFIG" .yaml)} # the run's folder is $SHARED/runs/$NAME
JUDGE=${JUDGE:-$SHARED/models/Qwen3-32B}
RAY_PORT=${RAY_PORT:-6379}
JUDGE_PORT=${JUDGE_PORT:-8000}
READY_DEADLINE_S=${READY_DEADLINE_S:-1800}
ROLLOUT_GPUS=0,1,2,3,4,5
JUDGE_GPUS=6,7

cd "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"
export PATH="$PWD/.venv/bin:$PATH"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
ray get-auth-token --generate > /dev/null # kept in the home folder, which every node sees

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]} last=${nodes[-1]}
start_on() { # NODE COMMAND...
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" "${@:2}" &
}

start_on "$head" ray start --head --port="$RAY_PORT" --metrics-export-port=8080 --block
for node in "${nodes[@]:1}"; do
    gpus=0,1,2,3,4,5,6,7
    [[ $node == "$last" ]] && gpus=$ROLLOUT_GPUS
    start_on "$node" env CUDA_VISIBLE_DEVICES=$gpus \
        ray start --address="$head:$RAY_PORT" --metrics-export-port=8080 --block
done
start_on "$last" env CUDA_VISIBLE_DEVICES=$JUDGE_GPUS vllm serve "$JUDGE" --served-model-name Qwen/Qwen3-32B \
    --tensor-parallel-size 2 --port "$JUDGE_PORT"

export RAY_ADDRESS="$head:$RAY_PORT"
timeout "$READY_DEADLINE_S" python tools/wait_for_nodes.py "${#nodes[@]}"
timeout "$READY_DEADLINE_S" bash -c "until curl --silent --fail http://$last:$JUDGE_PORT/health; do sleep 1; done"

# Slurm tells this script alone, 15 minutes before the end. The driver writes a checkpoint and exits with 143.
driver=
trap '[[ -z $driver ]] || kill -TERM "$driver" 2> /dev/null || true' TERM

resume=()
compgen -G "$SHARED/runs/$NAME/checkpoints/step-*" > /dev/null && resume=(--resume)
owlcap rl "$CONFIG" \
    name="$NAME" run_dir="$SHARED/runs" \
    data.train="$SHARED/data/hmd/grpo_2000.jsonl" \
    data.validation="$SHARED/data/hmd/validation.jsonl" \
    evaluation.data="$SHARED/data/hmd/validation.jsonl" \
    cluster.num_nodes=2 cluster.learner_ranks=8 cluster.rollout_workers=6 \
    rewards.judge.base_urls="[http://$last:$JUDGE_PORT/v1]" \
    "$@" "${resume[@]}" &
driver=$!

code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2> /dev/null; do # the signal cut the wait short
    code=0
    wait "$driver" || code=$?
done
if [[ $code == 143 ]]; then
    scontrol requeue "$SLURM_JOB_ID" # and goes on with --resume
fi
exit "$code"
