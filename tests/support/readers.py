"""What a reader of each page has before the first command, and changes on the way: tiny things."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from atoll.egress.manifest import write_manifest
from atoll.flower.engine import free_port
from tests.support.departures import departure, open_record, site
from tests.support.federation import LABELS, labelled_rows, text_rows
from tests.support.federation import SIZES as OWNERS
from tests.support.finished import finish
from tests.support.images import COLOURS, save_picture
from tests.support.pages import Reader
from tests.support.task_sites import pair_rows, preference_rows
from tests.support.working import begun

if TYPE_CHECKING:
    from tests.support.gallery import Gallery
    from tests.support.models import Zoo

__all__ = ["READERS", "Models"]

SMOL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SIZES = {"ada": 7, "bob": 5, "cy": 9}
SHORT = {
    "num_rounds: 10": "num_rounds: 2", "num_rounds: 5": "num_rounds: 2",
    "num_rounds: 8": "num_rounds: 2",
    "max_length: 64": "max_length: 24", "max_length: 512": "max_length: 24",
    "head_features: 2048": "head_features: 32",
}  # fmt: skip


@dataclass(frozen=True)
class Models:
    """Folders of tiny models."""

    zoo: Zoo
    gallery: Gallery


def _write(rows: Mapping[str, Sequence[Mapping[str, Any]]], folder: str = "data") -> None:
    for client, own in rows.items():
        file = Path(folder) / client / "train.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")


def _tour(models: Models) -> Reader:
    """Labelled texts, for a federation too: rows enough for its sites, and no round of training."""
    reader = _texts(models, {"ada": 27, "bob": 24, "cy": 11})
    few = {"[cold, flu, migraine]": f"[{', '.join(LABELS)}]", ":9092": f":{free_port()}",
           **_own_model(reader.edits["builtin:minilm"]),
           "output_dir=runs/federation": "output_dir=runs/federation federation.num_rounds=0 "
           "evaluate.baselines=[]"}  # fmt: skip
    return replace(reader, typed=few)


def _texts(models: Models, sizes: Mapping[str, int] = OWNERS) -> Reader:
    """Labelled texts; the tour, too, is one of seconds."""
    _write(labelled_rows(sizes))
    encoder = models.zoo("bert-with-pooler")
    smaller = (
        f"model.name_or_path={encoder}", "data.path=data/", "data.partition=null",
        "adapter.target_modules=all-linear", "federation.clients_per_round=2",
    )  # fmt: skip
    return Reader({"builtin:minilm": encoder, **SHORT}, smaller)


def _private(models: Models) -> Reader:
    """Labelled texts, whose labels the file has to name."""
    reader = _texts(models)
    named = {"labels: [complaint, question]": f"labels: [{', '.join(LABELS)}]"}
    return replace(reader, edits={**reader.edits, **named})


def _edited_file(models: Models) -> Reader:
    """Who has taken the recipe and edited it before."""
    reader = _texts(models)
    reader.types("atoll init classify", "before")
    Path("rows.csv").write_text("body,intent\nreef,sea\nmoon,sky\n", encoding="utf-8")
    return reader


def _chats(models: Models) -> Reader:
    _write(text_rows())
    tiny = models.zoo("llama")
    return Reader({"builtin:smollm2": tiny, SMOL: tiny, **SHORT})


def _images(models: Models) -> Reader:
    for number, client in enumerate(("clinic-a", "clinic-b")):
        names = [(f"scans/{i:04}.png", sorted(COLOURS)[i % 3]) for i in range(8 + number)]
        for i, (image, colour) in enumerate(names):
            save_picture(Path("data") / client / image, colour, 50 * number + i)
        _write({client: [{"image": image, "label": colour} for image, colour in names]})
    save_picture(Path("data/clinic-a/scans/0001.png"), "red", 7)
    return Reader({"google/vit-base-patch16-224": models.gallery("vit"), **SHORT})


def _pairs(models: Models) -> Reader:
    _write(pair_rows(SIZES))
    return Reader({"builtin:minilm": models.zoo("bert-with-pooler"), **SHORT})


def _preferences(models: Models) -> Reader:
    _write(preference_rows(SIZES))
    return Reader({"builtin:smollm2": models.zoo("llama"), **SHORT})


def _finished(kind: str, name: str, **sections: Mapping[str, Any]) -> Callable[[Models], Reader]:
    """A run of a tiny model that is finished."""

    def reader(models: Models) -> Reader:
        Path("runs").mkdir()
        finish(Path("made"), models.zoo, kind, **sections).rename(Path("runs") / name)
        return Reader()

    return reader


def _record(models: Models) -> Reader:
    """What a client has written, beside its certificate."""
    who = site("hospital-a")
    with open_record(Path("state/egress"), who) as egress:
        for number in range(4):
            egress.append(departure(number, "classify"))
    server = site("server")
    write_manifest(Path("manifest.json"), {"run": "classify", "participants": []}, server.key)
    for name, one in (("client", who), ("server", server)):
        Path(f"{name}.pem").write_bytes(one.pem)
    return Reader()


def _watched(models: Models) -> Reader:
    """A server and a site that run; the page stops them."""
    for folder, kind in (("runs/classify/federation", "server"),
                         ("federation/hospital-a/state", "site")):  # fmt: skip
        process = begun(Path(folder), kind)
        Thread(target=process.wait, daemon=True).start()
    return Reader()


def _federation(models: Models) -> Reader:
    """Rows at three sites, whose labels the file names; few exchanges, on a port of this test's."""
    rows = labelled_rows({"hospital-a": 27, "hospital-b": 33, "hospital-c": 30})
    _write(rows)
    edits = {
        "builtin:minilm": models.zoo("bert-with-pooler"), **SHORT,
        "path: data/ ": f"labels: [{', '.join(LABELS)}]\n  path: data/ ",
        "baselines: [local, pooled]": "baselines: []",
        "fraction_train: 0.25": "min_clients: 2",
    }  # fmt: skip
    # Sums alone for the first federation, and one round of training for the second.
    few = {
        "--insecure --clients": "federation.num_rounds=0 --insecure --clients",
        "output_dir=runs/secured": "output_dir=runs/secured federation.num_rounds=1",
    }
    few |= _own_model(edits["builtin:minilm"])
    return Reader(edits, typed={":9092": f":{free_port()}", **few})


