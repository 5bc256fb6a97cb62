"""Many machines, by Ray: a service whose replicas each hold an Engine, and data sets made in bulk.

`import ray` in this folder is Ray itself.
"""
