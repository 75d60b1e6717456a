"""The property table that every algorithm holds under every stage list on every runtime."""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from atoll.core import Channel, Failure, Position, Reply, Report, Runtime, Task
from atoll.errors import CompositionError, QuorumError
from atoll.runtimes.store import disk_store, memory_store
from atoll.servers import average
from tests.conformance.cases import REFUSED, STAGES, Case, cases
from tests.conformance.tiny import (
    CLIENTS,
    HIDDEN,
    LABELS,
    ROWS,
    SETTINGS,
    WIDTH,
    Scene,
    Tiny,
    assert_close,
    assert_same,
    make_bench,
    moved,
    poison_update,
)


def test_every_file_has_examples(module: str) -> None:
    found = vars(importlib.import_module(f"atoll.algorithms.{module}"))
    assert isinstance(found["EXAMPLES"], tuple)
    assert found["EXAMPLES"]
    assert {"EXAMPLES", module} <= set(found["__all__"])


def test_the_same_seed_gives_the_same_bits(case: Case) -> None:
    first, again = case.scene().run(), case.scene().run()
    assert_same(first, again)
    assert first.exchanges == again.exchanges
    assert moved(first, case.scene().start())


def test_another_seed_gives_another_result(case: Case) -> None:
    scene = case.scene()
    first, other = scene.run(), replace(scene, seed=8).run()
    with pytest.raises(AssertionError):
        assert_same(first, other)


def test_inputs_are_not_mutated(case: Case) -> None:
    scene = case.scene()
    start = scene.start()
    kept, model = copy.deepcopy(start), copy.deepcopy(scene.bench.model.model.state_dict())
    positions, copies = [start], [kept]
    for report in scene.rounds(start):
        positions.append(report.position)
        copies.append(copy.deepcopy(report.position))
    for position, before in zip(positions, copies, strict=True):
        assert_same(position, before)
    torch.testing.assert_close(
        scene.bench.model.model.state_dict(), model, rtol=0, atol=0, equal_nan=True
    )


def test_a_cohort_of_one(case: Case) -> None:
    for scene in (
        replace(case.scene(), roster=("ada",), per_round=1),
        replace(case.scene(), per_round=1),
    ):
        report = scene.run()
        assert [len(x.cohort) for x in report.exchanges] == [1]
        assert moved(report, scene.start())
        assert math.isfinite(report.exchanges[0].metrics["loss"])


def test_an_empty_roster_moves_nothing(case: Case) -> None:
    scene = replace(case.scene(), roster=(), min_clients=0)
    report = scene.run()
    assert not moved(report, scene.start())
    assert report.exchanges[0].cohort == ()
    assert report.exchanges[0].bytes_up == report.exchanges[0].bytes_down == 0


def test_a_cohort_that_does_not_answer_is_no_quorum(case: Case) -> None:
    def silent(reply: Reply) -> Failure:
        return Failure(reply.client, "transport", "the line is dead")

    scene = case.scene().with_work(silent)
    with pytest.raises(QuorumError, match=r"round 1 \(train\): 0 of 3 clients answered") as caught:
        scene.run()
    assert "the line is dead" in str(caught.value)
    # Where no answers are asked for, a round without any is one step with no change.
    report = replace(scene, min_clients=0).run()
    assert not moved(report, scene.start())


def test_a_quorum_is_counted_in_answers(plain_case: Case) -> None:
    def one_silent(reply: Reply) -> Reply | Failure:
        return Failure("bob", "transport", "gone") if reply.client == "bob" else reply

    scene = replace(plain_case.scene().with_work(one_silent), per_round=5)
    assert moved(replace(scene, min_clients=4).run(), scene.start())
    with pytest.raises(QuorumError, match="min_clients is 5"):
        replace(scene, min_clients=5).run()


def test_a_failing_client_is_reported_and_survived(case: Case) -> None:
    """Bob has no rows in one run, and rows that make his loss NaN in the other."""
    results: list[Report] = []
    for kind, data in [
        ("data", Tiny({**ROWS, "bob": 0})),
        ("diverged", Tiny(poisoned="bob")),
    ]:
        scene = replace(case.scene(make_bench(data=data, group_size=1)), per_round=5)
        results.append(scene.run())
        (failure,) = results[-1].exchanges[0].failures
        assert (failure.client, failure.kind) == ("bob", kind)
        assert sorted(results[-1].exchanges[0].clients) == ["ada", "cyd", "dee", "eve"]
        assert moved(results[-1], scene.start())
    assert_same(*results)


