"""The training examples reach what they are there to show, on data they have not seen."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "training"
sys.path.insert(0, str(FOLDER))

import train  # noqa: E402  a script beside its data, not part of a package

# Bounds that a run meets with room to spare: val_accuracy and r2 from below, losses and distances from above.
GOALS = {
    "digits_mlp": {"val_accuracy": 0.96},
    "digits_resnet": {"val_accuracy": 0.98},
    "even_odd": {"val_accuracy": 0.97},
    "breast_cancer": {"val_accuracy": 0.95},
    "diabetes": {"r2": 0.45},
    "denoise": {"val_loss": -0.012},  # the noise itself: 0.09
    "signal_lstm": {"val_loss": -0.01},  # the signal's variance: 0.68; its noise: 0.0025
    "char_transformer": {
        "val_loss": -3.0
    },  # 4.8 for characters at random, 3.2 for their frequencies
    "gan": {"distance": -1.6, "different": 7},
    "diffusion": {"distance": -1.6, "different": 9},
}


def test_every_example_is_tested() -> None:
    assert set(GOALS) == set(train.EXAMPLES) == {p.stem for p in FOLDER.glob("*.nn")}


@pytest.mark.parametrize("name", GOALS)
def test_an_example_learns(name: str) -> None:
    scores = train.EXAMPLES[name](None)
    for score, goal in GOALS[name].items():
        if goal < 0:
            assert scores[score] <= -goal, scores
        else:
            assert scores[score] >= goal, scores
