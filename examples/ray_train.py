"""Train one run in several processes that Ray places on its machines, in place of `torchrun`.

    pip install '.[train,ray]'
    python examples/ray_train.py --recipe drive --data DRIVE/ --output runs/train/drive --workers 4 --gpu

When a worker is lost, Ray starts all of them again, and they go on from the last checkpoint. All machines see the data
and the folder of the run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from etnet.config.load import load_recipe
from etnet.training.distributed import joined_processes
from etnet.training.tracking import SilentObserver
from etnet.training.trainer import train


def work(options: dict[str, Any]) -> None:
    """What each of the processes does; Ray has introduced them to each other."""
    run = Path(options["output"])
    with joined_processes() as group:
        last = run / "weights" / "last.safetensors"
        train(
            load_recipe(options["recipe"], options["overrides"]),
            data_root=Path(options["data"]),
            run=run,
            # Ray shows each process its own GPU as the first.
            device=torch.device("cuda", 0) if options["gpu"] else torch.device("cpu"),
            observer=SilentObserver(),
            resume=group.agree_on(last.exists()),
            group=group,
        )


def main(arguments: list[str] | None = None) -> None:
    """Start the processes and wait for them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpu", action="store_true", help="a GPU for each of them")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args(arguments)
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        work,
        train_loop_config={**vars(given), "data": str(given.data.resolve()), "output": str(output)},
        scaling_config=ScalingConfig(num_workers=given.workers, use_gpu=given.gpu),
        run_config=RunConfig(name="ray", storage_path=str(output), failure_config=FailureConfig(max_failures=3)),
    )
    trainer.fit()
    print(f"Results: {given.output}")


if __name__ == "__main__":
    main()