def _own_model(folder: str) -> dict[str, str]:
    """Sites name the folder that stands for a built-in: by default nobody may name them one."""
    return {"atoll client --": f"atoll client --model {folder} --"}


def _nothing(models: Models) -> Reader:
    return Reader()


READERS: Mapping[str, Callable[[Models], Reader]] = {
    "README.md": _tour,
    "docs/audit.md": _finished("llama", "finetune"),
    "docs/certificates.md": _nothing,
    "docs/deployment.md": _federation,
    "docs/egress.md": _record,
    "docs/export-and-chat.md": _finished("llama", "finetune"),
    "docs/index.md": _texts,
    "docs/operating.md": _watched,
    "docs/plan-and-doctor.md": _edited_file,
    "docs/policy.md": _nothing,
    "docs/python.md": _edited_file,
    "docs/recipes/classify.md": _texts,
    "docs/recipes/dpo.md": _preferences,
    "docs/recipes/embed.md": _pairs,
    "docs/recipes/finetune.md": _chats,
    "docs/recipes/private.md": _private,
    "docs/recipes/quickstart.md": _texts,
    "docs/recipes/vision.md": _images,
    "docs/privacy.md": _finished(
        "bert", "quickstart", adapter={"head": "train"}, privacy={"noise_multiplier": 1.0}
    ),
    "docs/resume.md": _edited_file,
    "docs/secure-aggregation.md": _nothing,
    "docs/homomorphic.md": _nothing,
    "docs/report.md": _finished("bert", "quickstart"),
    "docs/fewer-bytes.md": _nothing,
    "docs/robust.md": _texts,
    "docs/runtimes.md": _nothing,
    "docs/writing-an-algorithm.md": _nothing,
}
"""The pages of which something is to be typed."""
