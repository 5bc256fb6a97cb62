"""NCSN++ and its relatives, under the names that score_sde's checkpoints give their weights."""
