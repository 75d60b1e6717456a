"""Atoll to PEFT and PEFT to Atoll, for each family: the same outputs to 1e-5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from atoll.adapters.site import Frame
from atoll.artifacts.export import export_adapter
from atoll.errors import AtollError
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.runs.run import run_experiment
from atoll.runs.where import Observer
from atoll.trained.load_run import load_run
from tests.support.gallery import Gallery
from tests.support.models import Zoo
from tests.support.scenes import SUMMARY, largest, scene
from tests.unit.tasks.test_tasks_vision import scene as seen_scene

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning"),
]

CLOSE = 1e-5
CAUSAL, CLASSES = "AutoModelForCausalLM", "AutoModelForSequenceClassification"


@dataclass(frozen=True)
class Family:
    """Its Auto class, two targets that PEFT is told, one of the feed-forward part, and its head."""

    kind: str
    auto_class: str
    targets: tuple[str, str]
    head: str | None = None
    task_type: str | None = None


FAMILIES = {
    "llama": Family("llama", CAUSAL, ("q_proj", "down_proj"), task_type="CAUSAL_LM"),
    "gpt2": Family("gpt2", CAUSAL, ("c_attn", "mlp.c_proj"), task_type="CAUSAL_LM"),
    "bert": Family("bert-with-pooler", CLASSES, ("value", "output.dense"), "classifier", "SEQ_CLS"),
    "vit": Family("vit", "AutoModelForImageClassification", ("v_proj", "fc2"), "classifier"),
    "clip": Family("clip", "AutoModel", ("v_proj", "fc2")),
}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4, "lora_alpha": 6},
    "patterns": {"r": 3, "lora_alpha": 5, "use_rslora": True, "rank_pattern": 2,
                 "alpha_pattern": 9.0},
    "layers": {"r": 2, "lora_alpha": 3, "layers_to_transform": [1], "lora_dropout": 0.1},
    "ia3": {"method": "ia3"},
}  # fmt: skip


def settings(family: Family, method: str) -> dict[str, Any]:
    """The adapter's section; patterns are about the first and the second target."""
    section = dict(METHODS[method])
    for key, target in zip(("rank_pattern", "alpha_pattern"), family.targets, strict=True):
        if key in section:
            section[key] = {target.replace(".", r"\."): section[key]}
    if method == "ia3":
        section["feedforward_modules"] = [family.targets[1]]
    head = {} if family.head is None else {"head": "train"}
    return {"target_modules": list(family.targets), **head, **section}


def ready(folder: Path, zoo: Zoo, gallery: Gallery, family: Family, **adapter: Any) -> Setup:
    """An experiment of one round and two steps."""
    sections: dict[str, Mapping[str, Any]] = {
        "adapter": adapter,
        "train": {"learning_rate": 0.05, "max_steps": 2, "prefix_cache": "off"},
        "federation": {"num_rounds": 1},
        "evaluate": {"baselines": []},
    }
    if family.kind in ("vit", "clip"):
        task = "image-classification" if family.head else "embedding"
        return seen_scene(folder, {"name_or_path": gallery(family.kind), "task": task}, **sections)
    own = {} if family.head is None else {"name_or_path": zoo(family.kind), "pooling": "model"}
    return scene(folder, zoo, "bert" if own else family.kind, model=own, **sections)


def inputs_for(setup: Setup) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(7)
    inputs = {}
    if setup.base.tokenizer is not None:
        mask = torch.ones(3, 12, dtype=torch.long)
        mask[1, 5:] = 0
        ids = torch.randint(4, 30, (3, 12), generator=draw)
        # CLIP reads a text at its end.
        ids[:, 4] = ids[:, 11] = setup.base.tokenizer.eos_token_id or 3
        inputs |= {"input_ids": ids, "attention_mask": mask}
    if setup.base.processor is not None:
        inputs["pixel_values"] = torch.randn(3, 3, 16, 16, generator=draw)
    return inputs


def ours(setup: Setup, values: Mapping[str, Tensor]) -> Tensor:
    """What Atoll's stacked model makes of the inputs."""
    stacked = {name: value.unsqueeze(0) for name, value in values.items()}
    with torch.inference_mode():
        return setup.bench.model.forward(stacked, inputs_for(setup), Frame(1))


def theirs(model: Any, setup: Setup) -> Tensor:
    """What the Auto class makes of them; CLIP's vectors, an image's and a text's in turn."""
    inputs = inputs_for(setup)
    with torch.inference_mode():
        if setup.base.auto_class != "AutoModel":
            return model(**inputs).logits
        seen = model.get_image_features(pixel_values=inputs.pop("pixel_values")).pooler_output
        read = model.get_text_features(**inputs).pooler_output
        both = torch.stack([seen, read], dim=1).flatten(0, 1)
        return torch.nn.functional.normalize(both, dim=-1)


