"""How long does the quick start take, stage by stage, and how much of that is the libraries' own?

    OMP_NUM_THREADS=2 python -m benchmarks.demo_time [--older] [--busy 1]

`--older` hides all instruction sets beyond AVX2 from every library, `--busy 1` keeps a core busy
meanwhile. Runs `samespace demo`, whose lines say when a stage begins. Then runs the same networks
bare: in onnxruntime, and in the shortest loop that trains them in torch. Every call replaces the
rows of its processor and of its `--busy`. Ctrl-C keeps what was measured; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._result import RESULTS, earlier, write
from samespace_edge import instruction_set, processor_name
from tests import older_processor

COLUMNS = {
    "stage": "of `samespace demo`; `total`: from starting the process to its end",
    "processor": "its name, and the instruction sets that the libraries could use",
    "busy": "how many other processes kept a core busy all the while",
    "seconds": "of the stage",
    "stolen": "share of the cores' time that the hypervisor gave to other machines meanwhile; null "
    "where it was not measured",
    "gmacs_per_second": "10^9 multiply-accumulates a second, a backward pass counted as two "
    "forward passes; null where no network runs",
    "raw": "the same of the same network bare: in onnxruntime, or in a torch loop of forward pass, "
    "backward pass and AdamW step on one batch; the best of three short runs",
}
ROOT = Path(__file__).parent.parent
_MAIN = "from samespace.cli import main; main()"


def stage_macs(inductive: bool) -> dict[str, tuple[float, str, str, int, int]]:
    """By stage: multiply-accumulates in all, `frozen` or `train`, backbone, input size, batch."""
    from samespace_cloud.backbones import backbone_spec, cost
    from samespace_cloud.demo import quickstart
    from samespace_cloud.recipes import demo_recipe

    data, recipe = quickstart(), demo_recipe()
    train = len(data.train)
    taught = train + (0 if inductive else len(data.gallery))
    searched = len(data.queries) + len(data.gallery)
    cloud, edge, alone = recipe.cloud, recipe.edge, recipe.alone

    def steps(config: Any, pictures: int) -> tuple[float, str, str, int, int]:
        size, batch = config.model.input_size, config.batch_size
        seen = config.epochs * (pictures // batch) * batch
        macs = 3.0 * seen * cost(backbone_spec(config.model.backbone), size).macs
        return macs, "train", config.model.backbone, size, batch

    def once(config: Any, size: int, pictures: int) -> tuple[float, str, str, int, int]:
        macs = float(pictures * cost(backbone_spec(config.model.backbone), size).macs)
        return macs, "frozen", config.model.backbone, size, 16

    small = edge.model.input_size
    # Three views of the train pictures were embedded when the head was fitted.
    views = edge.views * taught - 3 * train
    return {
        "start the classifier: cloud": once(cloud, cloud.model.input_size, train),
        "train cloud": steps(cloud, train),
        "fit the head: cloud": once(cloud, recipe.cloud_size, 3 * train),
        "start the classifier: edge-alone": once(alone, small, train),
        "train edge-alone": steps(alone, train),
        "fit the head: edge-alone": once(alone, small, 3 * train),
        "views of the cloud model": once(cloud, recipe.cloud_size, views),
        "start the head": once(edge, small, 2 * train),
        "train edge": steps(edge, taught),
        "embed with cloud": once(cloud, recipe.cloud_size, searched),
        "embed with edge": once(edge, small, searched),
        "embed with edge-alone": once(edge, small, searched),
    }


def run(out: Path, inductive: bool, environment: dict[str, str]) -> dict[str, list[float]]:
    """Seconds by stage, and the processor seconds stolen from it: this and earlier calls' together.

    Raises `KeyboardInterrupt` where the command does.
    """
    note = out / "times.json"
    found: dict[str, list[float]] = json.loads(note.read_text()) if note.exists() else {}
    command = [sys.executable, "-c", _MAIN, "demo", "--json", "--out", str(out)]
    command += ["--inductive"] if inductive else []
    stage, whose, started = "start and data", "cloud", _clocks()
    begun = started
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    assert process.stdout is not None

    def over(stage: str, started: list[float]) -> None:
        before = found.get(stage, [0.0, 0.0])
        found[stage] = [b + now - s for b, now, s in zip(before, _clocks(), started, strict=True)]

    try:
        for line in process.stderr:
            if " … " not in line:
                continue
            over(stage, started)
            name, started = line.split(" … ")[0], _clocks()
            whose = {"train cloud": "cloud", "fit the head: cloud": "edge-alone"}.get(stage, whose)
            stage = f"{name}: {whose}" if name in ("start the classifier", "fit the head") else name
        process.stdout.read()
        process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
    over(stage, started)
    over("total", begun)
    out.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(found, indent=1))
    if process.returncode:
        raise KeyboardInterrupt
    return found


def _clocks() -> list[float]:
    """Seconds on the clock, and processor seconds that the hypervisor took since the start."""
    stolen = int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK")
    return [time.monotonic(), stolen]


def processor_of(older: bool) -> tuple[str, dict[str, str]]:
    """What the processor is called, and the environment in which it is that."""
    sets = instruction_set().split()
    if not older:
        return f"{processor_name()}: {' '.join(sets)}", dict(os.environ)
    variables = older_processor.environment()
    if isinstance(variables, str):
        raise SystemExit(variables)
    hidden = ", ".join(s for s in sets[1:] if s != "AVX2")
    name = f"{processor_name()}, {hidden} hidden: {sets[0]} AVX2"
    return name, {**os.environ, **variables}


@contextmanager
def others_work(name: str) -> Iterator[list[str]]:
    """Say afterwards how many cores the processes of others kept busy on average."""
    said: list[str] = []
    before, begun = _others_seconds(), time.monotonic()
    yield said
    cores = max(0.0, _others_seconds() - before) / (time.monotonic() - begun)
    own = ", the busy process included" if name.endswith("1") else ""
    said.append(f"{name}: other work took {cores:.1f} of {os.cpu_count()} cores{own}.")


def _others_seconds() -> float:
    """Processor seconds since the machine started, without those of our finished children and those
    that the hypervisor took."""
    user, nice, system, _, _, *more = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    all_of_them = (user + nice + system + sum(more[:2])) / os.sysconf("SC_CLK_TCK")
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return all_of_them - own.ru_utime - own.ru_stime


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never rest, meanwhile."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def bare(kind: str, backbone: str, size: int, batch: int) -> float:
    """Seconds for a picture, at best."""
    import numpy as np
    import torch

    from samespace_cloud.model import EmbeddingModel, ModelConfig
    from samespace_cloud.pretrained import MEAN, STD
    from samespace_edge._runtimes import INPUT, OUTPUT
    from samespace_export._convert import Converter

    model = EmbeddingModel(ModelConfig(backbone, size))
    if kind == "frozen":
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        content = Converter(model.eval(), MEAN, STD, size, size).onnx
        session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        pixels = np.zeros((batch, size, size, 3), np.uint8)
        return best(lambda: session.run([OUTPUT], {INPUT: pixels}), 20) / batch
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(images).square().sum().backward()
        optimizer.step()

    return best(step, 4) / batch


def best(job: Any, times: int) -> float:
    """Seconds of a job, the least of three means."""
    job()
    means = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(times):
            job()
        means.append((time.perf_counter() - begun) / times)
    return min(means)


def raw(environment: dict[str, str], inductive: bool) -> dict[str, float]:
    """10^9 multiply-accumulates a second of every stage's network bare, in a fresh process each."""
    from samespace_cloud.backbones import backbone_spec, cost

    kinds = {stage: row[1:] for stage, row in stage_macs(inductive).items()}
    found = {}
    for row in dict.fromkeys(kinds.values()):
        command = [sys.executable, "-m", "benchmarks.demo_time", "--bare", *map(str, row)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=environment, cwd=ROOT
        )
        macs = cost(backbone_spec(row[1]), row[2]).macs * (3 if row[0] == "train" else 1)
        found[row] = macs / 1e9 / float(done.stdout)
    return {stage: found[row] for stage, row in kinds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=0, help="processes that never rest meanwhile")
    parser.add_argument("--older", action="store_true", help="hide what is newer than AVX2")
    parser.add_argument("--inductive", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--bare", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        kind, backbone, size, batch = options.bare
        print(bare(kind, backbone, int(size), int(batch)))
        return
    processor, environment = processor_of(options.older)
    name = f"demo-time-{'older' if options.older else 'native'}-{options.busy}"
    with busy(options.busy):
        with others_work(name) as other_work:
            seconds = run(options.out / name, options.inductive, environment)
        fastest = raw(environment, options.inductive)
    macs = stage_macs(options.inductive)
    rows = [
        {
            "stage": stage,
            "processor": processor,
            "busy": options.busy,
            "seconds": round(taken, 1),
            "stolen": round(stolen / (os.cpu_count() or 1) / taken, 3) if taken else None,
            "gmacs_per_second": macs[stage][0] / 1e9 / taken if stage in macs else None,
            "raw": fastest.get(stage),
        }
        for stage, (taken, stolen) in seconds.items()
    ]
    kept = [
        r for r in earlier("demo_time") if (r["processor"], r["busy"]) != (processor, options.busy)
    ]
    path = RESULTS / "demo_time.json"
    notes = json.loads(path.read_text())["notes"] if path.exists() else []
    notes = [n for n in notes if not n.startswith(f"{name}: ")]
    write("demo_time", COLUMNS, [*kept, *rows], notes=[*notes, *other_work])


if __name__ == "__main__":
    main()