def test_a_neighbour_in_the_stack_that_diverges_touches_nobody(case: Case) -> None:
    alone, stacked = (
        replace(case.scene(make_bench(data=Tiny(poisoned="bob"), group_size=k)), per_round=5).run()
        for k in (1, 4)
    )
    assert_close(alone, stacked, tolerance=_step_tolerance(case))


def test_an_exception_at_one_client_costs_the_others_nothing(case: Case) -> None:
    """Bob's rows raise when they are read; the run is the one in which he has none."""
    reports: list[Report] = []
    for data in (Tiny({**ROWS, "bob": 0}), Tiny(broken="bob")):
        scene = replace(case.scene(make_bench(data=data, group_size=1)), per_round=5)
        reports.append(scene.run())
    (failure,) = reports[1].exchanges[0].failures
    assert (failure.client, failure.kind) == ("bob", "error")
    assert failure.message.startswith("ValueError: row 0 of bob cannot be read (tiny.py:")
    assert_same(*reports)


def test_a_payload_with_nan_is_left_out(case: Case) -> None:
    def poisoned(reply: Reply) -> Reply:
        bad = reply.client == "cyd"
        return replace(reply, payload=poison_update(reply.payload)) if bad else reply

    def silent(reply: Reply) -> Reply | Failure:
        return Failure("cyd", "transport", "gone") if reply.client == "cyd" else reply

    scene = replace(case.scene(), per_round=5)
    report = scene.with_work(poisoned).run()
    (failure,) = report.exchanges[0].failures
    assert (failure.client, failure.kind) == ("cyd", "payload")
    assert "not finite" in failure.message
    assert_same(report, scene.with_work(silent).run())


def test_a_stage_that_needs_all_refuses_instead(case: Case) -> None:
    scene = replace(case.scene(make_bench(data=Tiny({**ROWS, "bob": 0}))), per_round=5)
    plain = scene.algorithm
    all_or_none = replace(plain.stages[0], needs_all=True)
    strict = replace(scene, algorithm=replace(plain, stages=(all_or_none, *plain.stages[1:])))
    with pytest.raises(QuorumError, match="needs every client of the cohort, but bob failed: it"):
        strict.run()
    assert moved(replace(strict, roster=("ada", "cyd", "eve"), per_round=3).run(), strict.start())


@pytest.mark.parametrize("evaluates", [False, True], ids=["", "evaluated"])
def test_an_interrupted_run_ends_in_the_same_bits(
    case: Case, evaluates: bool, tmp_path: Path
) -> None:
    """Killed after a report, or in the middle of the next round; only files are left then."""
    scene = replace(case.scene(), evaluates=evaluates)
    whole = scene.run(store=disk_store(tmp_path / "whole"))
    assert_same(whole, scene.run())
    # (the last whole round, answers that come before the end): in training, then in evaluation.
    for stopped, answers in [(0, 0), (1, 2), (1, 4) if evaluates else (2, 0)]:
        folder = tmp_path / f"{stopped}-{answers}"
        position = _killed(scene, stopped, answers, folder)
        resumed = scene.run(position, store=disk_store(folder))
        assert_same(whole, resumed)
        assert resumed.exchanges == whole.exchanges


def test_an_evaluation_between_rounds_changes_nothing(case: Case, tmp_path: Path) -> None:
    """What an algorithm keeps at its clients outlives the exchanges of others."""
    if case.stages == "int8":
        pytest.skip("its rounding is drawn anew for each exchange, and evaluations count")
    plain = case.scene().run().position
    for store in (memory_store(), disk_store(tmp_path)):
        evaluated = replace(case.scene(), evaluates=True).run(store=store).position
        assert_same(
            replace(plain, exchanges=0, folded={}), replace(evaluated, exchanges=0, folded={})
        )


