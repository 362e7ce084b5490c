"""LuciBot: robot trajectories learned from generated videos.

Importing this package starts nothing and imports nothing heavy. From Python:

    import lucibot

    done = lucibot.run("cut_dough", seed=3, settings={"optimize.search.population": 32})
    print(done.result().verdict, done.path / "report.html")
    done = lucibot.resume(done.path, again="optimize")

`run` and `resume` do what the commands do; `load_task`, `task_names` and `Task` are task folders;
`RunConfig` and `PRESETS` all settings; `RunDirectory` and `Result` what a run leaves; `embed` makes
vectors of pictures; `UserError` and `RunFailed` are the two ways in which things fail.
"""

from importlib import import_module

__version__ = "0.1.0"

_DOOR = {
    "run": "lucibot.api", "resume": "lucibot.api", "embed": "lucibot.api",
    "load_task": "lucibot.task", "task_names": "lucibot.task", "Task": "lucibot.task",
    "RunConfig": "lucibot.config", "PRESETS": "lucibot.config",
    "RunDirectory": "lucibot.store.run", "Result": "lucibot.store.result",
    "LuciBotError": "lucibot.core.errors", "UserError": "lucibot.core.errors",
    "RunFailed": "lucibot.core.errors",
}  # fmt: skip
"""Name -> the module that has it, imported when the name is asked for."""

__all__ = ["__version__", *_DOOR]


def __getattr__(name: str):
    if name not in _DOOR:
        raise AttributeError(f"module 'lucibot' has no attribute {name!r}")
    return getattr(import_module(_DOOR[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
