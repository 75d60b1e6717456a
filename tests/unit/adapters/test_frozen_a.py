"""LoRA whose A stays as it was drawn: against PEFT with A frozen, and in a run's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel

from atoll.adapters.lora import A, B
from atoll.adapters.site import Frame
from atoll.errors import ConfigError
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.tree import Tree
from tests.support.federation import Site, site, stir
from tests.support.models import Zoo
from tests.support.scenes import scene

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ADAPTER: dict[str, Any] = {"r": 4, "target_modules": r".*\.(query|value)", "freeze_a": True}


def test_gradients_are_those_of_lora_with_its_a_held(zoo: Zoo) -> None:
    held = site(zoo, "bert", adapter=ADAPTER)
    both = site(zoo, "bert", adapter={**ADAPTER, "freeze_a": False})
    fixed = {n: v.double() for each in held.built.model.sites for n, v in each.fixed.items()}
    assert {name.removesuffix(A) for name in fixed} == {
        name.removesuffix(B) for name in held.values if name.endswith(B)
    }
    assert not any(name.endswith(A) for name in held.values)
    start = stir(held.values, 3)
    inputs = {"input_ids": torch.randint(4, 30, (4, 9)), "attention_mask": torch.ones(4, 9).long()}
    found = [_gradients(one, tree, inputs) for one, tree in ((held, start), (both, fixed | start))]
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
    assert any(bool(found[1][name].any()) for name in fixed)


def _gradients(place: Site, tree: Tree, inputs: Tree) -> Tree:
    leaves = {name: value[None].clone().requires_grad_() for name, value in tree.items()}
    logits = place.built.model.forward(leaves, inputs, Frame(1, ((4, 9),)))
    logits.square().sum().backward()
    return {name: leaf.grad[0] for name, leaf in leaves.items() if leaf.grad is not None}


def test_a_run_sends_b_alone_and_peft_reads_what_it_wrote(tmp_path: Path, zoo: Zoo) -> None:
    sections: dict[str, Any] = {
        "model": {"pooling": "mean"},
        "adapter": {**ADAPTER, "head": "train"},
        "train": {"optimizer": "sgd", "learning_rate": 0.1},
        "federation": {"num_rounds": 2},
        "evaluate": {"baselines": []},
    }
    setup = scene(tmp_path, zoo, **sections)
    run_experiment(setup, tmp_path / "run", Observer())
    folder = tmp_path / "run" / "adapter"
    stored = load_file(folder / "adapter_model.safetensors")
    firsts = {name: value for name, value in stored.items() if name.endswith(A)}
    assert len(firsts) == len(stored) // 2
    # They are those of the beginning, and B has moved from zero.
    fixed = {name: v for each in setup.bench.model.sites for name, v in each.fixed.items()}
    assert sorted(map(_digest, firsts.values())) == sorted(map(_digest, fixed.values()))
    assert all(bool(value.any()) for name, value in stored.items() if name.endswith(B))
    base = AutoModel.from_pretrained(zoo("bert"))
    read = PeftModel.from_pretrained(base, str(folder))
    state = read.state_dict()
    place = next(name for name in state if name.endswith("query.lora_A.default.weight"))
    assert torch.equal(state[place], firsts[place.replace(".default", "")])


def _digest(value: torch.Tensor) -> bytes:
    return value.numpy().tobytes()


def test_it_goes_on_from_what_it_wrote_and_from_no_other_a(tmp_path: Path, zoo: Zoo) -> None:
    sections: dict[str, Any] = {
        "model": {"pooling": "mean"}, "adapter": {**ADAPTER, "head": "train"},
        "federation": {"num_rounds": 1}, "evaluate": {"baselines": []},
    }  # fmt: skip
    run_experiment(scene(tmp_path, zoo, **sections), tmp_path / "run", Observer())
    folder = str(tmp_path / "run" / "adapter")
    sections["adapter"] = {**ADAPTER, "head": "train", "name_or_path": folder}
    again = scene(tmp_path / "again", zoo, **sections)
    stored = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    values = again.start.server["adapter"]
    assert {_digest(v) for v in values.values()} <= {_digest(v) for v in stored.values()}


def test_other_methods_have_no_a(tmp_path: Path, zoo: Zoo) -> None:
    with pytest.raises(ConfigError, match=r"adapter\.freeze_a"):
        scene(tmp_path, zoo, adapter={"method": "bitfit", "freeze_a": True})
