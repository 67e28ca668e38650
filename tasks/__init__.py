"""The stages, one module each; in folders what they share: `work`, `versions`, `training`, `commands`, `report_page`.

A stage is a pure function from (parameters, input tables) to output tables. It knows nothing of Prefect.
"""
