from atoll.api import federate as federate
from atoll.api import load as load
from atoll.api import open_run as open_run
from atoll.api import predict as predict

__version__: str
