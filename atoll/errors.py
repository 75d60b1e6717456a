"""What can go wrong, for people.

    AtollError                     exit 1
    ├── ConfigError                exit 2   the experiment file or the command line
    │   └── CompositionError       exit 2   parts that do not fit each other
    ├── DataError                  exit 3   rows, files, labels
    ├── ModelError                 exit 4   base models, adapters, target modules
    ├── PayloadError               exit 5   what a client or the server sent
    │   ├── HeldError              exit 5   it builds on what the receiver does not have
    │   └── ProtocolError          exit 5   a message of secure aggregation that was not agreed
    ├── RunError                   exit 6   the run directory and its files
    │   └── EgressError            exit 6   the record of what left a site: changed, or cut
    ├── QuorumError                exit 7   too few clients answered
    │   └── ClosedError            exit 7   a secure sum that stays closed; asked for again
    ├── CertificateError           exit 8   certificates and keys
    ├── PolicyError                exit 9   what a site's own policy refuses
    └── PrivacyError               exit 10  a promise of privacy that would be broken

A message says what is wrong, with the value and where it stands, then what to do.
"""

from __future__ import annotations

import re

__all__ = [
    "PROTOCOL",
    "AtollError",
    "CertificateError",
    "ClosedError",
    "CompositionError",
    "ConfigError",
    "DataError",
    "EgressError",
    "HeldError",
    "ModelError",
    "PayloadError",
    "PolicyError",
    "PrivacyError",
    "ProtocolError",
    "QuorumError",
    "RunError",
    "out_of_memory",
]


class AtollError(Exception):
    """Anything that a user can cause; printed without a traceback."""

    exit_code = 1


class ConfigError(AtollError):
    """The experiment file or the command line says something that cannot be done."""

    exit_code = 2


class CompositionError(ConfigError):
    """Two parts of an algorithm that do not fit; the message names both and the reason."""


class DataError(AtollError):
    """Rows, files or labels that cannot be used."""

    exit_code = 3


class ModelError(AtollError):
    """A base model, adapter or target that cannot be used."""

    exit_code = 4


class PayloadError(AtollError):
    """A payload with wrong names, shapes, dtypes, or values that are not finite."""

    exit_code = 5


class HeldError(PayloadError):
    """A payload that builds on values which the receiver does not have."""


class ProtocolError(PayloadError):
    """A message of secure aggregation that breaks what was agreed; nothing is unmasked after it."""


PROTOCOL = "protocol"
"""The kind of failure of a client that takes no part in an attempt of a secure sum any more."""


class RunError(AtollError):
    """A run directory that cannot be read or written."""

    exit_code = 6


class EgressError(RunError):
    """A record of what left a site that is not as it was written."""


class QuorumError(AtollError):
    """Too few clients answered for the round to count."""

    exit_code = 7


class ClosedError(QuorumError):
    """A secure sum that stays closed; another attempt under fresh keys may be opened."""


class CertificateError(AtollError):
    """A certificate, key or request that is missing, damaged, past its time or of others."""

    exit_code = 8


class PolicyError(AtollError):
    """A site's own policy refuses what is asked.

    rule: the key of the policy file.   why: the sentence.   site: whose policy, where it is known.
    One text alone is a whole message, as it came from another machine.
    """

    exit_code = 9

    def __init__(self, rule: str, why: str | None = None, site: str = "") -> None:
        if why is None:
            named = re.search(r"policy rule '(\w+)'", rule)
            self.rule, self.why, self.site = named[1] if named else "", rule, site
            super().__init__(rule)
            return
        self.rule, self.why, self.site = rule, why, site
        super().__init__(f"policy rule '{rule}'{f' of {site}' if site else ''}: {why}")

    def of(self, site: str) -> PolicyError:
        """The same refusal with the site's name in it."""
        return PolicyError(self.rule, self.why, site)


class PrivacyError(AtollError):
    """Privacy that would not be what was promised: a budget, too little noise, a changed ledger."""

    exit_code = 10


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, or a device's as torch says it."""
    # torch raises a plain RuntimeError where the memory is not CUDA's.
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )
