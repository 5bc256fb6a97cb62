"""Independent float64 oracles: samplers, schedules and problems written straight from the papers.

Nothing here imports the engine and the engine imports nothing from here, so agreement between
the two is evidence. `golden` holds the reference numbers both are tested against.
"""
