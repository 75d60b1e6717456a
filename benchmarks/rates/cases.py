"""Methods on models of three sizes: the rate in the middle of the five that are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tasks import sets
from benchmarks.tasks.models import vit_seen

__all__ = ["Case", "cases"]


@dataclass(frozen=True)
class Case:
    """A recipe with values; `data` writes what it needs into an empty folder: data.path."""

    size: str
    set: str
    method: str
    recipe: str
    data: Callable[[Path, Path], Path]
    values: tuple[str, ...]

    @property
    def name(self) -> str:
        """For the file of the result."""
        return f"{self.size}-{self.set}-{self.method}".replace(" ", "-").lower()


# A rate of the middle for each method, by size: what follows tells whether it is a good one.
TEXT = {"lora": "2.0e-3", "bottleneck": "2.0e-3", "ia3": "1.0e-2", "bitfit": "3.0e-3",
        "layers": "2.0e-4", "full": "2.0e-4"}  # fmt: skip
IMAGE = {"lora": "3.0e-3", "bottleneck": "3.0e-3", "ia3": "1.0e-2", "bitfit": "3.0e-3",
         "layers": "1.0e-3", "full": "1.0e-3"}  # fmt: skip
LANGUAGE = {"lora": "5.0e-4", "ia3": "5.0e-3", "full": "5.0e-5"}
SKEWED = "data.partition={name: dirichlet, alpha: 1.0, num_clients: 20}"
SOLVED = ("adapter.head=lda", "adapter.head_features=null")


def cases(data: Path) -> Iterator[Case]:
    """`data`: the folder of the data sets."""
    for name in ("trec", "banking77"):
        text = ("model.name_or_path=builtin:minilm", SKEWED)
        for method, rate in TEXT.items():
            values = (*text, *SOLVED, *_trains(method, rate))
            yield Case("MiniLM 22 M", name, method, "classify", _in_place(name), values)
        head = (*text, "adapter.method=none", "adapter.head=train", "adapter.head_features=null",
                "train.learning_rate=1.0e-2")  # fmt: skip
        yield Case("MiniLM 22 M", name, "head", "classify", _in_place(name), head)
    model = f"model.name_or_path={vit_seen(data)}"
    for method, rate in IMAGE.items():
        values = (model, SKEWED, *_trains(method, rate))
        yield Case("ViT 0.1 M", "digits", method, "vision", sets.digits, values)
    for method, rate in LANGUAGE.items():
        values = ("model.name_or_path=builtin:smollm2", "data.max_length=128",
                  *_trains(method, rate))  # fmt: skip
        yield Case("SmolLM2 135 M", "flan", method, "finetune", sets.instructions, values)


def _trains(method: str, rate: str) -> tuple[str, ...]:
    own = () if method == "lora" else (f"adapter.method={method}",)
    return (*own, f"train.learning_rate={rate}")


def _in_place(name: str) -> Callable[[Path, Path], Path]:
    return lambda data, folder: data / name