def fresh(setup: Setup, family: Family) -> Any:
    """The base model, loaded by transformers alone."""
    labels = {} if family.head is None else {"num_labels": len(setup.data.labels or ())}
    if family.kind == "vit":
        labels["ignore_mismatched_sizes"] = True
    auto = getattr(transformers, family.auto_class)
    return auto.from_pretrained(setup.base.source.path, **labels).eval()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_trained_by_atoll_and_loaded_by_peft(
    name: str, method: str, tmp_path: Path, zoo: Zoo, gallery: Gallery
) -> None:
    family = FAMILIES[name]
    setup = ready(tmp_path, zoo, gallery, family, **settings(family, method))
    assert setup.base.auto_class == family.auto_class
    untrained = ours(setup, model_values(setup.start.server))
    run_experiment(setup, tmp_path / "run", Observer())
    trained = load_run(tmp_path / "run", note=lambda text: None)
    said = ours(trained.setup, trained.values)
    model = PeftModel.from_pretrained(fresh(setup, family), tmp_path / "run" / "adapter").eval()
    close = CLOSE * max(1.0, float(said.abs().max()))
    assert largest(theirs(model, setup), said) < close
    assert largest(untrained, said) > 100 * close


def by_peft(setup: Setup, family: Family, method: str, folder: Path) -> Any:
    """An adapter that PEFT makes from its own settings, stirred and saved."""
    given = settings(family, method)
    given.pop("head", None)
    kind = IA3Config if given.pop("method", "lora") == "ia3" else LoraConfig
    saved = None if family.head is None else [family.head]
    config = kind(task_type=family.task_type, modules_to_save=saved, **given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = get_peft_model(fresh(setup, family), config).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_made_by_peft_and_gone_on_from_by_atoll(
    name: str, method: str, tmp_path: Path, zoo: Zoo, gallery: Gallery
) -> None:
    family = FAMILIES[name]
    asked = settings(family, method)
    plain = ready(tmp_path / "a", zoo, gallery, family, **asked)
    model = by_peft(plain, family, method, tmp_path / "theirs")
    asked["name_or_path"] = str(tmp_path / "theirs")
    setup = ready(tmp_path / "b", zoo, gallery, family, **asked)
    said = ours(setup, model_values(setup.start.server))
    assert largest(theirs(model, setup), said) < CLOSE * max(1.0, float(said.abs().max()))
    # And back, unchanged.
    export_adapter(setup, setup.start.server, tmp_path / "back", SUMMARY)
    held, back = (
        load_file(tmp_path / place / "adapter_model.safetensors") for place in ("theirs", "back")
    )
    torch.testing.assert_close(back, held, rtol=0, atol=0)


@pytest.fixture(scope="module")
def adapter(zoo: Zoo, gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of BERT's by Atoll: of PEFT's layout, with a head for the labels of the scene."""
    folder = tmp_path_factory.mktemp("adapter")
    setup = ready(folder, zoo, gallery, FAMILIES["bert"], r=2, head="train")
    export_adapter(setup, setup.start.server, folder / "adapter", SUMMARY)
    return folder / "adapter"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "scale": ({"r": 3, "lora_alpha": 8},
              "has r: 2, lora_alpha: 16.0, and this experiment r: 3, lora_alpha: 8.0: the values "
              "would mean something else; set what the former says under adapter"),
    "method": ({"method": "ia3"}, 'has peft_type: "LORA", and this experiment peft_type: "IA3"'),
    "no PEFT": ({"method": "bottleneck"}, "holds LORA of PEFT, and adapter.method is bottleneck"),
    "targets": ({"r": 2, "target_modules": ["query"]}, "dense.lora_A.weight, which has no place"),
    "nowhere": ({"name_or_path": "nowhere"}, "adapter.name_or_path is nowhere, which holds no ad"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_an_adapter_that_does_not_fit_is_refused(
    name: str, adapter: Path, tmp_path: Path, zoo: Zoo, gallery: Gallery
) -> None:
    given, words = BAD[name]
    asked = {"name_or_path": str(adapter), "head": "train", **given}
    with pytest.raises(AtollError) as caught:
        ready(tmp_path, zoo, gallery, FAMILIES["bert"], **asked)
    assert words in str(caught.value)


@pytest.mark.parametrize("what", ["base", "labels", "file", "values"])
def test_an_adapter_from_elsewhere_is_refused(
    what: str, adapter: Path, tmp_path: Path, zoo: Zoo, gallery: Gallery
) -> None:
    place = tmp_path / "adapter"
    place.mkdir()
    for file in adapter.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    family, words = FAMILIES["bert"], ""
    if what == "base":
        # Another family names its layers otherwise.
        family, words = FAMILIES["llama"], "holds no model.layers.0.self_attn.q_proj.lora_A.weight"
    elif what == "labels":
        facts = json.loads((place / "atoll.json").read_text())
        (place / "atoll.json").write_text(json.dumps({**facts, "labels": ["a", "b", "c", "d"]}))
        words = 'whose head tells apart ["a", "b", "c", "d"], and the rows here have the labels'
    elif what == "file":
        (place / "adapter_config.json").write_text("{")
        words = "adapter_config.json cannot be read"
    else:
        values = load_file(place / "adapter_model.safetensors")
        name = next(name for name in values if "lora_A" in name)
        values[name] = values[name][:, :3].clone()
        save_file(values, place / "adapter_model.safetensors")
        words = "is (2, 3), but"
    head = {} if family.head is None else {"head": "train"}
    with pytest.raises(AtollError) as caught:
        ready(tmp_path, zoo, gallery, family, r=2, name_or_path=str(place), **head)
    assert words in str(caught.value)
    assert ("what is in the folder was trained on " in str(caught.value)) == (what == "base")
