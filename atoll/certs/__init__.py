"""Who takes part in a federation between machines: keys, certificates, and the roster.

A federation has a CA of its own. Its certificate names a site and holds the site's public key; the
server admits whoever stands in `server/clients/`, signed by this CA, in time and not revoked.
"""

from atoll.certs.files import ClientFiles, ServerFiles, client_files, server_files
from atoll.certs.keys import fingerprint, load_key, sign, verify
from atoll.certs.pem import load_certificate
from atoll.certs.roster import Admitted, Member, admitted

__all__ = [
    "Admitted",
    "ClientFiles",
    "Member",
    "ServerFiles",
    "admitted",
    "client_files",
    "fingerprint",
    "load_certificate",
    "load_key",
    "server_files",
    "sign",
    "verify",
]
