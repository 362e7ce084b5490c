"""Simulation workers as Ray actors: the same shards, on as many machines as the cluster has.

Each actor holds one environment batch on one core, or on one GPU where the device is one. The task
folder must lie at the same path on every machine. Ray is imported when a cluster is asked for.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from lucibot.core.errors import LuciBotError, RunFailed, UserError
from lucibot.sim.process import ONE_THREAD

WAIT_S = 1200.0
"""How long the first worker may take to start and build; without a core or a GPU to be had it would
wait forever."""


class RayWorker:
    """A `SimProcess` elsewhere."""

    def __init__(self, actor: Any):
        self._actor = actor
        self.pending = actor.built.remote()
        """What `receive` waits for."""
        self.built = False

    @property
    def pid(self) -> int:
        import ray

        return ray.get(self._actor.pid.remote())

    @property
    def exit_code(self) -> int | None:
        return None  # Ray keeps it to itself.

    def send(self, message: Any) -> None:
        """See `SimProcess.send`."""
        self.pending = self._actor.answer.remote(message)

    def receive(self) -> Any:
        """See `SimProcess.receive`."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        try:
            answer = ray.get(self.pending)
        except RayActorError:
            return None
        except RayTaskError as e:
            if isinstance(e.cause, LuciBotError):
                raise e.cause from None
            raise RunFailed(f"a simulation worker failed:\n{e}") from None
        self.built = True
        return answer

    def close(self, *, at_once: bool = False) -> None:
        """Ends the actor; left alone, it first keeps what it has compiled."""
        import ray

        if at_once:
            ray.kill(self._actor)
        else:
            self._actor.__ray_terminate__.remote()


class RayFarm:
    """Starts workers on a Ray cluster.

    Args:
        address: of a running cluster, or "auto": the one that this machine belongs to, or else a
            cluster of this machine's own cores.
    """

    def __init__(self, address: str, *, device: str):
        ray = _connect(address)
        gpus = 0 if device == "cpu" else 1
        if gpus and not ray.cluster_resources().get("GPU"):
            raise UserError(
                f"no machine of the cluster {address!r} has a GPU; --optimize.device cpu"
            )
        self.cores = int(ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
        """Workers that can run side by side."""
        environment = {} if gpus else {"env_vars": ONE_THREAD}
        self._remote = ray.remote(
            num_cpus=1, num_gpus=gpus, max_restarts=0, runtime_env=environment
        )(_Simulation)

    def start(self, build: Callable[..., Callable[[Any], Any]], *arguments: Any) -> RayWorker:
        return RayWorker(self._remote.remote(build, arguments))

    def ready(self, workers: Sequence[RayWorker]) -> list[RayWorker]:
        """Those that have answered or died; waits for the first."""
        import ray

        pending = {w.pending: w for w in workers}
        # Whoever has started answers or dies; a rollout may take as long as it takes.
        started = any(w.built for w in workers)
        done, _ = ray.wait(list(pending), num_returns=1, timeout=None if started else WAIT_S)
        if not done:
            raise RunFailed(
                f"no simulation worker has started for {WAIT_S:.0f} s; "
                "`ray status` tells whether the cluster has cores to give"
            )
        done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0)
        return [pending[d] for d in done]


def _connect(address: str):
    try:
        import ray
    except ImportError:
        raise UserError("--cluster needs Ray: pip install 'lucibot[cluster]'") from None
    if ray.is_initialized():
        return ray
    if address != "auto":
        _knock(address)
    options = {"log_to_driver": False, "configure_logging": False, "include_dashboard": False}
    try:
        if address == "auto":
            try:
                ray.init(address="auto", log_to_driver=False, configure_logging=False)
            except ConnectionError:
                ray.init(**options)
        else:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as e:
        first = (str(e).strip() or type(e).__name__).splitlines()[0]
        raise UserError(f"--cluster {address}: no Ray cluster answers there ({first})") from None
    return ray


def _knock(address: str) -> None:
    """Ray's own client ends the process when nothing answers: find out before it is asked."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            return
    except (OSError, ValueError) as e:
        raise UserError(
            f"--cluster {address}: no Ray cluster answers there ({e}); "
            'give its host:port, or "auto"'
        ) from None


class _Simulation:
    """The actor."""

    def __init__(self, build: Callable, arguments: tuple):
        import torch

        torch.set_num_threads(1)
        self._answer = build(*arguments)

    def built(self) -> str:
        return "built"

    def answer(self, message: Any) -> Any:
        return self._answer(message)

    def pid(self) -> int:
        import os

        return os.getpid()