def test_refusals(module: str) -> None:
    """What `cases` leaves out is refused, and so are lossy stages on what a sender keeps."""
    bench = make_bench()
    own = next(case.arguments for case in cases("plain") if case.module == module)
    plain = Case(module, own).algorithm(bench)
    for name in STAGES:
        if (module, name) in REFUSED:
            with pytest.raises(CompositionError, match=f"'{name}' bounds channel 'update'"):
                Case(module, own, name).algorithm(bench)
    for channel in plain.client.kept:
        for stage in (make((channel,)) for listed in STAGES.values() for make in listed):
            if stage.lossy:
                with pytest.raises(CompositionError, match=f"'{channel}'.*'{plain.client.name}'"):
                    replace(plain, stages=(*plain.stages, stage))


def _killed(scene: Scene, stopped: int, answers: int, folder: Path) -> Position:
    """The position after round `stopped`; dies after some more answers came."""
    count = -1

    class Died(Exception):
        pass

    def dying(roster: tuple[str, ...], algorithms: object, store: object) -> Runtime:
        return _Dying(scene.runtime(roster, algorithms, store), answer)  # type: ignore[arg-type]

    def answer() -> None:
        nonlocal count
        if count >= 0:
            count -= 1
            if count < 0:
                raise Died

    position = scene.start()
    try:
        for report in replace(scene, runtime=dying).rounds(store=disk_store(folder)):
            position = report.position
            if report.round == stopped:
                if answers == 0:
                    break
                count = answers
    except Died:
        pass
    assert position.round == stopped
    return position


@dataclass(frozen=True)
class _Dying:
    inner: Runtime
    answered: object

    @property
    def roster(self) -> tuple[str, ...]:
        return self.inner.roster

    def call(self, tasks: Sequence[Task], clients: Sequence[str]) -> Iterator[Reply | Failure]:
        for reply in self.inner.call(tasks, clients):
            yield reply
            self.answered()  # type: ignore[operator]


def test_a_position_may_come_from_a_file(tmp_path: Path) -> None:
    """Safetensors gives names back in another order; no number depends on it."""
    for number, case in enumerate(cases("plain", "top_k", "clip")):
        folder = tmp_path / str(number)
        folder.mkdir()
        stored = disk_store(folder / "clients")
        rounds = case.scene().rounds(store=stored)
        position = next(report.position for report in rounds if report.round == 1)
        for part, tree in position.server.items():
            save_file(tree, folder / f"{part}.safetensors")
        server = {part: load_file(folder / f"{part}.safetensors") for part in position.server}
        resumed = case.scene().run(replace(position, server=server), store=stored)
        assert_same(case.scene().run(), resumed)


def test_a_stack_of_clients_equals_one_after_another(case: Case) -> None:
    alone, stacked = (case.scene(make_bench(group_size=size)).run() for size in (1, 4))
    assert_close(alone, stacked, tolerance=_step_tolerance(case))
    for a, b in zip(alone.exchanges, stacked.exchanges, strict=True):
        assert a.cohort == b.cohort
        assert a.bytes_up == b.bytes_up
        assert a.metrics == pytest.approx(b.metrics, rel=1e-5)


