"""The job files of ``examples`` do what they say, with stand-ins for the commands of SLURM."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from medpixcl.cli import app
from medpixcl.data.phantoms import write_landmark_phantoms
from tests.tiny import (
    PRETRAINING,
    ROOT,
    TRAINING,
    assert_identical,
    checkpoint,
    edited_bundle,
    environment,
    write_manifest,
)

EXAMPLES = ROOT / "examples"
SRUN = """#!/usr/bin/env bash
# Starts a command SLURM_NTASKS times, hands SIGUSR1 on as SLURM does, and ends with the greatest status.
trap 'kill -USR1 "${tasks[@]}"' USR1
for ((rank = 0; rank < SLURM_NTASKS; rank++)); do SLURM_PROCID=$rank "$@" & tasks+=($!); done
greatest=0
for task in "${tasks[@]}"; do
    while true; do
        wait "$task"; status=$?
        kill -0 "$task" 2> /dev/null || break
    done
    ((status > greatest)) && greatest=$status
done
exit "$greatest"
"""
SCONTROL = """#!/usr/bin/env bash
echo "$@" >> "$SCONTROL_LOG"
"""


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, str]:
    """Environment in which ``srun``, ``scontrol``, ``python`` and ``medpixcl`` are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    texts = {
        "srun": SRUN,
        "scontrol": SCONTROL,
        "python": f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} "$@"\n',
        "medpixcl": f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} -m medpixcl "$@"\n',
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return environment() | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "SCONTROL_LOG": str(tmp_path / "scontrol.log")}


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, "too slow"
        time.sleep(0.05)


@contextmanager
def started(words: list[str], env: dict[str, str], cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        words, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return str(one.getsockname()[1])


def children_of(pid: int) -> list[tuple[int, str]]:
    """All processes below one, with their command lines."""
    found, waiting = [], [pid]
    parents = {int(one.parent.name): one.read_text() for one in Path("/proc").glob("[0-9]*/stat") if one.exists()}
    while waiting:
        above = waiting.pop()
        for child, stat in parents.items():
            if int(stat.rpartition(")")[2].split()[1]) == above:
                waiting.append(child)
                words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((child, words))
    return found


def ranks_of(launcher: subprocess.Popen[str]) -> list[int]:
    """Processes that train, in the order of their start."""
    return sorted(pid for pid, line in children_of(launcher.pid) if "monai.bundle" in line)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    return edited_bundle(PRETRAINING, folder, "train", **{**TRAINING, "max_epochs": 6, "start_weights": None})


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("phantoms"), number=10)


def torchrun(bundle: Path, manifest: Path, output: Path, *more: str) -> list[str]:
    files = "['configs/train.json','configs/multi_gpu_train.json']"
    run = ["-m", "monai.bundle", "run", "--config_file", files, "--data_list_file_path", str(manifest)]
    return [sys.executable, "-m", "torch.distributed.run", *more, *run, "--output_dir", str(output)]


