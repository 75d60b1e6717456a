"""Every task on a real data set: local, federated, pooled."""
