"""What the experiment file's `privacy` section comes to, for the clients that there are."""

from atoll.protection.planned import protection_of
from atoll.protection.protection import Protection

__all__ = ["Protection", "protection_of"]
