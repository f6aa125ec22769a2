"""E082x: train blocks."""

from __future__ import annotations

from graphc.codes.info import CodeInfo

_MODEL = """\
    model M {
        input x: f32[N, 4]
        output y = x -> fc: Linear(3)
    }
"""


def _example(wrong: str, right: str) -> str:
    def block(body: str) -> str:
        return "".join(f"        {line}\n" for line in body.splitlines())

    return (
        f"\nWrong:\n\n{_MODEL}    train M {{\n{block(wrong)}    }}\n"
        f"\nRight:\n\n{_MODEL}    train M {{\n{block(right)}    }}\n"
    )


CODES: dict[str, CodeInfo] = {
    "E0820": CodeInfo(
        "a train block has no loss",
        "Training lowers one number, which `loss` says.\n"
        + _example("optimizer SGD(lr=0.1)", "loss mean(y * y)\noptimizer SGD(lr=0.1)"),
    ),
    "E0821": CodeInfo(
        "the loss is not one number",
        "A loss is a floating-point scalar: what belongs to single samples is averaged or summed first.\n"
        + _example("loss y * y", "loss mean(y * y)"),
    ),
    "E0822": CodeInfo(
        "no such optimizer or schedule",
        "After `optimizer` and `schedule` stands one of those that graphc knows, with its arguments in parentheses.\n"
        + _example(
            "loss mean(y * y)\noptimizer mean(x)", "loss mean(y * y)\noptimizer AdamW(lr=1e-3)"
        ),
    ),
    "E0823": CodeInfo(
        "a pattern fits no parameter",
        """`freeze` takes labels of layers and blocks, or paths of parameters, in which `*` stands for any characters.
One that fits nothing is most likely misspelt.
"""
        + _example("loss mean(y * y)\nfreeze fc2", "loss mean(y * y)\nfreeze fc"),
    ),
    "E0824": CodeInfo(
        "what is augmented is no input, or comes out different",
        """Augmentation happens to an input before the model sees it, and leaves its type as it is. It begins with the
name of an input of the model.
"""
        + _example("augment y -> relu\nloss mean(y * y)", "augment x -> relu\nloss mean(y * y)"),
    ),
    "E0825": CodeInfo(
        "a model has no train block, or two",
        """Training a model needs exactly one block `train Name { ... }` for it in its file, with a loss and an
optimizer. A model without one can still be trained from Python, by an output of its own:
`Trainer(model, loss="y", rule=...)`.
""",
    ),
}
