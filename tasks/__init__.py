"""The stages, one module each, and what they share: parameters, shards, progress, the cluster, the command line.

A stage is a pure function from (parameters, input tables) to output tables. It knows nothing of Prefect.
"""
