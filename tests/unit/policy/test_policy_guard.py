"""What a client takes from a server: training passes, and what training does not make does not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from atoll.core import Context, Federation, Position, Program, State, Task
from atoll.errors import PolicyError
from atoll.experiment.broadcasts import Broadcasts, known_of
from atoll.experiment.setup import Setup
from atoll.local.bench import model_values
from atoll.policy.guard import Frozen, Known, check_broadcast
from atoll.policy.neurons import movement
from atoll.protection import Protection
from atoll.round import federate
from atoll.runtimes.inprocess import InProcess
from atoll.runtimes.store import memory_store
from atoll.servers.quantile import CLIP, CLIPS, NORM
from atoll.tree import Tree
from tests.support.scenes import scene

if TYPE_CHECKING:
    from tests.support.models import Zoo

FULL: dict[str, Any] = {"method": "full"}
Training = tuple[str, str, dict[str, Any], dict[str, Any]]
TRAININGS: list[Training] = [
    ("bert", "classifier, fast", {**FULL, "head": "train"}, {"learning_rate": 1e-2}),
]
MORE: list[Training] = [
    ("llama", "language model", FULL, {"learning_rate": 1e-3}),
    ("gpt2", "sgd", FULL, {"learning_rate": 0.1, "optimizer": "sgd"}),
    ("bert", "lora, fast", {"method": "lora", "head": "train"}, {"learning_rate": 1e-2}),
    ("bert", "classifier", {**FULL, "head": "train"}, {"learning_rate": 1e-3}),
    ("llama", "language model, fast", FULL, {"learning_rate": 1e-2}),
    ("gpt2", "transposed layers", FULL, {"learning_rate": 1e-2}),
    ("llama", "lora", {"method": "lora"}, {"learning_rate": 5e-3}),
    ("bert", "last blocks", {"method": "layers", "head": "train"}, {"learning_rate": 1e-2}),
    ("bert", "biases", {"method": "bitfit", "head": "train"}, {"learning_rate": 1e-2}),
    ("bert", "bottleneck", {"method": "bottleneck", "head": "train"}, {"learning_rate": 1e-2}),
]


@pytest.mark.parametrize("training", TRAININGS, ids=lambda one: f"{one[0]} {one[1]}")
def test_rounds_of_training_pass(tmp_path: Path, zoo: Zoo, training: Training) -> None:
    _trains(tmp_path, zoo, training, rounds=3)


@pytest.mark.long
@pytest.mark.parametrize("training", [*TRAININGS, *MORE], ids=lambda one: f"{one[0]} {one[1]}")
def test_many_rounds_of_training_pass(tmp_path: Path, zoo: Zoo, training: Training) -> None:
    _trains(tmp_path, zoo, training, rounds=10)


def _trains(folder: Path, zoo: Zoo, training: Training, *, rounds: int) -> None:
    kind, _, adapter, train = training
    setup = scene(
        folder, zoo, kind, adapter=adapter, train={**train, "num_train_epochs": 3},
        federation={"num_rounds": rounds},
    )  # fmt: skip
    program = Program({"train": setup.program.algorithms["train"]}, lambda number: ("train",))
    runtime = InProcess(setup.data.clients, program.algorithms, memory_store())
    federation = Federation(0, "r", rounds, len(setup.data.clients))
    broadcasts, values = Broadcasts(setup, "ada"), model_values(setup.start.server)
    seldom = Broadcasts(setup, "ada")
    for report in federate(program, runtime, federation, Position(setup.start.server, round=0)):
        state, number = report.position.server, report.round
        assert any(not torch.equal(x, values[name]) for name, x in model_values(state).items())
        broadcasts.take([_task(setup, state, number)])
        values = model_values(state)
    if adapter.get("method") == "full":
        name = next(n for n, v in state["adapter"].items() if v.dim() == 2 and ".0." in n)
        trap = {**state["adapter"], name: state["adapter"][name].flip(0)}
        with pytest.raises(PolicyError, match=rf"{name} .* replaced, not trained"):
            broadcasts.take([_task(setup, {**state, "adapter": trap}, number + 1)])
    # Nor is a client refused that is asked for the first time now, at a usual rate.
    if train["learning_rate"] <= 5e-3:
        seldom.take([_task(setup, state, number)])


def test_the_largest_neuron_of_a_layer_however_it_is_stored(tmp_path: Path, zoo: Zoo) -> None:
    for kind in ("llama", "gpt2"):
        setup = scene(
            _folder(tmp_path, kind),
            zoo,
            kind,
            adapter={"method": "lora", "target_modules": "all-linear"},
        )
        frozen = known_of(setup).frozen
        for name, layer in frozen.items():
            module = setup.base.model.get_submodule(name)
            width = setup.start.server["adapter"][f"{name}.lora_A.weight"].shape[1]
            with torch.no_grad():
                made = module(torch.eye(width)) - module(torch.zeros(1, width))
            assert layer.largest == pytest.approx(float(made.norm(dim=0).max()), rel=1e-4)
        assert len(frozen) > 4


def test_a_head_that_learns_a_few_of_its_classes_passes(tmp_path: Path, zoo: Zoo) -> None:
    setup = scene(tmp_path, zoo, "bert", adapter={"head": "train"}, model={"pooling": "mean"})
    state = setup.start.server
    name, value = next((n, v) for n, v in state["head"].items() if v.dim() == 2)
    learnt = value.clone()
    learnt[0] = 3.0
    moved = {**state, "head": {**state["head"], name: learnt}}
    Broadcasts(setup, "ada").take([_task(setup, moved, 1)])
    absurd = {**state, "head": {**state["head"], name: learnt * 1e4}}
    with pytest.raises(PolicyError, match=rf"{name} .* holds values as large as"):
        Broadcasts(setup, "ada").take([_task(setup, absurd, 1)])


def test_layers_of_eight_bits_are_known_too(tmp_path: Path, zoo: Zoo) -> None:
    plain, eight = (
        known_of(scene(_folder(tmp_path, name), zoo, "llama", model=model,
                       adapter={"method": "lora", "target_modules": "all-linear"}))
        for name, model in (("plain", {}), ("eight", {"load_in_8bit": True}))
    )  # fmt: skip
    assert plain.frozen.keys() == eight.frozen.keys()
    for name, layer in eight.frozen.items():
        assert layer.largest == pytest.approx(plain.frozen[name].largest, rel=0.02)


def _folder(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def _task(setup: Setup, state: State, number: int) -> Task:
    context = Context(0, "r", number, number, ("ada",), 1)
    server = setup.program.algorithms["train"].server
    return Task("train", context, lambda client: server.broadcast(state, client), {})


WIDTH = 64


def _model(seed: int = 0) -> Tree:
    draw = torch.Generator().manual_seed(seed)
    tree = {}
    for layer in "abcd":
        tree[f"{layer}.weight"] = torch.randn(48, WIDTH, generator=draw) / WIDTH**0.5
        tree[f"{layer}.bias"] = 0.1 * torch.randn(48, generator=draw)
    return tree


def _trained(tree: Tree, *, by: float, seed: int = 1) -> Tree:
    draw = torch.Generator().manual_seed(seed)
    return {n: v + by * v.std() * torch.randn(v.shape, generator=draw) for n, v in tree.items()}


def _refused(sent: Tree, held: Tree, *, frozen: dict[str, Frozen] | None = None) -> str:
    with pytest.raises(PolicyError) as error:
        check_broadcast(sent, Known(held, held, frozenset(held), frozen=frozen or {}))
    assert error.value.rule == "guard"
    return str(error.value)


@pytest.mark.parametrize("by", [0.0, 0.01, 0.3, 2.0])
def test_a_model_that_moves_as_a_whole_passes(by: float) -> None:
    check_broadcast(_trained(_model(), by=by), Known(_model(), _model(), frozenset(_model())))


def test_movement_is_in_sizes_of_what_there_was() -> None:
    held = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    sent = held + torch.tensor([[0.0, 5.0], [0.3, 0.4]])
    # Of nothing, in half of the usual size at the start, 1/√2.
    expected = [1.0, (0.25 / 2) ** 0.5 / (0.5 / 2**0.5)]
    assert movement(sent, held).tolist() == pytest.approx(expected)
    assert movement(torch.tensor([2.0, 2.0]), torch.tensor([1.0, 1.0])).tolist() == [1.0]


@pytest.mark.parametrize("by", [0.0, 0.02])
def test_a_tensor_that_is_replaced(by: float) -> None:
    held = _model()
    sent = {**_trained(held, by=by), "b.weight": _model(7)["b.weight"]}
    told = _refused(sent, held)
    assert "b.weight of the server's broadcast moved by 1.4 of its size" in told
    assert told.endswith("it was replaced, not trained")


@pytest.mark.parametrize("by", [0.0, 0.02])
def test_a_neuron_that_is_replaced(by: float) -> None:
    held = _model()
    sent = _trained(held, by=by)
    sent["c.weight"][17] = 0.0
    sent["c.weight"][17, 3] = 4.0
    assert "c.weight of the server's broadcast neuron 17 moved by" in _refused(sent, held)


def test_neurons_that_are_each_others_opposite_where_all_of_the_model_moves() -> None:
    held = _model()
    sent = _trained(held, by=1.0)
    draw = torch.Generator().manual_seed(5)
    half = torch.randn(10, WIDTH, generator=draw) / WIDTH**0.5
    sent["a.weight"][:20] = torch.cat([half, -half]) + 0.002 * torch.randn(
        20, WIDTH, generator=draw
    )
    assert "20 of its 48 neurons became another one of it" in _refused(sent, held)


def _in_steps(held: Tree, goal: Tree, *, steps: int) -> int:
    """After how many broadcasts on the way a client refuses; 0: it never does."""
    known = Known(held, held, frozenset(held))
    for step in range(1, steps + 1):
        sent = {n: held[n] + (goal[n] - held[n]) * step / steps for n in held}
        try:
            check_broadcast(sent, known)
        except PolicyError as error:
            assert "since the start" in str(error)  # noqa: PT017
            return step
        known = replace(known, values=sent)
    return 0


def test_a_neuron_that_is_replaced_in_small_steps() -> None:
    held = _model()
    goal = _trained(held, by=0.05)
    goal["c.weight"][17] = 0.0
    goal["c.weight"][17, 3] = 4.0
    # It moves by 4.1 of its size: 0.75 of it are reached after a fifth of the way.
    assert _in_steps(held, goal, steps=20) == 4
    assert _in_steps(held, _trained(held, by=2.0), steps=20) == 0


def test_neurons_that_become_opposites_in_small_steps() -> None:
    held = _model()
    goal = _trained(held, by=0.25)
    draw = torch.Generator().manual_seed(5)
    half = torch.randn(10, WIDTH, generator=draw) / WIDTH**0.5
    # No outliers where the others move by a quarter of their size.
    goal["a.weight"][:20] = torch.cat([half, -half])
    assert 1 < _in_steps(held, goal, steps=20) <= 20


@pytest.mark.parametrize("sign", [1, -1])
def test_a_neuron_that_never_fires_or_always(sign: int) -> None:
    held = _model()
    sent = _trained(held, by=0.02)
    sent["d.bias"][5] = sign * 14 * float(sent["d.weight"][5].norm())
    told = _refused(sent, held)
    assert "d.bias of the server's broadcast" in told
    own = frozenset(held) - {"d.bias"}
    with pytest.raises(
        PolicyError, match=r"neuron 5 is shifted by 14 times .* never fires, or alw"
    ):
        check_broadcast(sent, Known(held, held, own))
    # One that has been so before is not of this broadcast.
    check_broadcast(sent, Known(sent, sent, own))


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("a.weight", torch.full((48, WIDTH), torch.nan), "or no numbers"),
        ("a.weight", torch.zeros(48, 3), r"another shape than \[48, 64\]"),
        ("a.bias", torch.full((48,), 2e4), r"values as large as 2e\+04"),
        ("e.weight", torch.zeros(2, 2), "not among the values that train here"),
    ],
)  # fmt: skip
def test_what_is_no_such_model(name: str, value: torch.Tensor, why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        check_broadcast({**_model(), name: value}, Known(_model(), _model(), frozenset()))


def test_a_value_that_is_missing() -> None:
    sent = _model()
    del sent["a.bias"]
    with pytest.raises(PolicyError, match=r"a\.bias of the server's broadcast is not among"):
        check_broadcast(sent, Known(_model(), _model(), frozenset()))


def test_an_adapter_that_takes_its_layers_place() -> None:
    weight = _model()["a.weight"]
    draw = torch.Generator().manual_seed(2)
    lora = {"a.lora_A.weight": torch.randn(4, WIDTH, generator=draw) / 8,
            "a.lora_B.weight": 0.1 * torch.randn(48, 4, generator=draw)}  # fmt: skip
    known = Known(lora, lora, frozen={"a": Frozen(float(weight.norm(dim=1).max()), 2.0)})
    check_broadcast(lora, known)
    planted = {**lora, "a.lora_B.weight": lora["a.lora_B.weight"].clone()}
    planted["a.lora_B.weight"][9] = 60.0
    with pytest.raises(PolicyError, match=r"a\.lora_B\.weight .* takes the layer's place"):
        check_broadcast(planted, known)


PRIVATE: dict[str, Any] = {"epsilon": None, "noise_multiplier": 20.0, "clip": 3.0}


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("clip", [3.0, {"adaptive": True, "initial": 0.1, "count_noise": 1e6}])
def test_noise_of_a_private_run_is_no_trap(
    tmp_path: Path, zoo: Zoo, fixed: bool, clip: Any
) -> None:
    setup = scene(
        tmp_path, zoo, "bert", adapter={"head": "train", "freeze_a": fixed},
        federation={"num_rounds": 40}, privacy={**PRIVATE, "clip": clip},
    )  # fmt: skip
    state, known, draw = setup.start.server, known_of(setup), torch.Generator().manual_seed(0)
    # 40 sums over all clients, each with noise of multiplier times clip, divided by their number.
    deviation = 40**0.5 * 20.0 * 3.0 / len(setup.data.clients)
    told: State = {}
    if isinstance(clip, float):
        assert known.noise == pytest.approx(deviation, rel=1e-6)
    else:
        assert known.noise == 0
        told = {CLIP: {NORM: torch.tensor(3.0, dtype=torch.float64)}}

    def noisy(times: float) -> State:
        moved = {
            part: {n: v + times * deviation * torch.randn(v.shape, generator=draw)
                   for n, v in state[part].items()}
            for part in ("adapter", "head")
        }  # fmt: skip
        return {**state, **moved, **told}

    for share in (0.1, 1.0):
        Broadcasts(setup, "ada").take([_task(setup, noisy(share), 40)])
    with pytest.raises(PolicyError, match=r"beside the noise of this run: the adapter takes"):
        Broadcasts(setup, "ada").take([_task(setup, noisy(20.0), 40)])


def test_a_bound_that_no_rounds_lead_to_allows_for_no_noise(tmp_path: Path, zoo: Zoo) -> None:
    clip = {"adaptive": True, "initial": 0.1, "count_noise": 20.0}
    setup = scene(
        tmp_path, zoo, "bert", adapter={"head": "train"}, federation={"num_rounds": 40},
        privacy={**PRIVATE, "clip": clip},
    )  # fmt: skip
    assert isinstance(setup.protection, Protection)
    # Nobody of all 5 clients is below the bound, and five deviations of noise say so.
    growth = math.exp(0.2 * (0.5 - 0.5 + (5 / 2 + 5 * 20.0) / 5))
    assert setup.protection.reach(1) == pytest.approx(0.1 * growth)
    assert setup.protection.reach(40) == 102.4
    for told, allowed in ((math.inf, growth * 0.1), (math.nan, 0.0), (0.05, 0.05)):
        state = {**setup.start.server, CLIP: {NORM: torch.tensor(told, dtype=torch.float64)}}
        found = Broadcasts(setup, "ada")
        found.take([_task(setup, state, 1)])
        deviation = 40**0.5 * setup.protection.noise_in(
            {"one": torch.zeros(1)}, {CLIPS: {NORM: torch.tensor([1.0])}}, [1.0]
        )
        assert found._known.noise == pytest.approx(deviation * allowed)
    odd = {**setup.start.server, CLIP: {NORM: torch.zeros(2, dtype=torch.float64)}}
    with pytest.raises(PolicyError, match="the bound that the server sends is no number"):
        Broadcasts(setup, "ada").take([_task(setup, odd, 1)])