@pytest.fixture(scope="module")
def undisturbed(bundle: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two processes on one machine."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    words = torchrun(bundle, manifest, output, "--standalone", "--nproc_per_node=2")
    done = subprocess.run(words, env=environment(), cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


@pytest.mark.slow
def test_a_job_of_several_nodes_is_queued_again(
    bundle: Path, manifest: Path, undisturbed: Path, tmp_path: Path, commands: dict[str, str]
) -> None:
    """SIGUSR1 in the middle: the state is saved, the job queued; the second job ends like an undisturbed training."""
    output = tmp_path / "run"
    env = commands | {
        "BUNDLE": str(bundle), "MANIFEST": str(manifest), "OUTPUT": str(output), "MASTER_ADDR": "localhost",
        "SLURM_NTASKS": "2", "SLURM_JOB_ID": "17", "SLURM_LOCALID": "0",
    }  # fmt: skip
    words = ["bash", str(EXAMPLES / "pretrain_nodes.sbatch")]
    with started(words, env | {"MASTER_PORT": free_port()}) as job:
        wait_for((output / "resume.pt").exists, job)
        (srun,) = [pid for pid, line in children_of(job.pid) if "bin/srun" in line and "sbatch" not in line][:1]
        os.kill(srun, signal.SIGUSR1)
        said = job.communicate(timeout=300)[0]
    assert job.returncode == 0, said[-3000:]
    assert "stopped by SIGUSR1" in said
    assert (tmp_path / "scontrol.log").read_text() == "requeue 17\n"
    assert 1 <= checkpoint(output)["epoch"] < 6
    done = subprocess.run(
        words, env=env | {"MASTER_PORT": free_port()}, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "scontrol.log").read_text() == "requeue 17\n", "a job that is done is not queued"
    assert_identical(checkpoint(output), checkpoint(undisturbed))


@pytest.mark.slow
def test_two_nodes_train_like_one(bundle: Path, manifest: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Two launchers on this machine, which find each other over a port."""
    output = tmp_path / "run"
    places = ["--nnodes=2", "--nproc_per_node=1", "--max-restarts=0", "--rdzv_backend=c10d", "--rdzv_id=test"]
    words = torchrun(bundle, manifest, output, *places, f"--rdzv_endpoint=localhost:{free_port()}")
    env = environment() | {"CUDA_VISIBLE_DEVICES": ""}
    with started(words, env, bundle) as first, started(words, env, bundle) as second:
        said = [node.communicate(timeout=300)[0] for node in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said[0][-2000:] + said[1][-2000:]
    assert_identical(checkpoint(output), checkpoint(undisturbed))


@pytest.mark.slow
def test_a_killed_process_starts_all_anew(bundle: Path, manifest: Path, undisturbed: Path, tmp_path: Path) -> None:
    """One of two processes is killed in the middle; both begin again from the last state that was saved."""
    output = tmp_path / "run"
    words = torchrun(bundle, manifest, output, "--standalone", "--nproc_per_node=2", "--max-restarts=3")
    env = environment() | {"CUDA_VISIBLE_DEVICES": "", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with started(words, env, bundle) as launcher:
        wait_for((output / "resume.pt").exists, launcher)
        os.kill(ranks_of(launcher)[1], signal.SIGKILL)
        said = launcher.communicate(timeout=300)[0]
    assert launcher.returncode == 0, said[-3000:]
    assert_identical(checkpoint(output), checkpoint(undisturbed))


@pytest.mark.slow
def test_a_killed_process_ends_the_others(bundle: Path, manifest: Path, tmp_path: Path) -> None:
    """Without restarts: the other process is ended, not left waiting, and the output names the one that was killed."""
    output = tmp_path / "run"
    words = torchrun(bundle, manifest, output, "--standalone", "--nproc_per_node=2")
    with started(words, environment() | {"CUDA_VISIBLE_DEVICES": ""}, bundle) as launcher:
        wait_for((output / "resume.pt").exists, launcher)
        ranks = ranks_of(launcher)
        os.kill(ranks[1], signal.SIGKILL)
        said = launcher.communicate(timeout=120)[0]
    assert launcher.returncode != 0
    assert re.search(rf"exitcode *: -9 \(pid: {ranks[1]}\)", said)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks)


@pytest.mark.slow
def test_a_job_array_searches_parts(tmp_path: Path, commands: dict[str, str]) -> None:
    write_landmark_phantoms(tmp_path / "images", 4, (64, 56))
    env = commands | {
        "TEMPLATE": str(tmp_path / "images" / "phantom_000.png"), "IMAGES": str(tmp_path / "images"),
        "LANDMARKS": str(tmp_path / "images" / "landmarks.csv"), "OUTPUT": str(tmp_path / "found"), "PARTS": "2",
    }  # fmt: skip
    manifest = tmp_path / "images.json"
    subprocess.run(["medpixcl", "scan", env["IMAGES"], "-o", manifest, "--spacing-mm", "1"], env=commands, check=True)
    (tmp_path / "images" / "phantom_002.png").write_bytes(b"damaged")
    env["IMAGES"] = str(manifest)
    for task in ({"SLURM_ARRAY_TASK_ID": "0"}, {"SLURM_ARRAY_TASK_ID": "1"}, {}):
        words = ["bash", str(EXAMPLES / "match_array.sbatch"), "--format", "csv"]
        subprocess.run(words, env=env | task, check=True)
    assert (tmp_path / "found" / "landmarks.csv").is_file()
    assert "phantom_002.png" in (tmp_path / "found" / "rejected.csv").read_text()
    assert not (tmp_path / "found" / "markups").exists(), "the option behind the script holds"
    broken = subprocess.run(
        ["bash", str(EXAMPLES / "match_array.sbatch")], env=env | {"PARTS": "0"}, capture_output=True, check=False
    )
    assert broken.returncode == 2


def test_the_kubernetes_job_gives_options_that_exist() -> None:
    job = yaml.safe_load((EXAMPLES / "match_job.yaml").read_text())
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    words = shlex.split(container["args"][0].partition("||")[0].replace("$JOB_COMPLETION_INDEX", "0"))
    assert words[0] == "medpixcl"
    context = get_command(app).commands[words[1]].make_context(words[1], words[2:])
    assert context.params["num_parts"] == spec["completions"]
    assert context.params["part_id"] == 0
