"""``wmdd-tui slurm``: a batch script that runs a configuration on a cluster, survives pre-emption, and goes on."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from engine import config, rundir
from engine.config import RunConfig
from engine.errors import ConfigError, RunDirError
from engine.rundir import RunDir
from wmdd_tui.cli import options

Nodes = Annotated[int, typer.Option("--nodes", min=1, help="Hosts of the job.")]
Gpus = Annotated[int, typer.Option("--gpus-per-node", min=0, help="GPUs, and ranks, of each host; 0 for the CPU.")]
Cpus = Annotated[int, typer.Option("--cpus-per-gpu", min=1, help="CPU cores for each rank: they decode images.")]
Hours = Annotated[str, typer.Option("--time", metavar="H:M:S", help="Time limit of each attempt.")]
Partition = Annotated[str, typer.Option(help="Partition; the cluster's own choice when left out.")]
Account = Annotated[str, typer.Option(help="Account that pays; your own when left out.")]
Grace = Annotated[int, typer.Option(min=10, help="Seconds before the time limit at which the run is checkpointed.")]
Port = Annotated[int, typer.Option(min=1024, max=65535, help="Port on the first host at which ranks meet.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the script here; else it is printed.")]

TIME_PATTERN = r"(\d+-)?\d+(:\d{1,2}){0,2}"
NAME_PATTERN = r"[\w.@+-]*"
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={job}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task={cores}
{gpus}#SBATCH --time={time}
{more}#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={folder}/slurm-%j.out
# Slurm tells this script alone, {grace} s before the time limit, or when it pre-empts the job, where it gives notice.
#SBATCH --signal=B:USR1@{grace}

# The run: {run_id}. Watch it from any host that sees its folder: wmdd-tui attach {run_id}
export WMDD_HOME={home}
export OMP_NUM_THREADS={threads}
run={folder}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# torchrun passes no SIGUSR1 on, and gives SIGTERM half a minute. So a request is dropped where the first rank looks for
# one: every rank then ends with a checkpoint at its iteration, and the job is queued again, to go on from there.
asked=
ask_to_stop() {{
    asked=yes
    mkdir -p "$run/control" && : > "$run/control/.stop.$$" && mv "$run/control/.stop.$$" "$run/control/stop"
}}
trap ask_to_stop USR1 TERM

srun --kill-on-bad-exit=0 {python} -m torch.distributed.run \\
    --nnodes={nodes} --nproc-per-node={ranks} --max-restarts=3 \\
    --rdzv-backend=c10d --rdzv-endpoint="$head:{port}" --rdzv-id="$SLURM_JOB_ID-${{SLURM_RESTART_COUNT:-0}}" \\
    -m engine "$run" &
work=$!
# A signal ends the wait, not the work.
wait "$work"
code=$?
while kill -0 "$work" 2>/dev/null; do
    wait "$work"
    code=$?
done
if [ -n "$asked" ] && ! grep -q '"status":"finished"' <(tail -n 1 "$run/events.jsonl"); then
    rm -f "$run/control/stop"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
"""


def slurm(
    file: options.ConfigFile = None,
    preset: options.Preset = "",
    assignments: options.Assignments = None,
    name: options.Name = None,
    seed: options.Seed = None,
    ipc: options.Ipc = None,
    run_name: Annotated[str, typer.Option("--run", help="Go on with this run instead of making one.")] = "",
    nodes: Nodes = 1,
    gpus_per_node: Gpus = 1,
    cpus_per_gpu: Cpus = 8,
    time: Hours = "24:00:00",
    partition: Partition = "",
    account: Account = "",
    grace: Grace = 300,
    port: Port = 29400,
    out: Out = None,
) -> None:
    """Write a Slurm script and the run it works on: wmdd-tui slurm my.toml --nodes 2 --gpus-per-node 8 > job.sh"""
    if not re.fullmatch(TIME_PATTERN, time):
        raise ConfigError(f"--time {time} is no time limit of Slurm's", "write H:M:S, or D-H:M:S")
    for option, value in (("--partition", partition), ("--account", account)):
        if not re.fullmatch(NAME_PATTERN, value):
            raise ConfigError(f"{option} {value!r} is no name Slurm knows", "use letters, digits, and . _ @ + -")
    if run_name and (file is not None or preset or assignments):
        raise ConfigError("--run and a configuration are both given", "a run keeps the one it was made with")
    if run_name:
        found = rundir.find(run_name)
        settings = found.config()
    else:
        settings = options.resolve(file, preset, assignments, name, None, seed, ipc)
        if settings.run.devices:
            raise ConfigError(
                "run.devices is set, and Slurm says which devices a job has",
                "leave run.devices empty; --gpus-per-node says how many ranks a host has",
            )
        if gpus_per_node == 0:
            settings = config.override(settings, ['run.device="cpu"'])
        found = rundir.create(settings)
    text = script(found, settings, nodes, gpus_per_node, cpus_per_gpu, time, partition, account, grace, port)
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunDirError(f"cannot write {out}: {error.strerror}", "name another --out") from None
    print(f"{out}: submit it with `sbatch {shlex.quote(str(out))}`; run {found.id}", file=sys.stderr)


def script(
    run: RunDir,
    settings: RunConfig,
    nodes: int,
    gpus_per_node: int,
    cpus_per_gpu: int,
    time: str,
    partition: str,
    account: str,
    grace: int,
    port: int,
) -> str:
    """The batch script for a run. One task a host starts torchrun, which starts a rank for each of its GPUs."""
    ranks = max(1, gpus_per_node)
    more = [f"#SBATCH --{key}={value}\n" for key, value in (("partition", partition), ("account", account)) if value]
    return SCRIPT.format(
        job=re.sub(r"[^\w.-]+", "-", settings.name or run.id),
        nodes=nodes,
        ranks=ranks,
        cores=ranks * cpus_per_gpu,
        gpus=f"#SBATCH --gpus-per-node={gpus_per_node}\n" if gpus_per_node else "",
        time=time,
        more="".join(more),
        grace=grace,
        folder=shlex.quote(str(run.path)),
        run_id=run.id,
        home=shlex.quote(os.path.abspath(rundir.home())),
        threads=settings.run.threads,
        python=shlex.quote(sys.executable),
        port=port,
    )