def _step_tolerance(case: Case) -> float:
    """One last digit of float32 can move a value to the neighbouring step of int8."""
    return {"int8": 1e-2}.get(case.stages, 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_one_full_step_of_everyone_is_centralised_descent(
    plain_case: Case, dtype: torch.dtype, tolerance: float
) -> None:
    """Over several rounds: SCAFFOLD's corrections add up to zero, FedProx starts where it pulls."""
    settings = SETTINGS.model_copy(
        update={
            "per_device_train_batch_size": 4, "max_steps": 1, "max_grad_norm": None,
            "lr_scheduler_type": "constant",
        }
    )  # fmt: skip
    bench = make_bench(settings, data=Tiny(dict.fromkeys(CLIENTS, 4)), dtype=dtype)
    algorithm = plain_case.algorithm(bench)
    if "learning_rate" in plain_case.arguments or plain_case.module in ("fedopt", "fltrust"):
        pytest.skip("its server does more than take the average")
    scene = replace(plain_case.scene(bench), algorithm=algorithm, per_round=5)
    start = scene.start()
    values = {n: v.clone().requires_grad_() for part in ("adapter", "head")
              for n, v in start.server[part].items()}  # fmt: skip
    optimizer = torch.optim.SGD(values.values(), lr=settings.learning_rate)
    for report in scene.rounds(start):
        if report.round == 0:
            continue
        optimizer.zero_grad()
        _pooled_loss(bench.model.model, values).backward()
        optimizer.step()
        for part in ("adapter", "head"):
            for name, value in report.position.server[part].items():
                torch.testing.assert_close(value, values[name].detach(), rtol=0, atol=tolerance)
    assert moved(report, start)


def _pooled_loss(model: nn.Module, values: Mapping[str, Tensor]) -> Tensor:
    """The mean loss of all rows, without any of Atoll's code."""
    losses = []
    embedding, hidden = model.get_submodule("embedding"), model.get_submodule("hidden")
    for client in CLIENTS:
        for row in Tiny(dict.fromkeys(CLIENTS, 4)).examples(client, "train"):
            x = embedding(torch.from_numpy(row.ids).long()).mean(0)
            low = values["hidden.lora_B.weight"] @ (values["hidden.lora_A.weight"] @ x)
            z = torch.tanh(hidden(x) + 2.0 * low)
            logits = values["classifier.weight"] @ z + values["classifier.bias"]
            losses.append(cross_entropy(logits, torch.tensor(int(row.target[0]))))
    return torch.stack(losses).mean()


def test_federations_beside_each_other_do_not_interact(case: Case) -> None:
    """Two runs of one algorithm over one model, a round of each in turn."""
    bench = make_bench(dropout=0.3)
    a, b = case.scene(bench), replace(case.scene(bench), seed=8)
    alone = a.run(), b.run()
    *_, together = zip(a.rounds(), b.rounds(), strict=True)
    assert_same(together[0], alone[0])
    assert_same(together[1], alone[1])


def test_the_client_sends_what_it_declares(case: Case) -> None:
    scene = case.scene()
    sent: list[Reply] = []

    def look(reply: Reply) -> Reply:
        sent.append(reply)
        return reply

    scene.with_work(look).run()
    broadcast = scene.algorithm.server.broadcast(scene.start().server, "")
    like = scene.algorithm.client.template(broadcast)
    for reply in sent:
        assert set(reply.payload) == set(scene.algorithm.client.channels) == set(like)
        assert all(isinstance(channel, Channel) for channel in reply.payload.values())
    meta = {
        name: channel.with_tree({key: value.to("meta") for key, value in channel.tree.items()})
        for name, channel in broadcast.items()
    }
    assert scene.algorithm.client.template(meta).keys() == like.keys()


def test_fewer_bytes_travel_under_compression(plain_case: Case) -> None:
    plain = plain_case.scene().run().exchanges[0]
    for stages in ("int8", "top_k"):
        packed = replace(plain_case, stages=stages).scene().run().exchanges[0]
        assert packed.bytes_up < plain.bytes_up
        assert packed.bytes_down == plain.bytes_down


def test_held_values_have_no_control_variate() -> None:
    """SCAFFOLD broadcasts adapter, head and c, which is the adapter's where the head is held."""
    sizes = {"adapter": 4 * (2 * WIDTH + HIDDEN * 2), "head": 4 * (LABELS * HIDDEN + LABELS)}
    for train_head, control in ((True, sum(sizes.values())), (False, sizes["adapter"])):
        scene = Case("scaffold", {}).scene(replace(make_bench(), train_head=train_head))
        start = scene.start()
        assert sum(v.nbytes for v in start.server["control"].values()) == control
        report = scene.run()
        exchange = report.exchanges[0]
        assert exchange.bytes_down == 3 * (sum(sizes.values()) + control)
        # update and control, then weight, examples and loss
        assert exchange.bytes_up == 3 * (2 * control + 3 * 4)
        assert report.position.server["control"].keys() == start.server["control"].keys()


def test_an_average_server_may_take_the_place_of_an_adaptive_one() -> None:
    bench = make_bench()
    opt = Case("fedopt", {}).algorithm(bench)
    swapped = Scene(bench, replace(opt, server=average()))
    assert_same(swapped.run(), Case("fedavg", {}).scene(bench).run())
