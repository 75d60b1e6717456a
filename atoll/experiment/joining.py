"""A site's half of the opening: the experiment as it stands there, an offer, a setup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.config import Loaded, load
from atoll.config.tasks import TASKS
from atoll.data.clients import Options, load_client, look_at_client
from atoll.data.moments import Moments
from atoll.disk.files import make_folder, write_text
from atoll.errors import ConfigError, PayloadError, RunError
from atoll.experiment.offers import offer_of, silent, versions
from atoll.experiment.parties import Keys, leave_others, own_claim, site_parties
from atoll.experiment.setup import Setup, prepare
from atoll.experiment.terms import Agreed, Offer, Opening, Private
from atoll.models.locate import fingerprint
from atoll.policy import Policy, check_experiment, check_model, check_names

__all__ = ["Place", "check_overrides", "joined", "offered", "taken_up"]

MODEL = "model.name_or_path"
OURS = (
    MODEL, "train.per_device_train_batch_size", "train.gradient_accumulation_steps",
    "train.gradient_checkpointing", "train.device", "train.prefix_cache", "data.columns",
)  # fmt: skip
"""Keys of the experiment that a site sets for itself: they are about its machine and its files."""


@dataclass(frozen=True)
class Place:
    """What a site brings: its name, rows, folder of state, rules, and values of its own.

    certs: the folder with its key and certificate; None in trials without.
    """

    name: str
    data: Path
    state: Path
    policy: Policy
    overrides: tuple[str, ...] = ()
    certs: Path | None = None

    @property
    def names_model(self) -> bool:
        """Whether the base model is the site's own choice."""
        return any(text.partition("=")[0].strip() == MODEL for text in self.overrides)


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse values that are not a site's to set.

    Raises:
        ConfigError: which names those that are.
    """
    for text in overrides:
        key = text.partition("=")[0].strip()
        if not any(key == own or key.startswith(f"{own}.") for own in OURS):
            raise ConfigError(f"--set {text}: a site sets {', '.join(OURS)}; the rest is the "
                              "federation's")  # fmt: skip


def taken_up(opening: Opening, run: str, place: Place) -> Loaded:
    """The experiment as it stands here, if it may run.

    Raises:
        RunError: another version.   PolicyError: what this site does not do.
    """
    own = versions()
    odd = [name for name in own if opening.versions.get(name) != own[name]]
    if odd:
        raise RunError(
            f"the server runs {odd[0]} {opening.versions.get(odd[0])}, and this site "
            f"{own[odd[0]]}; install one"
        )
    folder = place.state / run
    make_folder(folder)
    write_text(folder / "experiment.yaml", opening.experiment)
    values = [f"data.path={place.data}", "data.partition=null", "report_to=none",
              "adapter.name_or_path=null", "federation.runtime=inprocess"]  # fmt: skip
    loaded = load(folder / "experiment.yaml", overrides=[*values, *place.overrides])
    if not place.names_model:
        check_model(place.policy, loaded.experiment.model.name_or_path)
    check_experiment(place.policy, loaded.experiment, base=None, rows=None)
    return loaded


def offered(loaded: Loaded, place: Place) -> Offer:
    """What the policy lets go of what is here."""
    found, share = look_at_client(place.data, place.name, _options(loaded, None))
    check_experiment(place.policy, loaded.experiment, base=None, rows=len(share.train))
    balanced = loaded.experiment.train.class_weights == "balanced"
    counted = share if balanced and place.policy.label_histograms else None
    offer = offer_of(place.name, found, counted, names=place.policy.label_names)
    privacy = loaded.experiment.privacy
    if loaded.experiment.data.label_scale is not None:
        offer = offer.model_copy(update={"moments": None})
    if privacy.secure_aggregation:
        offer = offer.model_copy(
            update={"identity": own_claim(Keys(place.name, place.state, place.certs))}
        )
    return silent(offer, rows=privacy.unit == "example") if privacy.hides else offer


def joined(
    run: str, loaded: Loaded, agreed: Agreed, place: Place, note: Callable[[str], None]
) -> Setup:
    """Model and data of a federation, as all its clients agreed.

    Raises:
        RunError: when the base is another one.   PolicyError: when it is not allowed here.
    """
    data = load_client(place.data, place.name, _options(loaded, agreed.labels))
    moments = agreed.moments
    if moments is not None:
        data = replace(data, moments=Moments(moments.count, moments.mean, moments.square))
    data = replace(data, label_counts=agreed.label_counts)
    parties = None
    if loaded.experiment.privacy.secure_aggregation:
        keys = Keys(place.name, place.state, place.certs)
        parties = site_parties(keys, agreed.roster or {}, run)
    private = agreed.private
    setup = prepare(
        _noised(loaded, private), note=note, data=data, parties=parties,
        population=None if private is None else private.population,
    )  # fmt: skip
    base = fingerprint(setup.base.backbone)
    if base != agreed.base:
        raise RunError(
            "the base model of this site has other weights than the server's; name the right "
            "folder with --model"
        )
    rows = data.counts[place.name].train
    check_experiment(place.policy, loaded.experiment, base=base, rows=rows)
    if loaded.experiment.privacy.secure_aggregation:
        # Under masks nobody sees later what leaves.
        state = setup.start.server
        parts = ("adapter", "head") if setup.bench.train_head else ("adapter",)
        check_names(place.policy, "update", (name for p in parts for name in state.get(p, {})))
    if ((setup.protection or setup.rows) is None) != (private is None):
        raise PayloadError("the server and the experiment file do not say the same of privacy")
    leave_others(place.state, run)
    return setup


def _noised(loaded: Loaded, private: Private | None) -> Loaded:
    """The experiment with the noise that its server says: a site alone knows neither how many
    clients there are nor what follows from that."""
    if private is None:
        return loaded
    noise = {"noise_multiplier": private.noise_multiplier}
    privacy = loaded.experiment.privacy.model_copy(update=noise)
    return replace(loaded, experiment=loaded.experiment.model_copy(update={"privacy": privacy}))


def _options(loaded: Loaded, labels: Sequence[str] | None) -> Options:
    section = loaded.experiment.data
    if TASKS[loaded.experiment.model.task].numbers:
        labels = ()
    elif labels is None:
        labels = section.labels
    return Options(section.columns, section.holdout, loaded.experiment.seed, labels)
