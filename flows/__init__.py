"""The Prefect flows: what runs when, on which pool, how often again; and what the Prefect page shows of it.

The work itself is in `tasks`: a flow starts the same stage commands that a person would type.
"""
