"""Secure aggregation: a server learns the sum of its clients' vectors, and no vector.

`agree` says what one exchange is, `Member` is a client as a transport calls it, the functions of
`server` are the other side, and `secure_sum` runs both in one process.
"""

from atoll.secagg.channels import Channel, Quantised, most_bits, quantise
from atoll.secagg.configuration import Configuration, Moment, agree
from atoll.secagg.degree import Terms
from atoll.secagg.keys import Identity, claim, roster_verifier
from atoll.secagg.member import Member
from atoll.secagg.merkle import MerkleTree, Proof, check_slice, tree
from atoll.secagg.messages import Kind, bytes_of, most_bytes
from atoll.secagg.simulate import secure_sum
from atoll.secagg.state import Step
from atoll.secagg.store import Folder, Held, Store
from atoll.secagg.total import Total

__all__ = [
    "Channel",
    "Configuration",
    "Folder",
    "Held",
    "Identity",
    "Kind",
    "Member",
    "MerkleTree",
    "Moment",
    "Proof",
    "Quantised",
    "Step",
    "Store",
    "Terms",
    "Total",
    "agree",
    "bytes_of",
    "check_slice",
    "claim",
    "most_bits",
    "most_bytes",
    "quantise",
    "roster_verifier",
    "secure_sum",
    "tree",
]
