"""Composable maximum-entropy reinforcement learning for robots.

    import qompose as qp

    left, bottom = qp.train("PushLeft"), qp.train("PushBottom")
    corner = qp.compose(left & bottom)
    print(qp.evaluate(corner, "PushBottomLeft").summary())

Importing the package registers its tasks with Gymnasium and does nothing else; JAX and MuJoCo start when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qompose.envs import register as _register
from qompose.types import QomposeError

if TYPE_CHECKING:
    from qompose.agents.ddpg import DDPG
    from qompose.agents.naf import NAF
    from qompose.agents.sql import SQL
    from qompose.evaluation import Evaluation, evaluate
    from qompose.explanation import Explanation, explain
    from qompose.shipped import load
    from qompose.skill.artifact import Skill
    from qompose.skill.expression import gpi, prefer
    from qompose.tasks import make_task
    from qompose.training.correct import Correction
    from qompose.training.offline import Extraction, compose
    from qompose.training.online import Training
    from qompose.training.refit import refit
    from qompose.training.reweigh import Corrections, learn_corrections
    from qompose.training.session import train
    from qompose.view.video import record

__version__ = "0.1.0"

_HOMES = {
    "DDPG": "qompose.agents.ddpg",
    "NAF": "qompose.agents.naf",
    "SQL": "qompose.agents.sql",
    "Evaluation": "qompose.evaluation",
    "evaluate": "qompose.evaluation",
    "Explanation": "qompose.explanation",
    "explain": "qompose.explanation",
    "Skill": "qompose.skill.artifact",
    "load": "qompose.shipped",
    "make_task": "qompose.tasks",
    "Correction": "qompose.training.correct",
    "Extraction": "qompose.training.offline",
    "compose": "qompose.training.offline",
    "gpi": "qompose.skill.expression",
    "prefer": "qompose.skill.expression",
    "Corrections": "qompose.training.reweigh",
    "learn_corrections": "qompose.training.reweigh",
    "Training": "qompose.training.online",
    "refit": "qompose.training.refit",
    "train": "qompose.training.session",
    "record": "qompose.view.video",
}

__all__ = [
    "DDPG", "NAF", "SQL", "Correction", "Corrections", "Evaluation", "Explanation", "Extraction", "QomposeError",
    "Skill", "Training", "compose", "evaluate", "explain", "gpi", "learn_corrections", "load", "make_task", "prefer",
    "record", "refit", "train",
]  # fmt: skip

_register()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qompose' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
