"""The site's own policy: what it takes part in, and what may leave it, whatever a server asks.

policy = load_policy(Path("policy.yaml"))
check_model(policy, experiment.model.name_or_path)   # unless the site names its own
check_experiment(policy, experiment, base=None, rows=None)   # before anything is loaded
check_experiment(policy, experiment, base=fingerprint, rows=120)   # before anything trains
payload = released(policy, reply.payload, task=experiment.model.task)
check_reply(policy, payload, nbytes=len(message), task=experiment.model.task)
failure = told(policy, failure)   # where there is no reply
"""

from atoll.policy.failure import told, told_error
from atoll.policy.files import describe, fingerprint, load_policy, policy_schema
from atoll.policy.models import check_model
from atoll.policy.pause import PAUSED, pause, paused, resume
from atoll.policy.reply import check_names, check_reply, released, without_metrics
from atoll.policy.request import check_cohort, check_experiment, check_now, too_little_noise
from atoll.policy.schema import Policy, Privacy

__all__ = [
    "PAUSED",
    "Policy",
    "Privacy",
    "check_cohort",
    "check_experiment",
    "check_model",
    "check_names",
    "check_now",
    "check_reply",
    "describe",
    "fingerprint",
    "load_policy",
    "pause",
    "paused",
    "policy_schema",
    "released",
    "resume",
    "told",
    "told_error",
    "too_little_noise",
    "without_metrics",
]
